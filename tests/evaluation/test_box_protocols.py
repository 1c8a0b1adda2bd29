"""The one-pass protocols against slow recomputations from their definitions, and what must hold for any boxes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pysot_toolkit.evaluation import lasot, ope, otb_got10k, pytracking
from pysot_toolkit.evaluation.boxes import repeat_previous
from pysot_toolkit.evaluation.protocol import PROTOCOLS, Runs, Truth, Unscorable

OPE, STRICT, PYTRACKING, VALID, OTB_GOT10K, LASOT = (
    PROTOCOLS.get(name)()
    for name in ("pysot-ope", "pysot-strict", "pytracking", "pytracking-valid", "otb-got10k", "lasot")
)
PYTRACKING_FAMILY = (PYTRACKING, VALID)
EVERY = (OPE, STRICT, *PYTRACKING_FAMILY, OTB_GOT10K, LASOT)


def by_name(protocol) -> str:
    return protocol.name


@st.composite
def tracks(draw, *, tracker=(-40.0, 120.0), nan_truth=False, nan_boxes=False, frames=(1, 12)):
    """Matching true and predicted boxes and visibility flags.

    Often whole numbers, so that thresholds are met exactly; some boxes invalid, some predictions far off or without
    size.
    """
    count = draw(st.integers(*frames))
    usual = st.integers(1, 60).map(float) | st.floats(0.5, 80, width=32) | st.sampled_from([0.0, -3.0])
    far = st.floats(*tracker, width=32)
    truth = draw(table_of(count, usual))
    prediction = truth + draw(table_of(count, st.integers(-6, 6).map(float)))
    kind = draw(st.lists(st.sampled_from(["okay", "far", "flat", "none"]), min_size=count, max_size=count))
    for i, what in enumerate(kind):
        if what == "far":
            prediction[i] = draw(table_of(1, far))
        elif what == "flat":
            prediction[i, draw(st.sampled_from([2, 3]))] = 0
        elif what == "none" and nan_boxes:
            prediction[i] = math.nan
    if nan_truth:
        truth[draw(arrays(bool, count))] = math.nan
    return truth, prediction, draw(arrays(bool, count))


def table_of(rows: int, numbers: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    """``[rows, 4]``, every number drawn for itself."""
    return arrays(np.float64, (rows, 4), elements=numbers, fill=st.nothing())


def sized(boxes: np.ndarray) -> np.ndarray:
    """With sizes that are no failure of the tracker: at least 0."""
    return np.concatenate([boxes[:, :2], np.abs(boxes[:, 2:])], axis=1)


@given(tracks(nan_truth=True, nan_boxes=True), st.integers(0, 3))
def test_lasot_is_its_definition_frame_by_frame(track, more):
    """One frame after the other in plain Python, as the toolkit's text says it."""
    truth, prediction, present = track
    longer = np.concatenate([prediction, prediction[:1].repeat(more, axis=0)])
    scores = LASOT.score(Truth("video", truth, present, benchmark="LaSOT"), Runs([longer]))
    rows: list[np.ndarray] = []
    for i, (g, p) in enumerate(zip(truth, prediction)):
        unusable = any(map(math.isnan, p)) or p[2] <= 0 or p[3] <= 0
        rows.append(rows[i - 1] if i and unusable and not any(map(math.isnan, g)) else p)
    rows[0] = truth[0]
    success, precision, norm = [0] * 21, [0] * 51, [0] * 51
    for g, p, there in zip(truth, rows, present):
        if not there:
            continue
        if not all(number > 0 for number in g):
            precision = [n + 1 for n in precision]
            norm = [n + 1 for n in norm]
            continue
        across = min(g[0] + g[2] - 1, p[0] + p[2] - 1) - max(g[0], p[0]) + 1
        down = min(g[1] + g[3] - 1, p[1] + p[3] - 1) - max(g[1], p[1]) + 1
        inner = max(0.0, across) * max(0.0, down)
        union = g[2] * g[3] + p[2] * p[3] - inner
        overlap = math.nan if math.isnan(p.sum()) or union == 0 else inner / union
        centres = [(box[0] + (box[2] - 1) / 2, box[1] + (box[3] - 1) / 2) for box in (g, p)]
        off = [centres[0][axis] - centres[1][axis] for axis in (0, 1)]
        off_norm = [centres[0][axis] / g[2 + axis] - centres[1][axis] / g[2 + axis] for axis in (0, 1)]
        error, norm_error = (float(np.sqrt(x * x + y * y)) for x, y in (off, off_norm))
        success = [n + (overlap > t) for n, t in zip(success, lasot.SUCCESS_THRESHOLDS)]
        precision = [n + (error <= t) for n, t in zip(precision, range(51))]
        norm = [n + (norm_error <= t / 100) for n, t in zip(norm, range(51))]
    for key, counts in {"success": success, "precision": precision, "norm_precision": norm}.items():
        assert scores.curves[key].tolist() == [count / len(truth) for count in counts], key
    assert scores.values["auc"] == pytest.approx(sum(success) / 21 / len(truth), abs=1e-12)
    assert scores.values["precision"] == precision[20] / len(truth)
    assert scores.values["norm_precision"] == norm[20] / len(truth)
    assert scores.values["norm_precision_auc"] == pytest.approx(sum(norm) / 51 / len(truth), abs=1e-12)


def test_lasot_thresholds_are_those_of_matlab():
    """The second half of 0:0.05:1 is counted down from 1, the first half up from 0."""
    assert lasot.SUCCESS_THRESHOLDS.tolist() == [
        k * 0.05 if k <= 10 else 1 - (20 - k) * 0.05 for k in range(21)
    ]


def test_lasot_leaves_out_of_a_mean_what_is_zero_throughout():
    truth = np.tile([10.0, 10, 20, 20], (10, 1))
    hidden = np.zeros(10, bool)
    seen = LASOT.score(Truth("seen", truth, ~hidden), Runs([truth]))
    gone = LASOT.score(Truth("gone", truth, hidden), Runs([truth]))
    assert gone.values["auc"] == 0
    assert LASOT.summarise([seen, gone]).values == seen.values
    assert LASOT.summarise([gone, gone]).values["auc"] == 0


@pytest.mark.parametrize(
    ("protocol", "benchmark"), [(LASOT, "LaSOT"), (LASOT, "OTB100"), (PYTRACKING, "LaSOT"), (VALID, "LaSOT")]
)
def test_too_short_for_the_program(protocol, benchmark):
    truth = np.tile([10.0, 10, 20, 20], (10, 1))
    with pytest.raises(Unscorable, match="9 lines for 10 frames"):
        protocol.score(Truth("video", truth, benchmark=benchmark), Runs([truth[:9]]))


@given(tracks(nan_truth=True), st.sampled_from(["UAV123", "UAV20L"]), st.integers(0, 3), st.booleans())
def test_pytracking_is_its_definition_on_uav(track, benchmark, cut, flags):
    """Also with a result that is too short: zeros, which are not repaired."""
    truth, prediction, present = track
    prediction = sized(prediction)
    given_boxes = prediction[: max(1, len(prediction) - cut)]
    flagged = Truth("video", truth, present if flags else None, benchmark=benchmark)
    scores = PYTRACKING.score(flagged, Runs([given_boxes]))
    rows = []
    for i, p in enumerate(given_boxes):
        repeat = i and 0 in p[2:] and not np.isnan(truth[i]).any()
        rows.append(rows[i - 1] if repeat else p)
    rows += [np.zeros(4)] * (len(truth) - len(rows))
    rows[0] = truth[0]
    success, precision, norm = [0] * 21, [0] * 51, [0] * 51
    for g, p, there in zip(truth, rows, present):
        if not all(number > 0 for number in g) or (flags and not there):
            precision = [n + 1 for n in precision]
            norm = [n + 1 for n in norm]
            continue
        overlap = float(pytracking.overlaps(g[None], p[None])[0])
        centres = [box[:2] + 0.5 * (box[2:] - 1) for box in (g, p)]
        error = float(np.sqrt(((centres[1] - centres[0]) ** 2).sum()))
        norm_error = float(np.sqrt(((centres[1] / g[2:] - centres[0] / g[2:]) ** 2).sum()))
        success = [n + (overlap > t) for n, t in zip(success, pytracking.SUCCESS_THRESHOLDS)]
        precision = [n + (error <= t) for n, t in zip(precision, range(51))]
        norm = [n + (norm_error <= t / 100) for n, t in zip(norm, range(51))]
    for key, counts in {"success": success, "precision": precision, "norm_precision": norm}.items():
        assert scores.curves[key].tolist() == [count / len(truth) for count in counts], key


def test_pytracking_repeats_no_box_where_the_truth_is_unknown():
    """A box without size there stays, and is what the next one without size repeats."""
    truth = np.tile([10.0, 10, 20, 20], (4, 1))
    truth[1] = math.nan
    boxes = truth.copy()
    boxes[1:3] = [50, 50, 0, 0]
    errors = pytracking.frame_errors(Truth("video", truth, benchmark="UAV123"), boxes)
    assert errors.overlap.tolist() == [1, -1, 0, 1]
    boxes[1] = [10, 10, 20, 20]
    errors = pytracking.frame_errors(Truth("video", truth, benchmark="UAV123"), boxes)
    assert errors.overlap.tolist() == [1, -1, 1, 1]


def test_boxes_that_end_with_their_last_pixel_keep_their_last_bits():
    """pytracking and LaSOT's toolkit subtract and add the pixel; that moves exact ties with a threshold."""
    random = np.random.default_rng(0)
    truth, found = random.uniform([0, 0, 1, 1], [2, 2, 90, 90], (2, 2000, 4))
    want = []
    for g, p in zip(truth, found):
        sides = [
            max(0.0, min(g[a] + g[2 + a] - 1, p[a] + p[2 + a] - 1) - max(g[a], p[a]) + 1) for a in (0, 1)
        ]
        inner = sides[0] * sides[1]
        want.append(inner / (g[2] * g[3] + p[2] * p[3] - inner))
    assert pytracking.overlaps(truth, found).tolist() == want
    assert (ope.overlaps(truth, found) != want).any()
    np.testing.assert_allclose(ope.overlaps(truth, found), want, atol=1e-12)


@pytest.mark.parametrize("protocol", PYTRACKING_FAMILY, ids=by_name)
@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ([math.nan, 10, 20, 20], "line 3 is NaN or of negative size"),
        ([10, 10, 20, -1], "line 3 is NaN or of negative size"),
        ([-math.inf, 10, math.inf, 20], "not a number"),
    ],
)
def test_pytracking_refuses_what_the_program_refuses(protocol, broken, why):
    truth = np.tile([10.0, 10, 20, 20], (10, 1))
    boxes = truth.copy()
    boxes[2] = broken
    with pytest.raises(Unscorable, match=why), np.errstate(invalid="ignore"):
        protocol.score(Truth("video", truth, benchmark="OTB100"), Runs([boxes]))
    unknown = truth.copy()
    unknown[4] = math.nan
    with pytest.raises(Unscorable, match="true box of frame 5"):
        protocol.score(Truth("video", unknown, benchmark="OTB100"), Runs([truth]))
    on_uav = protocol.score(Truth("video", unknown, benchmark="UAV123"), Runs([truth]))
    assert on_uav.frames == (9 if protocol is VALID else 10)


@given(tracks(tracker=(0.0, 80.0)))
def test_pytracking_settings_differ_by_the_denominator_alone(track):
    truth, prediction, present = track
    prediction = sized(prediction)
    sequence = Truth("video", truth, present, benchmark="LaSOT")
    valid = int((present & (truth > 0).all(axis=1)).sum())
    plain = PYTRACKING.score(sequence, Runs([prediction]))
    if valid == 0:
        with pytest.raises(Unscorable, match="no frame is valid"):
            VALID.score(sequence, Runs([prediction]))
        return
    other = VALID.score(sequence, Runs([prediction]))
    for key, curve in plain.curves.items():
        np.testing.assert_allclose(other.curves[key] * valid, curve * len(truth), atol=1e-12)
    # what cannot be seen is no hit in LaSOT, but an invalid box in sight is one in normalised precision
    assert plain.curves["precision"].max() * len(truth) <= valid + 1e-12
    assert plain.curves["norm_precision"].max() * len(truth) <= present.sum() + 1e-12


@st.composite
def presence_runs(draw):
    """Sequences of LaSOT's kind whose first prediction is the truth, with presence scores (some tied)."""
    table = []
    for k in range(draw(st.integers(1, 4))):
        truth, prediction, present = draw(tracks(frames=(2, 8)))
        prediction = sized(prediction)
        truth[0], present[0] = np.abs(truth[0]) + 1, True
        prediction[0] = truth[0]
        scores = draw(arrays(np.float64, len(truth), elements=st.integers(0, 6).map(lambda n: n / 6)))
        table.append(
            (Truth(f"{k}", truth, present, benchmark="LaSOT"), Runs([prediction], presence=[scores]))
        )
    return table


@given(presence_runs())
def test_presence_f1_is_the_best_of_all_cuts(table):
    scores = [PYTRACKING.score(truth, runs) for truth, runs in table]
    values = PYTRACKING.summarise(scores).values
    frames = []
    for truth, runs in table:
        errors = pytracking.frame_errors(truth, runs.boxes[0])
        assert runs.presence is not None
        frames += [*zip(runs.presence[0], np.where(errors.valid, errors.overlap, 0), errors.valid)]
    frames.sort(key=lambda frame: -frame[0])
    valid = sum(frame[2] for frame in frames)
    best = 0.0
    for k in range(1, len(frames) + 1):
        hits = sum(frame[1] for frame in frames[:k])
        precision, recall = hits / k, hits / valid if valid else 0.0
        if precision + recall > 0:
            best = max(best, 2 * precision * recall / (precision + recall))
    assert values["f1"] == pytest.approx(best, abs=1e-12)
    p, r = values["presence_precision"], values["presence_recall"]
    assert p + r == 0 or values["f1"] == pytest.approx(2 * p * r / (p + r), abs=1e-12)
    without = [PYTRACKING.score(truth, runs._replace(presence=None)) for truth, runs in table]
    assert math.isnan(PYTRACKING.summarise([*scores[1:], without[0]]).values["f1"])
    assert math.isnan(PYTRACKING.summarise(without).values["f1"])


def untied(table):
    """The same with no two frames of one presence score: the order of ties is nobody's promise."""
    count = iter(range(1000))
    for truth, runs in table:
        assert runs.presence is not None
        scores = [score + 1e-6 * next(count) for score in runs.presence[0]]
        yield truth, runs._replace(presence=[np.array(scores)])


@given(presence_runs().map(lambda table: list(untied(table))), st.data())
def test_drawing_sequences_anew_equals_scoring_the_draw(table, data):
    """``resampled`` of a draw is ``summarise`` of the sequences drawn, for every protocol."""
    counts = data.draw(arrays(np.int64, (3, len(table)), elements=st.integers(0, 3)))
    counts[:, 0] += 1  # an empty draw has no score
    for protocol in EVERY:
        scores = [protocol.score(truth, runs) for truth, runs in table]
        drawn = protocol.resampled(scores, counts.astype(np.float64))
        assert set(drawn) == {column.key for column in protocol.columns if column.better}
        for row, repeats in enumerate(counts):
            again = protocol.summarise([s for s, n in zip(scores, repeats) for _ in range(n)]).values
            for key, values in drawn.items():
                assert values[row] == pytest.approx(again[key], abs=1e-12), (protocol.name, key)


@given(
    tracks(nan_truth=True, nan_boxes=True), st.sampled_from(["OTB100", "LaSOT", "UAV123"]), st.integers(0, 4)
)
def test_got10k_counts_every_frame_that_is_left(track, benchmark, cut):
    truth, prediction, _ = track
    prediction = prediction[: max(1, len(prediction) - cut)]
    pairs = [[g, g if i == 0 else p] for i, (g, p) in enumerate(zip(truth, prediction))]
    if benchmark != "OTB100":
        pairs = [pair for pair in pairs if not np.isnan(pair[0]).any()]
    sequence = Truth("video", truth, benchmark=benchmark)
    if not pairs:
        with pytest.raises(Unscorable, match="no frame has a true box"):
            OTB_GOT10K.score(sequence, Runs([prediction]))
        return
    scores = OTB_GOT10K.score(sequence, Runs([prediction]))
    assert scores.frames == len(pairs)
    overlaps, errors, norm_errors = [], [], []
    for g, p in pairs:
        sides = [max(0.0, min(g[a] + g[2 + a], p[a] + p[2 + a]) - max(g[a], p[a])) for a in (0, 1)]
        known = not (np.isnan(g).any() or np.isnan(p).any())
        inner = sides[0] * sides[1]
        union = g[2] * g[3] + p[2] * p[3] - inner + np.finfo(np.float64).eps
        overlaps.append(min(max(float(np.divide(inner, union)), 0.0), 1.0) if known else 0.0)
        off = (p[:2] + (p[2:] - 1) / 2) - (g[:2] + (g[2:] - 1) / 2)
        errors.append(float(np.sqrt((off**2).sum())))
        norm_errors.append(float(np.sqrt(((off / np.maximum(1, g[2:])) ** 2).sum())))
    for key, values, thresholds in (
        ("success", overlaps, otb_got10k.SUCCESS_THRESHOLDS),
        ("success_101", overlaps, otb_got10k.SUCCESS_THRESHOLDS_101),
    ):
        want = [sum(value > t for value in values) / len(pairs) for t in thresholds]
        assert scores.curves[key].tolist() == want
    for key, values, thresholds in (
        ("precision", errors, otb_got10k.PRECISION_THRESHOLDS),
        ("norm_precision", norm_errors, otb_got10k.NORM_PRECISION_THRESHOLDS),
    ):
        want = [sum(value <= t for value in values) / len(pairs) for t in thresholds]
        assert scores.curves[key].tolist() == want
    assert np.array_equal(scores.curves["success_101"][::50], scores.curves["success"][::10])


@given(tracks(nan_truth=True, nan_boxes=True))
def test_the_strict_mask_takes_away_success_and_nothing_else(track):
    truth, prediction, present = track
    sequence = Truth("video", truth, present)
    loose, strict = (protocol.score(sequence, Runs([prediction])) for protocol in (OPE, STRICT))
    assert (strict.curves["success"] <= loose.curves["success"]).all()
    for key in ("precision", "norm_precision"):
        assert np.array_equal(strict.curves[key], loose.curves[key])
    inside = np.where(np.isnan(truth) | (truth[:, [0, 1]] > 0).all(axis=1)[:, None], truth, 0.0)
    masked = OPE.score(Truth("video", inside, present), Runs([prediction]))
    assert np.array_equal(strict.curves["success"], masked.curves["success"])


@pytest.mark.parametrize("protocol", EVERY, ids=by_name)
@given(track=tracks(tracker=(0.0, 80.0)))
def test_scores_do_not_change_the_arrays_they_are_made_from(protocol, track):
    truth, prediction, present = track
    truth[0] = np.abs(truth[0]) + 1
    present[0] = True
    prediction = sized(prediction)
    before = truth.copy(), prediction.copy()
    sequence = Truth("video", truth, present, benchmark="LaSOT")
    first = protocol.score(sequence, Runs([prediction]))
    assert np.array_equal(truth, before[0]) and np.array_equal(prediction, before[1])
    again = protocol.score(sequence, Runs([np.asfortranarray(prediction)]))  # no matter how it lies in memory
    assert all(np.array_equal(first.curves[key], again.curves[key]) for key in first.curves)


@given(arrays(np.float64, st.tuples(st.integers(1, 20), st.just(4)), elements=st.floats(0, 9)), st.data())
def test_repeating_the_previous_box(boxes, data):
    broken = data.draw(arrays(bool, len(boxes)))
    want = [boxes[0]]
    for box, again in zip(boxes[1:], broken[1:]):
        want.append(want[-1] if again else box)
    assert np.array_equal(repeat_previous(boxes, broken), want)
