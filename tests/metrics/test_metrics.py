"""Agreement with the reference evaluation programs, driven by the files under ``SPOT_SHARED/metrics``.

Trackers, benchmarks, sequences, attributes and frames all come from ``expected/*.json``; another
folder of the same kind is tested by the same code.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pysot_toolkit.datasets import open_benchmark
from pysot_toolkit.evaluation import got10k, ope
from pysot_toolkit.evaluation.evaluate import evaluate
from pysot_toolkit.evaluation.protocol import PROTOCOLS, Runs, Truth
from pysot_toolkit.evaluation.report import Report, TrackerScores
from pysot_toolkit.evaluation.results import read_runs
from tests.metrics.reference import EXACT, FOLDER, close, expected, numbers_of, same_frames, settings_for

pytestmark = pytest.mark.metrics


@functools.cache
def report_of(dataset: str) -> Report:
    return evaluate(settings_for(dataset), dataset, results=FOLDER / "bench" / "results", allow_missing=True)


def ope_cases() -> Iterator[Any]:
    for dataset, table in expected("pysot_ope").get("benchmarks", {}).items():
        for tracker in table["trackers"]:
            yield pytest.param(dataset, tracker, id=f"pysot_ope-{dataset}-{tracker}")


def frame_cases() -> Iterator[Any]:
    for dataset, table in expected("frame_level").items():
        for pair in table:
            yield pytest.param(dataset, pair, id=f"frame_level-{dataset}-{pair.replace('/', '-')}")


def tracker_cases(name: str, table: dict[str, Any]) -> list[Any]:
    return [pytest.param(tracker, id=f"{name}-{tracker}") for tracker in table]


def test_reference_numbers_are_there(shared):
    for name in ("pysot_ope", "got10k", "trackingnet_devkit", "frame_level"):
        shared("metrics", "expected", f"{name}.json")


@pytest.mark.parametrize(("dataset", "tracker"), ope_cases())
def test_pysot_ope(dataset: str, tracker: str):
    want = expected("pysot_ope")["benchmarks"][dataset]["trackers"][tracker]
    got = report_of(dataset).scores["pysot-ope"][tracker]
    assert got.overall is not None
    same_ope(got.overall, want["overall"])
    assert len(got.sequences) == want["overall"]["n_seq"]
    assert set(got.sequences) == set(want["sequences"])
    for sequence, numbers in want["sequences"].items():
        same_ope(got.sequences[sequence], numbers)
        close(got.sequences[sequence].values["precision_mean"], numbers["precision_mean_as_shown_per_video"])
    attributes = {name: numbers for name, numbers in want.get("attributes", {}).items() if name != "ALL"}
    assert set(got.attributes) == set(attributes)
    for attribute, numbers in attributes.items():
        same_ope(got.attributes[attribute], numbers)
        assert got.attribute_counts[attribute] == numbers["n_seq"]


def test_pysot_ope_thresholds(shared):
    shared("metrics", "expected", "pysot_ope.json")
    want = expected("pysot_ope")["thresholds"]
    for curve in ope.OnePassEvaluation.curves:
        assert curve.thresholds.tolist() == want[curve.key]  # to the last bit: ties depend on it


@pytest.mark.parametrize("tracker", tracker_cases("got10k", expected("got10k").get("GOT-10k", {})))
def test_got10k(tracker: str):
    want = expected("got10k")["GOT-10k"][tracker]
    got = report_of("GOT-10k").scores["got10k"][tracker]
    assert got.overall is not None
    same_got10k(got.overall.values, want["overall"])
    curve = np.array(want["overall"]["succ_curve"])
    assert np.abs(got.overall.curves["success"] - curve).max() <= EXACT
    close(got.overall.values["sr75"], curve[75])
    assert set(got.sequences) == set(want["seq_wise"])
    for sequence, numbers in want["seq_wise"].items():
        same_got10k(got.sequences[sequence].values, numbers)


@pytest.mark.parametrize("tracker", tracker_cases("trackingnet_devkit", expected("trackingnet_devkit")))
def test_trackingnet_devkit(tracker: str):
    want = expected("trackingnet_devkit")[tracker]
    got = report_of("TrackingNet").scores["trackingnet"][tracker]
    assert got.overall is not None
    same_percent(got.overall.values, want["overall_percent"])
    assert set(got.sequences) == set(want["sequences_percent"])
    for sequence, numbers in want["sequences_percent"].items():
        same_percent(got.sequences[sequence].values, numbers)
    if "overall_percent_first_sequence_missing" in want:
        same_percent(without_first(got), want["overall_percent_first_sequence_missing"])


@pytest.mark.parametrize(("dataset", "pair"), frame_cases())
def test_frame_level(dataset: str, pair: str):
    name, tracker = pair.rsplit("/", 1)
    benchmark = open_benchmark(dataset, settings_for(dataset))
    sequence = benchmark[name]
    folder = FOLDER / "bench" / "results" / dataset / tracker
    runs, _ = read_runs(
        folder, benchmark.layout.result_names(name), len(sequence.ground_truth), sequence.extra_frames
    )
    assert runs is not None
    truth = sequence.ground_truth
    prediction = runs.boxes[0][: len(truth)]
    want = expected("frame_level")[dataset][pair]
    same_frames(ope.overlaps(truth, prediction), want["iou_pysot"])
    same_frames(ope.centre_errors(truth, prediction), want["center_error"])
    same_frames(ope.centre_errors(truth, prediction, normalised=True), want["norm_center_error_pysot"])
    unbounded = numbers_of(want["iou_got10k_unbounded"])
    same_frames(got10k.overlaps(truth, prediction), np.nan_to_num(unbounded, nan=0.0))


def test_every_expected_file_is_compared(shared):
    """A new kind of reference numbers shows up here instead of being skipped."""
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for path in shared("metrics", "expected").glob("*.json"):
        assert f'expected("{path.stem}")' in tests, f"{path}: no test reads it"


def same_ope(got, want: dict[str, Any]) -> None:
    close(got.values["auc"], want["auc"])
    close(got.values["precision"], want["precision20"])
    close(got.values["norm_precision"], want["norm_precision20"])
    close(got.values["norm_precision_50"], want["norm_precision50"])
    for key in ("success", "precision", "norm_precision"):
        if f"{key}_curve" in want:
            assert np.abs(got.curves[key] - numbers_of(want[f"{key}_curve"])).max() <= EXACT, key


def same_got10k(values: dict[str, float], want: dict[str, Any]) -> None:
    close(values["ao"], want["ao"])
    close(values["sr50"], want["sr"])
    if want["speed_fps"] < 0:  # the toolkit's word for "no times"
        assert np.isnan(values["fps"])
    else:
        close(values["fps"] / want["speed_fps"], 1.0)


def same_percent(values: dict[str, float], want: dict[str, float]) -> None:
    for key, percent in want.items():
        assert abs(values[key] * 100 - percent) <= 1e-10, key


def without_first(table: TrackerScores):
    """Overall values when the result of the first sequence is missing: it counts as all-zero boxes."""
    protocol = PROTOCOLS.get("trackingnet")()
    first = next(iter(open_benchmark("TrackingNet", settings_for("TrackingNet"))))
    zero = protocol.score(Truth(first.name, first.ground_truth), Runs([np.empty((0, 4))]))
    return protocol.summarise(list({**table.sequences, first.name: zero}.values())).values
