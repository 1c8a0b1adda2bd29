"""One colour per tracker in every plot, page and video."""

from __future__ import annotations

# Okabe and Ito, Color Universal Design: distinct for all kinds of colour vision; yellow is too pale for lines
# and orange is the truth's.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#8A6D00", "#000000")
TRUTH = "#E69F00"


def rgb(colour: str) -> tuple[int, int, int]:
    """``"#0072B2"`` -> (0, 114, 178)."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
