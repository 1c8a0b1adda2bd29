"""The worst segments of each tracker, with filmstrips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from config.errors import UserError
from pysot_toolkit.datasets.base import Benchmark, Sequence
from pysot_toolkit.evaluation.protocol import RESULT_READERS
from pysot_toolkit.evaluation.report import Report
from pysot_toolkit.visualization import filmstrip
from pysot_toolkit.visualization.html.markup import Markup, counted, data_uri, markup, tag
from pysot_toolkit.visualization.html.tables import tracker
from pysot_toolkit.visualization.overlay import MAX_TRACKERS


def segments_section(report: Report, benchmark: Benchmark, root: Path) -> Markup:
    """The longest spans with the lowest overlap, as filmstrips where the frames are on disk."""
    names = report.trackers
    if not any(report.overlaps.values()):
        return tag("p", "Nothing to show: these results have no box in every frame, so no overlap over time.")
    worst = filmstrip.worst_segments(report.overlaps, names)
    videos = dict.fromkeys(segment.video for found in worst.values() for segment in found)
    boxes = {video: _boxes(names, benchmark, benchmark[video], root) for video in videos}
    unread: list[str] = []
    parts: list[Markup] = []
    for number, name in enumerate(worst):
        parts.append(tag("h3", tracker(number, name)))
        if not worst[name]:
            parts.append(tag("p", "No frame with so little overlap."))
        for segment in worst[name]:
            drawn = {other: boxes[segment.video][other] for other in _drawn(names, number)}
            parts.append(_segment(benchmark[segment.video], segment, drawn, report, unread))
    notes = [
        f"Where each tracker lost most: the spans with an overlap below {filmstrip.LOST} in every frame in which the"
        " target can be seen, ranked by the sum of 1 – overlap over those frames, one span per video. The pictures go"
        " from the last frame before such a span to the first one after it, all of them with the same part of the"
        " image."
    ]
    if len(names) > MAX_TRACKERS:
        notes.append(f"{MAX_TRACKERS} trackers are drawn: the one that is meant, and the best of the others.")
    if unread:
        notes.append(
            f"{len(unread)} of {counted(sum(map(len, worst.values())), 'segment')} have no pictures here, because"
            f" frames cannot be read; the first: {unread[0]}"
        )
    truth = tag("span", class_="swatch truth", aria_hidden="true")
    key = [tag("span", truth, "ground truth", class_="tracker")]
    key += [tracker(number, name) for number, name in enumerate(names)]
    return markup(
        *(tag("p", note) for note in notes),
        tag("ul", *(tag("li", entry) for entry in key), class_="key", aria_label="Colours of the boxes"),
        *parts,
    )


def _drawn(names: list[str], number: int) -> list[str]:
    """Whom a strip of tracker ``number`` shows, each at the place that gives it its colour."""
    drawn = names[:MAX_TRACKERS]
    drawn[number % MAX_TRACKERS] = names[number]
    return drawn


def _segment(
    sequence: Sequence,
    segment: filmstrip.Segment,
    boxes: Mapping[str, np.ndarray],
    report: Report,
    unread: list[str],
) -> Markup:
    """Caption and strip; without the strip, and one more line in ``unread``, where a frame cannot be read."""
    span = (
        f"frame {segment.first + 1}"
        if segment.visible == 1
        else f"frames {segment.first + 1}–{segment.last + 1}"
    )
    caption = tag(
        "figcaption",
        tag("strong", segment.video, class_="name"),
        f", {span}: {counted(segment.visible, 'visible frame')}, mean overlap"
        f" {1 - segment.lost / segment.visible:.2f}, lost overlap {segment.lost:.1f}",
    )
    try:
        strip = filmstrip.draw_strip(sequence, segment, boxes)
    except UserError as error:
        unread.append(str(error))
        return tag("figure", caption, class_="brief")
    overlap = report.overlaps[segment.tracker][segment.video]
    tiles = [
        tag(
            "li",
            tag(
                "img",
                src=data_uri("jpeg", data),
                alt=f"Frame {index + 1} with the boxes",
                width=strip.size[0],
                height=strip.size[1],
                decoding="async",
            ),
            tag("span", f"{index + 1}: overlap {overlap[index]:.2f}"),
        )
        for index, data in zip(segment.shown, strip.jpegs)
    ]
    return tag("figure", caption, tag("ol", *tiles, class_="strip"))


def _boxes(names: list[str], benchmark: Benchmark, sequence: Sequence, root: Path) -> dict[str, np.ndarray]:
    """First repetition of every tracker, in the order that gives the colours; empty where it has no result."""
    read = RESULT_READERS.get(benchmark.layout.results)
    table = {}
    for name in names:
        runs, _ = read(
            root / name,
            benchmark.layout.result_names(sequence.name),
            len(sequence.ground_truth),
            sequence.extra_frames,
        )
        table[name] = runs.boxes[0] if runs is not None and runs.boxes else np.empty((0, 4))
    return table
