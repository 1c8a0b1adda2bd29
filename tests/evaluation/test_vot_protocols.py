"""What must hold for VOT's protocols on any results, whatever the reference programs say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.vot_evaluation import straightforward
from pysot_toolkit.datasets.vot import VOT_TAGS, polygon_to_rectangle
from pysot_toolkit.evaluation.protocol import PROTOCOLS, Regions, Runs, Scores, SupervisedRun, Truth
from pysot_toolkit.evaluation.vot_results import parse_trajectory

SAME = 1e-6  # curves of expected average overlap are kept in 32 bits
SIZE = (60, 50)


@st.composite
def experiments(draw, repetitions: tuple[int, ...] = (1, 2, 15)) -> tuple[Truth, Runs]:
    """A turned target that may leave the image, tags, and runs that fail anywhere, at the very end too."""
    seed, frames = draw(st.integers(0, 2**32)), draw(st.integers(8, 130))
    random = np.random.default_rng(seed)
    centre = random.uniform(0, SIZE, (frames, 2))
    along, across = random.uniform(-12, 12, (2, frames, 2))
    polygon = np.concatenate([centre - along, centre + across, centre + along, centre - across], axis=1)
    if draw(st.booleans()):
        polygon = np.round(polygon)
    tags = {tag: random.random(frames) < draw(st.sampled_from([0, 0.3])) for tag in VOT_TAGS}
    truth = Truth("video", polygon_to_rectangle(polygon), None, None, SIZE, "", polygon, tags)
    runs = []
    for _ in range(draw(st.sampled_from(repetitions))):
        code = np.full(frames, 3, np.int8)
        code[0] = 1
        frame = 0
        for gap in draw(st.lists(st.integers(1, 60), max_size=4)):
            frame += gap
            if frame >= frames:
                break
            code[frame : frame + 5], code[frame] = 0, 2
            code[frame + 5 : frame + 6] = 1
            frame += 5
        shaken = polygon if draw(st.booleans()) else truth.bbox
        values = np.where((code == 3)[:, None], shaken + random.normal(0, 1, shaken.shape), np.nan)
        runs.append(SupervisedRun(code, Regions(values, np.where(code == 3, values.shape[1], 0))))
    return truth, Runs([], supervised=runs)


@settings(max_examples=40)
@given(st.lists(experiments(), min_size=1, max_size=3), st.sampled_from(["", *VOT_TAGS]))
def test_pysot_equals_going_frame_by_frame(videos, tag):
    """The definition in plain Python, one fragment and one length at a time."""
    protocol = PROTOCOLS.get("pysot-vot2019")()  # its interval is the one that short videos reach
    truths = [truth._replace(name=str(k)) for k, (truth, _) in enumerate(videos)]
    # all repetitions of a sequence count the same, so the plain side needs as many everywhere
    used = [runs.supervised if len(runs.supervised) == 15 else runs.supervised[:1] for _, runs in videos]
    scores = {truth.name: protocol.score(truth, runs) for truth, (_, runs) in zip(truths, videos)}
    want = straightforward(truths, used, protocol.low, protocol.high, tag)
    overall = protocol.summarise(list(scores.values()))
    found = {**overall.values}
    if tag:
        by_tag = protocol.by_attribute(scores, {})
        found["eao"] = by_tag[tag][0].values["eao"] if tag in by_tag else np.nan
    for key, value in want.items():
        np.testing.assert_allclose(found[key], value, rtol=0, atol=SAME, err_msg=key)


PROTOCOLS_OF_VOT = [PROTOCOLS.get(name)() for name in ("pysot-vot2019", "vot2016", "got10k-vot")]


@pytest.mark.parametrize("protocol", PROTOCOLS_OF_VOT, ids=lambda protocol: protocol.name)
@settings(max_examples=15)
@given(video=experiments((1,)))
def test_equal_repetitions_change_nothing(protocol, video):
    """Whether they are one object, as the reader makes them, or copies."""
    truth, runs = video
    one = runs.supervised[0]
    copies = [SupervisedRun(one.code.copy(), one.regions) for _ in range(15)]
    want = protocol.score(truth, runs).values
    for repeated in ([one] * 15, copies):
        values = protocol.score(truth, Runs([], supervised=repeated)).values
        np.testing.assert_allclose(list(values.values()), list(want.values()), rtol=0, atol=1e-7)


@pytest.mark.parametrize("protocol", PROTOCOLS_OF_VOT, ids=lambda protocol: protocol.name)
@settings(max_examples=15)
@given(videos=st.lists(experiments(), min_size=1, max_size=4), data=st.data())
def test_drawing_sequences_is_repeating_them(protocol, videos, data):
    scores = [protocol.score(truth, runs) for truth, runs in videos]
    counts = [data.draw(st.integers(0, 3), label="count") for _ in scores]
    counts[data.draw(st.integers(0, len(counts) - 1))] += 1
    same_as_repeating(protocol, scores, np.array([counts, [1] * len(counts)]))


def same_as_repeating(protocol, scores: list[Scores], counts: np.ndarray) -> None:
    drawn = protocol.resampled(scores, counts)
    assert set(drawn) == {column.key for column in protocol.columns if column.better}
    for row, times in enumerate(counts):
        repeated = [score for score, count in zip(scores, times) for _ in range(count)]
        values = protocol.summarise(repeated).values
        for key, column in drawn.items():
            np.testing.assert_allclose(column[row], values[key], rtol=0, atol=SAME, err_msg=key)


@settings(max_examples=25)
@given(experiments((1,)))
def test_a_perfect_run_of_the_vot_toolkit_scores_one(video):
    """Its raster gives equal regions 1 wherever they cover a pixel; here they lie within the image."""
    truth, _ = video
    boxes = np.clip(np.abs(truth.bbox), 5, 20)
    text = "\n".join(["1", *(",".join(map(repr, row)) for row in boxes[1:].tolist())])
    still = truth._replace(bbox=boxes, polygon=None)
    values = (
        PROTOCOLS.get("vot2015")().score(still, Runs([], supervised=[parse_trajectory(text.encode())])).values
    )
    assert values["failures"] == 0 and values["reliability"] == 1
    assert values["accuracy"] == (1 if len(boxes) > 10 else 0)
    assert values["eao"] == 1 or (np.isnan(values["eao"]) and len(boxes) <= 108)


def long_term(
    confidence: np.ndarray, found: Callable[[int], bool] = lambda frame: True
) -> tuple[Truth, Runs]:
    """A target that rests, absent from frame 60 on, and a tracker that finds it where ``found``."""
    frames = len(confidence)
    truth = np.tile([20.0, 20, 20, 20], (frames, 1))
    truth[60:] = np.nan
    lines = ["1", *("20,20,20,20" if found(k) else "0" for k in range(1, frames))]
    run = parse_trajectory("\n".join(lines).encode())
    return Truth("video", truth, image_size=(100, 100)), Runs([], presence=[confidence], supervised=[run])


@pytest.mark.parametrize("name", ["pysot-votlt", "votlt"])
@pytest.mark.parametrize("frames", [80, 400])  # fewer confidences than thresholds, and more
def test_confidence_that_knows_when_the_target_is_there_has_precision_one(name: str, frames: int):
    confidence = np.linspace(1, 0.5, frames)  # falls with time, and the target leaves for good
    truth, runs = long_term(confidence)
    values = PROTOCOLS.get(name)().score(truth, runs).values
    if frames == 80:
        assert values["recall"] == pytest.approx(59 / 60)  # all but the first frame, which reports nothing
    assert values["precision"] > 0.95 and values["f1"] > 0.95
    assert values["f1"] == pytest.approx(
        2 * values["precision"] * values["recall"] / (values["precision"] + values["recall"])
    )


@pytest.mark.parametrize("name", ["pysot-votlt", "votlt"])
def test_a_tracker_that_reports_nothing_scores_zero(name: str):
    truth, runs = long_term(np.full(59, 0.5), found=lambda frame: False)
    values = PROTOCOLS.get(name)().score(truth, runs).values
    assert values["f1"] == 0 and values["recall"] == 0 and values["tracked"] == 0 and values["missed"] == 59
