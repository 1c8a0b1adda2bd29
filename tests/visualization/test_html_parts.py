"""The parts of the HTML report: worst segments, filmstrips, lines, escaping, digests."""

from __future__ import annotations

import html
import math
import os
import re

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from config.errors import UserError
from pysot_toolkit.datasets.base import Annotation, Benchmark, Sequence
from pysot_toolkit.datasets.benchmarks import SeqFileOnly
from pysot_toolkit.visualization import filmstrip
from pysot_toolkit.visualization.html.markup import markup, tag
from pysot_toolkit.visualization.html.provenance import annotation_digest, checkpoint_note
from pysot_toolkit.visualization.html.segments import _drawn
from pysot_toolkit.visualization.html.sparkline import POINTS, binned, sparkline

overlap_arrays = hnp.arrays(
    np.float32, st.integers(0, 400), elements=st.sampled_from([0.0, 0.1, 0.1875, 0.25, 0.5, 1.0, math.nan])
)


@given(overlap_arrays)
def test_the_worst_segment_is_the_worst_there_is(overlap):
    best, run = (0.0, None), []
    for frame, value in [*enumerate(overlap.tolist()), (len(overlap), 1.0)]:
        if math.isnan(value):
            continue
        if value < filmstrip.LOST:
            run.append(frame)
        else:
            lost = sum(1 - float(overlap[k]) for k in run)
            if lost > best[0] + 1e-9:
                best = (lost, run)
            run = []
    segment = filmstrip.worst_segment("tracker", "video", overlap)
    if best[1] is None:
        assert segment is None
        return
    assert math.isclose(segment.lost, best[0], rel_tol=1e-9)
    assert (segment.first, segment.last, segment.visible) == (best[1][0], best[1][-1], len(best[1]))
    assert list(segment.shown) == sorted(set(segment.shown)) and 1 <= len(segment.shown) <= 6
    assert not np.isnan(overlap[list(segment.shown)]).any()
    visible = np.flatnonzero(~np.isnan(overlap)).tolist()
    before, after = visible.index(segment.first) - 1, visible.index(segment.last) + 1
    assert (
        segment.shown[0] == visible[max(before, 0)]
        and segment.shown[-1] == visible[min(after, len(visible) - 1)]
    )


def test_segments_are_ranked_and_few():
    lost = np.zeros(50, np.float32)
    overlaps = {
        f"t{k}": {f"v{n}": np.where(np.arange(50) < n, lost, 1) for n in range(20)} for k in range(30)
    }
    for count in (1, 3, 5, 30):
        table = filmstrip.worst_segments(overlaps, list(overlaps)[:count])
        assert sum(map(len, table.values())) == {1: 6, 3: 18, 5: 20, 30: 24}[count]
        for found in table.values():
            assert [segment.lost for segment in found] == [19, 18, 17, 16, 15, 14][: len(found)]


@given(overlap_arrays)
def test_lines_keep_means_and_gaps(overlap):
    values = binned(overlap)
    assert len(values) == min(len(overlap), POINTS)
    edges = [k * len(overlap) // max(len(values), 1) for k in range(len(values) + 1)]
    for value, a, b in zip(values, edges[:-1], edges[1:]):
        known = [float(v) for v in overlap[a:b] if not math.isnan(v)]
        assert b > a and (
            math.isclose(value, sum(known) / len(known), abs_tol=1e-9) if known else math.isnan(value)
        )
    line = re.search(r' d="(.*?)"', sparkline(overlap, "line", "t0"))[1]
    pairs = [(int(x), int(y)) for x, y in re.findall(r"(\d+) (\d+)", line)]
    assert pairs == [(x, round(22 * (1 - v))) for x, v in enumerate(values) if not math.isnan(v)]
    gaps = np.isnan(values)
    assert line.count("M") == np.count_nonzero(~gaps & np.concatenate([[True], gaps[:-1]])[: len(gaps)])


@given(st.text(), st.text())
def test_text_never_becomes_markup(name, text):
    made = tag("td", text, title=name)
    shown = re.fullmatch(r'<td title="([^"<>]*)">([^<>]*)</td>', made, re.DOTALL)
    assert (html.unescape(shown[1]), html.unescape(shown[2])) == (
        html.unescape(html.escape(name)),
        html.unescape(html.escape(text)),
    )
    assert markup(made, text) == made + html.escape(text)


def test_strips_show_one_part_of_the_image_with_all_boxes(tmp_path):
    frames = [str(tmp_path / f"{k}.png") for k in range(9)]
    for frame in frames:
        cv2.imwrite(frame, np.full((720, 1280, 3), 90, np.uint8))
    truth = np.tile([900.0, 500, 30, 20], (9, 1))
    truth[:, 0] += np.arange(9)
    sequence = Sequence("video", lambda: frames, lambda: Annotation(truth))
    segment = filmstrip.worst_segment("a", "video", np.array([0.9] * 3 + [0.0] * 4 + [0.9] * 2))
    near = filmstrip.draw_strip(sequence, segment, {"a": truth + np.array([20, 0, 0, 0])})
    far = filmstrip.draw_strip(
        sequence, segment, {"a": truth - np.array([800, 400, 0, 0]), "short": truth[:2]}
    )
    sizes = []
    for strip in (near, far):
        assert len(strip.jpegs) == len(segment.shown) == 6 and strip.size == (240, 135)
        for jpeg in strip.jpegs:
            image = cv2.cvtColor(
                cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
            )
            assert image.shape == (135, 240, 3)
            blue, orange = (
                (image[..., 2] > 120) & (image[..., 0] < 70),
                (image[..., 0] > 190) & (image[..., 2] < 90),
            )
            assert blue.any() and orange.any()  # tracker and truth
        sizes.append(np.ptp(np.nonzero(orange)[1]))
    assert sizes[0] > 2 * sizes[1]  # the nearer the boxes, the larger the target
    os.remove(frames[3])
    with pytest.raises(UserError, match=r"3\.png: is missing"):
        filmstrip.draw_strip(sequence, segment, {})


def test_every_tracker_keeps_its_colour_in_strips():
    names = [f"t{k}" for k in range(17)]
    assert _drawn(names[:3], 2) == names[:3]
    for number in range(17):
        drawn = _drawn(names, number)
        assert len(drawn) == 7 and drawn[number % 7] == names[number] and len(set(drawn)) == 7


def test_the_digest_sees_every_box(tmp_path):
    def benchmark(boxes):
        sequence = Sequence("video", list, lambda: Annotation(np.array(boxes, float)))
        return Benchmark("Own", [sequence], SeqFileOnly(), tmp_path)

    kind, digest = annotation_digest(benchmark([[1, 2, 3, 4]]))
    assert kind == "the annotation as read" and digest == annotation_digest(benchmark([[1, 2, 3, 4]]))[1]
    assert digest != annotation_digest(benchmark([[1, 2, 3, 4.0001]]))[1]


@pytest.mark.parametrize("text, shown", [("", "not valid JSON"), ("[1]", "[1]"), ('{"arch": "x"}', "arch x")])
def test_notes_of_others_do_not_stop_the_report(tmp_path, text, shown):
    assert checkpoint_note(tmp_path) == ""
    (tmp_path / "checkpoint.json").write_text(text)
    assert shown in checkpoint_note(tmp_path)
