"""What must hold for any boxes, whatever the reference programs say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pysot_toolkit.evaluation import ope
from pysot_toolkit.evaluation.protocol import PROTOCOLS, Runs, Truth, share_above, share_within

PYSOT, GOT10K, KIT = (PROTOCOLS.get(name)() for name in ("pysot-ope", "got10k", "trackingnet"))
COUNTS = st.integers(2, 12)


@st.composite
def box_pairs(draw, broken: bool = True):
    """Matching true and predicted boxes in an image of 100 x 80; some degenerate, NaN or far outside."""
    count = draw(COUNTS)
    numbers = st.integers(-40, 120).map(float) | st.floats(-40, 120, width=32)
    if broken:
        numbers |= st.just(math.nan)
    truth, prediction = (draw(arrays(np.float64, (count, 4), elements=numbers)) for _ in range(2))
    if not broken:
        truth[:, :2], truth[:, 2:] = np.abs(truth[:, :2]) + 1, np.abs(truth[:, 2:]) + 1
    return truth, prediction


def truth_of(bbox: np.ndarray, **more) -> Truth:
    return Truth("sequence", bbox, cover=np.full(len(bbox), 8), image_size=(100, 80), **more)


@given(box_pairs())
def test_curves_equal_counting_one_threshold_at_a_time(pair):
    """The definition, frame by frame in plain Python, for any boxes including NaN."""
    truth, prediction = pair
    scores = PYSOT.score(truth_of(truth), Runs([prediction]))
    for k, threshold in enumerate(ope.SUCCESS_THRESHOLDS):
        hits = sum(
            plain_overlap(g, p) > threshold for g, p in zip(truth, prediction) if g[2] > 0 and g[3] > 0
        )
        assert scores.curves["success"][k] == hits / len(truth)
    for k, threshold in enumerate(ope.PRECISION_THRESHOLDS):
        hits = 0
        for g, p in zip(truth, prediction):
            x, y = g[0] + (g[2] - 1) / 2, g[1] + (g[3] - 1) / 2
            distance = math.hypot(x - p[0] - (p[2] - 1) / 2, y - p[1] - (p[3] - 1) / 2)
            # math.hypot and sqrt of squares may differ in the last bit at a threshold
            at_tie = abs(distance - threshold) < 1e-9
            hits += (
                1 if not (x > 0 and y > 0) else (_numpy_distance(g, p) if at_tie else distance) <= threshold
            )
        assert scores.curves["precision"][k] == hits / len(truth)


@given(box_pairs(), st.permutations(range(12)))
def test_order_of_frames_does_not_matter_to_pysot(pair, order):
    truth, prediction = pair
    order = [i for i in order if i < len(truth)]
    one = PYSOT.score(truth_of(truth), Runs([prediction])).curves
    other = PYSOT.score(truth_of(truth[order]), Runs([prediction[order]])).curves
    assert all(np.array_equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("protocol", [PYSOT, GOT10K, KIT], ids=lambda protocol: protocol.name)
@given(pair=box_pairs())
def test_scores_are_shares_and_curves_monotone(protocol, pair):
    truth, prediction = pair
    truth = np.nan_to_num(truth, nan=1.0) if protocol is GOT10K else truth  # GOT-10k has no absent boxes
    scores = protocol.score(truth_of(truth), Runs([prediction]))
    assert all(0 <= value <= 1 for key, value in scores.values.items() if key != "fps")
    for key, curve in scores.curves.items():
        steps = np.diff(curve)
        assert (steps <= 0).all() if key == "success" else (steps >= 0).all()


@given(box_pairs(broken=False))
def test_the_truth_itself_scores_what_the_definitions_say(pair):
    truth, _ = pair
    truth = np.clip(truth, 1, 40)
    perfect = Runs([truth.copy()])
    assert PYSOT.score(truth_of(truth), perfect).values["auc"] == pytest.approx(20 / 21, abs=1e-12)
    assert PYSOT.score(truth_of(truth), perfect).values["norm_precision"] == 1
    assert GOT10K.score(truth_of(truth), perfect).values["ao"] == pytest.approx(1, abs=1e-12)
    kit = KIT.score(truth_of(truth), perfect).values
    assert (kit["success"], kit["precision"], kit["coverage"]) == (1, 1, 1)


@given(box_pairs(broken=False), st.data())
def test_missing_frames_are_failures_and_extra_ones_are_cut(pair, data):
    truth, prediction = pair
    cut = data.draw(st.integers(1, len(truth) - 1))
    full = PYSOT.score(truth_of(truth), Runs([prediction]))
    longer = PYSOT.score(truth_of(truth), Runs([np.concatenate([prediction, prediction])]))
    shorter = PYSOT.score(truth_of(truth), Runs([prediction[:cut]]))
    part = PYSOT.score(truth_of(truth[:cut]), Runs([prediction[:cut]]))
    for key, curve in full.curves.items():
        assert np.array_equal(longer.curves[key], curve)
        np.testing.assert_allclose(shorter.curves[key], part.curves[key] * cut / len(truth), atol=1e-12)
    for protocol in (GOT10K, KIT):
        less = protocol.score(truth_of(truth), Runs([prediction[:cut]])).values
        more = protocol.score(truth_of(truth), Runs([prediction])).values
        key = protocol.columns[0].key
        assert less[key] <= more[key] + 1e-12


def test_short_and_long_results_of_a_perfect_tracker():
    """26 of 30 frames: 20/21 * 26/30, as the original toolkit counts (edge case ``ope_shorter4``)."""
    truth = np.tile([10.0, 10, 20, 20], (30, 1))
    short = PYSOT.score(truth_of(truth), Runs([truth[:26]])).values
    assert short["auc"] == pytest.approx(0.825397, abs=1e-6)
    assert short["precision"] == pytest.approx(0.866667, abs=1e-6)
    assert PYSOT.score(truth_of(truth), Runs([np.tile(truth, (2, 1))])).values["auc"] == pytest.approx(
        0.952381, abs=1e-6
    )


@given(box_pairs(broken=False), st.data())
def test_absent_frames_are_failures_whatever_is_predicted(pair, data):
    truth, prediction = pair
    present = data.draw(arrays(bool, len(truth)))
    scores = PYSOT.score(truth_of(truth, present=present), Runs([prediction]))
    wild = np.where(present[:, None], prediction, 7.0)
    assert np.array_equal(
        scores.curves["success"],
        PYSOT.score(truth_of(truth, present=present), Runs([wild])).curves["success"],
    )
    assert max(curve.max() for curve in scores.curves.values()) <= present.mean()


@given(box_pairs(broken=False), st.integers(1, 3))
def test_repeating_a_run_changes_no_average(pair, runs):
    truth, prediction = pair
    one = GOT10K.score(truth_of(truth), Runs([prediction]))
    more = GOT10K.score(truth_of(truth), Runs([prediction] * runs))
    assert more.values["ao"] == pytest.approx(one.values["ao"], abs=1e-12)
    assert more.frames == runs * one.frames


@given(st.lists(box_pairs(broken=False), min_size=1, max_size=4))
def test_got10k_pools_frames_and_pysot_weighs_sequences(pairs):
    scores = [GOT10K.score(truth_of(truth), Runs([prediction])) for truth, prediction in pairs]
    frames = [len(truth) - 1 for truth, _ in pairs]
    want = sum(s.values["ao"] * n for s, n in zip(scores, frames)) / sum(frames)
    assert GOT10K.summarise(scores).values["ao"] == pytest.approx(want, abs=1e-12)
    scores = [PYSOT.score(truth_of(truth), Runs([prediction])) for truth, prediction in pairs]
    want = sum(s.values["auc"] for s in scores) / len(scores)
    assert PYSOT.summarise(scores).values["auc"] == pytest.approx(want, abs=1e-12)


@settings(max_examples=30)
@given(arrays(np.float64, st.integers(0, 30), elements=st.floats(-1, 2) | st.just(math.nan)))
def test_shares_count_strictly_and_not(values):
    thresholds = np.linspace(0, 1, 5)
    total = len(values) + 3
    assert share_above(values, thresholds, total).tolist() == [
        sum(v > t for v in values) / total for t in thresholds
    ]
    assert share_within(values, thresholds, total).tolist() == [
        sum(v <= t for v in values) / total for t in thresholds
    ]


def test_speed_ignores_what_was_not_measured():
    truth = np.tile([10.0, 10, 20, 20], (4, 1))
    seconds = np.array([[0.0], [math.nan], [0.1], [0.05]])
    scores = [PYSOT.score(truth_of(truth), Runs([truth], times)) for times in (seconds, None)]
    assert scores[0].values["fps"] == pytest.approx(15)
    assert math.isnan(scores[1].values["fps"])
    assert PYSOT.summarise(scores).values["fps"] == pytest.approx(15)


def plain_overlap(g: np.ndarray, p: np.ndarray) -> float:
    if np.isnan([g, p]).any():
        return math.nan
    width = max(0.0, min(g[0] + g[2], p[0] + p[2]) - max(g[0], p[0]))
    height = max(0.0, min(g[1] + g[3], p[1] + p[3]) - max(g[1], p[1]))
    union = g[2] * g[3] + p[2] * p[3] - width * height
    if union == 0:
        return math.inf if width * height > 0 else math.nan
    return min(max(width * height / union, 0.0), 1.0)


def _numpy_distance(g: np.ndarray, p: np.ndarray) -> float:
    return float(ope.centre_errors(g[None], p[None])[0])
