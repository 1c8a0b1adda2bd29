"""Overlap over time as a small line."""

from __future__ import annotations

import numpy as np

from pysot_toolkit.visualization.html.markup import Markup, tag

POINTS = 120  # of a line at most: its width in px
_HEIGHT = 22  # px


def sparkline(overlap: np.ndarray, label: str, colour: str) -> Markup:
    """An SVG line from overlap 0 at the bottom to 1 at the top.

    Args:
        overlap: float ``[N]``, NaN where the target is absent: a gap in the line.
        label: what it shows, for those who do not see it and as a tooltip.
        colour: class that sets ``--tracker``.
    """
    values = binned(overlap)
    width = max(len(values) - 1, 1)
    return tag(
        "svg",
        tag("title", label),
        tag("path", d=_path(values)),
        class_=f"spark {colour}",
        viewBox=f"0 0 {width} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
    )


def binned(overlap: np.ndarray) -> np.ndarray:
    """The mean of each of at most ``POINTS`` equal spans: ``[N] -> [min(N, POINTS)]``; NaN where all of one is."""
    count = min(len(overlap), POINTS)
    first = np.arange(count) * len(overlap) // max(count, 1)
    known = ~np.isnan(overlap)
    total = np.add.reduceat(np.where(known, overlap, 0).astype(np.float64), first) if count else np.empty(0)
    frames = np.add.reduceat(known.astype(np.int64), first) if count else np.empty(0)
    return np.divide(total, frames, out=np.full(count, np.nan), where=frames > 0)


def _path(values: np.ndarray) -> str:
    """``M x y x y ...``, a new ``M`` behind each gap; a point on its own is a line of no length (a dot)."""
    known = np.flatnonzero(~np.isnan(values))
    heights = np.rint((1 - values[known]) * _HEIGHT).astype(int)
    runs = np.split(np.arange(len(known)), np.flatnonzero(np.diff(known) > 1) + 1)
    return "".join(
        "M" + " ".join(f"{known[k]} {heights[k]}" for k in run) + ("h0" if len(run) == 1 else "")
        for run in runs
        if len(run)
    )
