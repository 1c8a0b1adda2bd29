"""The table of videos: who is good where, and when the target is lost."""

from __future__ import annotations

import math

import numpy as np

from pysot_toolkit.datasets.base import Benchmark
from pysot_toolkit.evaluation.report import Report
from pysot_toolkit.visualization.filmstrip import LOST
from pysot_toolkit.visualization.html.markup import Markup, markup, tag
from pysot_toolkit.visualization.html.sparkline import POINTS, sparkline
from pysot_toolkit.visualization.html.tables import (
    NOTHING,
    colour_class,
    column_head,
    row_head,
    score_cells,
    score_of,
    table,
    tracker,
)


def video_table(report: Report, benchmark: Benchmark) -> Markup:
    """One row per video: score and overlap over time of each tracker, and what sets the video apart."""
    protocol, names = report.protocols[0], report.trackers
    column = protocol.columns[0]
    tables = [report.scores[protocol.name][name].sequences for name in names]
    traced = any(report.overlaps.values())
    rows = []
    for sequence in benchmark:
        values = [score_of(scores.get(sequence.name), column.key) for scores in tables]
        lines = [_line(report, name, number, sequence.name) for number, name in enumerate(names)]
        known = [value for value in values if not math.isnan(value)]
        gap = max(known) - min(known) if len(known) > 1 else math.nan
        frames = max(len(sequence.annotation.bbox), len(sequence.annotation.masks))
        rows.append(
            [
                row_head(sequence.name, data_text=True),
                *score_cells(values, column, below=lines),
                *(score_cells([gap], column) if len(names) > 1 else ()),
                tag("td", frames, class_="number", data_value=frames),
                tag("td", ", ".join(sequence.attributes) or NOTHING, class_="words", data_text=True),
            ]
        )
    return markup(
        tag(
            "p",
            f"Each line is the overlap with the ground truth from the first frame to the last, 0 at the bottom and 1"
            f" at the top, averaged to at most {POINTS} points; it is interrupted where the target cannot be seen.",
        )
        if traced
        else "",
        _filter("video-table"),
        table(
            f"{column.title} ({protocol.name} v{protocol.version}) by video. ★ best of a row; gap: best minus worst.",
            [
                column_head("Video", number=False),
                *(column_head(tracker(number, name)) for number, name in enumerate(names)),
                *((column_head("Gap"),) if len(names) > 1 else ()),
                column_head("Frames"),
                column_head("Attributes", number=False),
            ],
            rows,
            label="Scores by video",
            tall=True,
            id="video-table",
            data_sortable=True,
        ),
    )


def _line(report: Report, name: str, number: int, video: str) -> Markup:
    overlap = report.overlaps.get(name, {}).get(video)
    if overlap is None:
        return Markup()
    visible = overlap[~np.isnan(overlap)]
    lost = np.mean(visible < LOST) if visible.size else 0
    return sparkline(
        overlap, f"{name}: overlap below {LOST} in {lost:.0%} of the frames", colour_class(number)
    )


def _filter(target: str) -> Markup:
    """Shown by the script, which it is useless without."""
    return tag(
        "div",
        tag("label", "Filter by name or attribute", for_=f"{target}-filter"),
        tag(
            "input",
            id=f"{target}-filter",
            type="search",
            aria_controls=target,
            autocomplete="off",
            spellcheck="false",
        ),
        tag("output", for_=f"{target}-filter", aria_live="polite"),
        class_="filter",
        hidden=True,
    )
