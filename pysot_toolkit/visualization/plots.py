"""Success and precision plots in one style, ready for a paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from config.files import atomic_writer
from pysot_toolkit.evaluation.protocol import Curve
from pysot_toolkit.evaluation.report import Report

# Okabe and Ito, Color Universal Design: distinct for all kinds of colour vision; yellow is too pale for lines.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_DASHES = ("solid", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
_MAX_LINES = 12  # more cannot be told apart; the best are drawn
_INSIDE = 5  # a longer legend would hide the curves and goes beside them
_MAX_NAME = 34  # characters of a legend entry

STYLE: Any = {
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
}


def draw_report(report: Report, folder: Path) -> list[Path]:
    """One PNG per curve of each protocol, ``{protocol}_{curve}.png`` in ``folder``; returns their paths."""
    paths = []
    for protocol in report.protocols:
        table = {name: scores.overall for name, scores in report.scores[protocol.name].items()}
        for curve in protocol.curves:
            lines = {
                name
                if report.usable(name) == report.total
                else f"{name} ({report.usable(name)}/{report.total})": (
                    overall.curves[curve.key],
                    overall.values[curve.score],
                )
                for name, overall in table.items()
                if overall is not None
            }
            if lines:
                title = f"{curve.title} on {report.dataset} ({report.total} videos)"
                paths.append(draw_curves(folder / f"{protocol.name}_{curve.key}.png", curve, lines, title))
    return paths


def draw_curves(path: Path, curve: Curve, lines: Mapping[str, tuple[np.ndarray, float]], title: str) -> Path:
    """Draw the curves of several trackers, the legend sorted by score.

    Args:
        path: PNG file to write.
        curve: thresholds and labels.
        lines: tracker to (values ``[T]`` in [0, 1], score in the legend).
        title: above the axes.

    Returns:
        ``path``.
    """
    ranked = sorted(lines.items(), key=lambda item: (-item[1][1], item[0]))
    with plt.rc_context(STYLE):
        beside = len(ranked) > _INSIDE
        figure, axes = plt.subplots(figsize=(9.8 if beside else 6.4, 4.8), layout="constrained")
        for number, (name, (values, score)) in enumerate(ranked[:_MAX_LINES]):
            axes.plot(
                curve.thresholds,
                values,
                color=COLORS[number % len(COLORS)],
                linestyle=_DASHES[number // len(COLORS) % len(_DASHES)],
                label=f"{score:.3f}  {_shortened(name)}",
                zorder=10 - number / 100,
            )
        axes.set(title=title, xlabel=curve.x_label, ylabel="share of frames")
        axes.set_xlim(curve.thresholds[0], curve.thresholds[-1])
        axes.set_ylim(0, 1.005)
        falling = ranked[0][1][0][0] > ranked[0][1][0][-1]
        shown = f", best {_MAX_LINES} of {len(ranked)}" if len(ranked) > _MAX_LINES else ""
        legend = (figure if beside else axes).legend(
            loc="outside right upper" if beside else "lower left" if falling else "lower right",
            title=curve.score_title + shown,
            framealpha=0.9,
            edgecolor="none",
            alignment="left",
        )
        legend.set_zorder(20)
        with atomic_writer(path) as file:
            figure.savefig(file, format="png")
        plt.close(figure)
    return path


def _shortened(name: str) -> str:
    return (
        name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME // 2 - 1]}...{name[-(_MAX_NAME // 2 - 2) :]}"
    )
