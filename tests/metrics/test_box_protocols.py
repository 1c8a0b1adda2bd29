"""Agreement of the other one-pass protocols with the programs they reproduce, driven by ``SPOT_SHARED/metrics``.

Trackers, benchmarks, sequences, attributes and frames all come from ``expected/*.json``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from config.environment import load_settings
from config.errors import UserError
from pysot_toolkit.datasets import open_benchmark
from pysot_toolkit.evaluation import boxes, lasot, otb_got10k, pytracking
from pysot_toolkit.evaluation.evaluate import evaluate
from pysot_toolkit.evaluation.protocol import PROTOCOLS, Truth
from pysot_toolkit.evaluation.report import Report
from pysot_toolkit.evaluation.results import read_runs
from tests.metrics.reference import EXACT, FOLDER, close, expected, numbers_of, same_frames, settings_for

pytestmark = pytest.mark.metrics

PERCENT = 1e-4  # percentage points: pytracking keeps its curves in 32 bits
PYTRACKING = {"default": "pytracking", "exclude_invalid_frames": "pytracking-valid"}
NAMES = ("pysot-strict", "pytracking", "pytracking-valid", "otb-got10k", "lasot", "pysot-ope")


@functools.cache
def report_of(dataset: str) -> Report:
    return evaluate(
        settings_for(dataset),
        dataset,
        results=FOLDER / "bench" / "results",
        protocols=NAMES,
        allow_missing=True,
    )


def cases(name: str, table: dict[str, Any], *inner: str) -> Iterator[Any]:
    """One case per benchmark (and setting) and tracker."""
    for dataset, entry in table.items():
        for key in inner:
            entry = entry[key]
        for tracker in entry:
            yield pytest.param(dataset, tracker, id=f"{name}-{dataset}-{tracker}")


def frame_cases() -> Iterator[Any]:
    for dataset, table in expected("frame_level").items():
        for pair in table:
            yield pytest.param(dataset, pair, id=f"{dataset}-{pair.replace('/', '-')}")


def test_reference_numbers_are_there(shared):
    for name in ("pysot_ope_strict_mask", "pytracking", "got10k", "frame_level", "edge_cases"):
        shared("metrics", "expected", f"{name}.json")


@pytest.mark.parametrize(
    ("dataset", "tracker"),
    cases("strict", expected("pysot_ope_strict_mask").get("benchmarks", {}), "trackers"),
)
def test_strict_mask(dataset: str, tracker: str):
    want = expected("pysot_ope_strict_mask")["benchmarks"][dataset]["trackers"][tracker]
    report = report_of(dataset)
    got, loose = (report.scores[name][tracker] for name in ("pysot-strict", "pysot-ope"))
    assert set(got.sequences) == set(want["sequences"])
    for scores, numbers in [
        (got.overall, want["overall"]),
        *((got.sequences[name], numbers) for name, numbers in want["sequences"].items()),
    ]:
        close(scores.values["auc"], numbers["auc"])
        assert np.abs(scores.curves["success"] - numbers["success_curve"]).max() <= EXACT
    for attribute, auc in want["attributes_auc"].items():
        close((got.overall if attribute == "ALL" else got.attributes[attribute]).values["auc"], auc)
    for name, scores in got.sequences.items():
        for key in ("precision", "norm_precision"):
            assert np.array_equal(scores.curves[key], loose.sequences[name].curves[key])


@pytest.mark.parametrize("setting", PYTRACKING)
@pytest.mark.parametrize(
    ("dataset", "tracker"), cases("pytracking", expected("pytracking").get("benchmarks", {}), "default")
)
def test_pytracking(dataset: str, tracker: str, setting: str):
    want = expected("pytracking")["benchmarks"][dataset][setting][tracker]
    report = report_of(dataset)
    got = report.scores[PYTRACKING[setting]][tracker]
    assert got.overall is not None
    overall = want["overall_percent"]
    keys = {"AUC": "auc", "OP50": "op50", "OP75_index15": "op75"}
    keys |= {"Precision": "precision", "NormPrecision": "norm_precision"}
    for theirs, ours in keys.items():
        same_percent(got.overall.values[ours], overall[theirs])
    for curve in ("success", "precision", "norm_precision"):
        same_percent(got.overall.curves[curve], np.array(overall[f"{curve}_curve"]))
    assert len(got.sequences) == overall["n_sequences"]
    assert set(got.sequences) == set(want["sequences"])
    for name, numbers in want["sequences"].items():
        scores = got.sequences[name]
        for theirs, ours in {"AUC": "auc", "precision20": "precision"}.items():
            same_percent(scores.values[ours], numbers[theirs])
        same_percent(scores.values["norm_precision"], numbers["norm_precision20"])
        same_percent(scores.values["norm_precision_50"], numbers["norm_precision50"])
        close(scores.values["mean_overlap"], numbers["avg_overlap"])
        if "success_curve" in numbers:
            same_percent(scores.curves["success"], 100 * np.array(numbers["success_curve"]))  # a share here
    for attribute, auc in want["attributes_auc_percent"].items():
        same_percent((got.overall if attribute == "ALL" else got.attributes[attribute]).values["auc"], auc)
    refused = {
        fault.sequence
        for fault in report.faults[tracker]
        if fault.kind == "refused" and fault.detail.startswith(f"{PYTRACKING[setting]}:")
    }
    assert refused == set(want["raised"])


@pytest.mark.parametrize("tracker", expected("pytracking").get("lasot_f1", {}))
def test_pytracking_presence_f1(tracker: str):
    """Of the sequences without a mismatch of lengths, for trackers that wrote presence scores."""
    want = expected("pytracking")["lasot_f1"][tracker]
    protocol = PROTOCOLS.get("pytracking")()
    folder = FOLDER / "bench" / "results" / "LaSOT" / tracker
    scores = []
    for sequence in open_benchmark("LaSOT", settings_for("LaSOT")):
        if sequence.extra_frames:
            continue
        runs, _ = read_runs(folder, [sequence.name], len(sequence.ground_truth))
        assert runs is not None
        truth = Truth(sequence.name, sequence.ground_truth, sequence.present, benchmark="LaSOT")
        scores.append(protocol.score(truth, runs))
    assert len(scores) == want["n_sequences_without_monkey17"]
    values = protocol.summarise(scores).values
    if not list(folder.glob("*_object_presence_scores.txt")):
        # pytracking takes all scores for 1; its result then depends on how its sort orders ties
        assert np.isnan(values["f1"])
        return
    close(values["f1"], want["f1_max"])
    close(values["presence_precision"], want["precision_at_max"])
    close(values["presence_recall"], want["recall_at_max"])


@pytest.mark.parametrize(
    "tracker", expected("pytracking").get("benchmarks", {}).get("LaSOT", {}).get("default", {})
)
def test_lasot_agrees_with_pytracking_where_they_count_alike(tracker: str):
    """Numbers of LaSOT's own program are not there. On LaSOT, pytracking's success and normalised precision follow
    the same rules but for the last bits of some thresholds.
    """
    want = expected("pytracking")["benchmarks"]["LaSOT"]["default"][tracker]
    if want["raised"]:
        pytest.skip("pytracking refuses some of these results, LaSOT's program does not")
    got = report_of("LaSOT").scores["lasot"][tracker].overall
    assert got is not None
    alike = np.array(expected("pytracking")["thresholds"]["overlap"]) == lasot.SUCCESS_THRESHOLDS
    assert alike.sum() > 10
    overall = {
        key: np.array(want["overall_percent"][f"{key}_curve"]) for key in ("success", "norm_precision")
    }
    same_percent(got.curves["success"][alike], overall["success"][alike])
    same_percent(got.curves["norm_precision"], overall["norm_precision"])
    same_percent(got.values["norm_precision"], want["overall_percent"]["NormPrecision"])


@pytest.mark.parametrize(("dataset", "tracker"), cases("got10k", expected("got10k").get("ope", {})))
def test_otb_got10k(dataset: str, tracker: str):
    want = expected("got10k")["ope"][dataset][tracker]
    got = report_of(dataset).scores["otb-got10k"][tracker]
    assert got.overall is not None
    same_got10k(got.overall, want["overall"])
    assert set(got.sequences) == set(want["seq_wise"])
    for name, numbers in want["seq_wise"].items():
        same_got10k(got.sequences[name], numbers)


@pytest.mark.parametrize(("dataset", "pair"), frame_cases())
def test_frame_level(dataset: str, pair: str):
    """Every key of the file that is not pysot's or GOT-10k's own overlap (those: ``test_metrics.py``)."""
    name, tracker = pair.rsplit("/", 1)
    benchmark = open_benchmark(dataset, settings_for(dataset))
    sequence = benchmark[name]
    runs, _ = read_runs(
        FOLDER / "bench" / "results" / dataset / tracker,
        benchmark.layout.result_names(name),
        len(sequence.ground_truth),
        sequence.extra_frames,
    )
    assert runs is not None
    bbox = sequence.ground_truth
    prediction = runs.boxes[0][: len(bbox)]
    want = expected("frame_level")[dataset][pair]
    ours = {"norm_center_error_got10k": otb_got10k.norm_centre_errors(bbox, prediction)}
    errors = pytracking.frame_errors(
        Truth(name, bbox, sequence.present, benchmark=dataset), runs.boxes[0].copy()
    )
    ours |= {
        "pytracking_overlap": errors.overlap,
        "pytracking_center": errors.centre,
        "pytracking_norm_center": errors.norm_centre,
        "pytracking_valid": errors.valid,
    }
    elsewhere = {"iou_pysot", "iou_got10k_unbounded", "center_error", "norm_center_error_pysot"}
    assert set(want) == ours.keys() | elsewhere
    for key, values in ours.items():
        same_frames(values, want[key])
    same_frames(boxes.distances(boxes.centres(bbox), boxes.centres(prediction)), want["center_error"])


# What each recorded case does to the result of ``t1`` for its first sequence (of ``t2`` where there are two).
EDGE_CASES: dict[str, Callable[[list[str]], str | None]] = {
    "ope_longer3": lambda lines: "\n".join(lines + lines[-1:] * 3) + "\n",
    "lasot_longer3": lambda lines: "\n".join(lines + lines[-1:] * 3) + "\n",
    "ope_shorter4": lambda lines: "\n".join(lines[:-4]) + "\n",
    "ope_missing": lambda lines: None,
    "lasot_missing": lambda lines: None,
    "lasot_store_missing": lambda lines: None,
    "ope_tab": lambda lines: "\n".join(lines).replace(",", "\t") + "\n",
    "ope_blank_last_line": lambda lines: "\n".join(lines) + "\n\n",
}
NAMED = {"longer3": "long", "shorter4": "short", "missing": "missing"}  # by the end of the case's name
READ_AS_MEANT = ("tab", "blank_last_line")  # the references stop there


@pytest.mark.parametrize("case", expected("edge_cases").get("ope", {}))
def test_edge_cases(case: str, tmp_path: Path):
    """Where the reference has a number, ours is the same; where it stops or is wrong, ours names the file."""
    dataset = "LaSOT" if case.startswith("lasot") else "OTB100"
    trackers = ["t1", "t2"] if case == "lasot_store_missing" else ["t1"]
    box = [10.0, 10.0, 20.0, 20.0]
    table = {
        name: {
            "video_dir": name,
            "init_rect": box,
            "img_names": [f"{name}/{frame:04d}.jpg" for frame in range(30)],
            "gt_rect": [box] * 30,
            "attr": ["FM"],
            "absent": [1] * 30,
        }
        for name in ("aaa", "bbb")
    }
    (tmp_path / dataset).mkdir()
    (tmp_path / dataset / f"{dataset}.json").write_bytes(orjson.dumps(table))
    for tracker in trackers:
        folder = tmp_path / "results" / dataset / tracker
        folder.mkdir(parents=True)
        for name in table:
            (folder / f"{name}.txt").write_text("10,10,20,20\n" * 30)
    damaged = tmp_path / "results" / dataset / trackers[-1] / "aaa.txt"
    text = EDGE_CASES[case](damaged.read_text().splitlines())
    damaged.unlink() if text is None else damaged.write_text(text)

    settings = load_settings(
        [f"paths.test.{dataset}", str(tmp_path / dataset), "paths.var", str(tmp_path / "var")]
    )

    def ours(allow_missing: bool) -> Report:
        return evaluate(
            settings,
            dataset,
            results=tmp_path / "results",
            protocols=("pysot-ope", "pysot-strict"),
            allow_missing=allow_missing,
        )

    if case.endswith(READ_AS_MEANT):
        report = ours(allow_missing=False)
        assert not report.faults["t1"]
        close(report.scores["pysot-ope"]["t1"].sequences["aaa"].values["auc"], 20 / 21)
        return
    with pytest.raises(UserError, match="faulty results: 1"):
        ours(allow_missing=False)
    report = ours(allow_missing=True)
    kind = next(kind for end, kind in NAMED.items() if case.endswith(end))
    assert [(fault.sequence, fault.kind, fault.path) for fault in report.faults[trackers[-1]]] == [
        ("aaa", kind, str(damaged))
    ]
    for tracker in trackers[:-1]:
        assert not report.faults[tracker]
        assert set(report.scores["pysot-ope"][tracker].sequences) == set(table)
    got = report.scores["pysot-strict"][trackers[-1]].sequences
    assert ("aaa" in got) == (kind != "missing")  # never another tracker's boxes
    result = expected("edge_cases")["ope"][case]["strict (numba)"].get("result")
    for name, numbers in result.items() if isinstance(result, dict) else ():
        assert got[name].values["auc"] == pytest.approx(numbers["auc"], abs=1e-6)
        assert got[name].values["precision"] == pytest.approx(numbers["precision20"], abs=1e-6)
        assert got[name].curves["success"][0] == pytest.approx(numbers["success_at_0"], abs=1e-6)


def same_percent(got: float | np.ndarray, percent: float | np.ndarray) -> None:
    assert np.max(np.abs(np.asarray(got) * 100 - percent)) <= PERCENT


def same_got10k(got: Any, want: dict[str, Any]) -> None:
    close(got.values["auc"], want["success_score"])
    close(got.values["precision"], want["precision_score"])
    close(got.values["sr50"], want["success_rate"])
    if "normalized_precision_score" in want:
        close(got.values["norm_precision"], want["normalized_precision_score"])
    if want["speed_fps"] < 0:  # the toolkit's word for "no times"
        assert np.isnan(got.values["fps"])
    else:
        close(got.values["fps"] / want["speed_fps"], 1.0)
    for theirs, ours in {
        "success_curve": "success",
        "precision_curve": "precision",
        "normalized_precision_curve": "norm_precision",
    }.items():
        if theirs in want:
            assert np.abs(got.curves[ours] - numbers_of(want[theirs])).max() <= EXACT


def test_pytracking_thresholds(shared):
    shared("metrics", "expected", "pytracking.json")
    want = expected("pytracking")["thresholds"]
    names = {"success": "overlap", "precision": "center", "norm_precision": "center_norm"}
    for curve in pytracking.PyTracking.curves:
        assert curve.thresholds is not None
        assert curve.thresholds.tolist() == want[names[curve.key]]  # to the last bit: ties depend on it
