"""One look for all plots: colours, line styles, sizes, and how a figure becomes a file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from config.files import atomic_writer
from pysot_toolkit.visualization.colours import COLORS

DASHES: tuple[Any, ...] = ("solid", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MAX_LINES = 12  # more cannot be told apart; the best are drawn
_MAX_NAME = 34  # characters of a legend entry

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "legend.fontsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "lines.linewidth": 2.2,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # letters stay letters: publishers refuse the default, type 3
}


@contextmanager
def house_style() -> Iterator[None]:
    """Figures made inside look alike."""
    with plt.rc_context(_STYLE):
        yield


def line_style(number: int) -> dict[str, Any]:
    """Colour and dashes of tracker ``number``, 0-based."""
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": DASHES[number // len(COLORS) % len(DASHES)],
    }


def marker_style(number: int) -> dict[str, Any]:
    """Colour and marker of tracker ``number``, 0-based."""
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[(number + number // len(COLORS)) % len(MARKERS)],
    }


def shortened(name: str) -> str:
    """A name that fits a legend."""
    return (
        name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME // 2 - 1]}...{name[-(_MAX_NAME // 2 - 2) :]}"
    )


def write_figure(figure: Figure, path: Path) -> list[Path]:
    """Write ``path`` as PNG and as PDF (the suffix is replaced); the same figure gives the same bytes."""
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (
        ("png", {"Software": None}),
        ("pdf", {"CreationDate": None, "Creator": None, "Producer": None}),
    )
    paths = []
    for kind, metadata in kinds:
        data = _rendered(figure, kind, metadata)
        paths.append(path.with_name(f"{path.name}.{kind}"))
        with atomic_writer(paths[-1]) as file:
            file.write(data)
    return paths


def _rendered(figure: Figure, kind: str, metadata: dict[str, Any]) -> bytes:
    data = io.BytesIO()
    with house_style():
        figure.savefig(data, format=kind, metadata=metadata)
    return data.getvalue()
