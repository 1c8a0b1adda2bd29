"""VOT's protocols: agreement with the reference programs, and what must hold for any results."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.environment import load_settings
from config.errors import UserError
from pysot_toolkit.datasets import open_benchmark
from pysot_toolkit.datasets.vot import VOT_TAGS
from pysot_toolkit.evaluation import pysot_vot, vot
from pysot_toolkit.evaluation.evaluate import evaluate
from pysot_toolkit.evaluation.protocol import PROTOCOLS, Truth
from pysot_toolkit.evaluation.report import Report
from pysot_toolkit.evaluation.vot_common import side_by_side
from pysot_toolkit.evaluation.vot_results import read_supervised
from tests.metrics.reference import EXACT, FOLDER, close, expected, numbers_of, same_frames, settings_for

pytestmark = pytest.mark.metrics

EAO = 1e-6  # EXPECTED.md section 1; both references keep their curves in 32 bits


@functools.cache
def report_of(dataset: str, protocol: str) -> Report:
    return evaluate(
        settings_for(dataset), dataset, results=FOLDER / "bench" / "results", protocols=(protocol,)
    )


def table_of(dataset: str, protocol: str, tracker: str):
    report = report_of(dataset, protocol)
    assert not report.faults[tracker]
    table = report.scores[protocol][tracker]
    assert table.overall is not None
    return table, table.overall


def years(name: str) -> Iterator[Any]:
    for year, table in expected(name).items():
        for tracker in table.get("eao", {}) if year.startswith("VOT") else {}:
            yield pytest.param(year, tracker, id=f"{name}-{year}-{tracker}")


def trackers(name: str, *path: str) -> list[Any]:
    table = expected(name)
    for key in path:
        table = table.get(key, {})
    return [pytest.param(tracker, id=f"{name}-{'-'.join(path)}-{tracker}") for tracker in table]


def near(got: float, want: float) -> None:
    assert abs(got - want) <= EAO


def test_reference_numbers_are_there(shared):
    for name in ("pysot_vot", "pysot_votlt", "vot_official", "got10k", "edge_cases"):
        shared("metrics", "expected", f"{name}.json")


@pytest.mark.parametrize(("year", "tracker"), years("pysot_vot"))
def test_pysot_expected_average_overlap(year: str, tracker: str):
    """The numbers of each year, on the one set of data there is."""
    want = expected("pysot_vot")[year]
    name = f"pysot-{year.lower()}"
    table, overall = table_of("VOT2018", name, tracker)
    protocol = PROTOCOLS.get(name)()
    assert [protocol.low, protocol.high] == want["eao_interval_1based"]
    tags = dict(want["eao"][tracker])
    near(overall.values["eao"], tags.pop("all"))
    assert set(table.attributes) == set(tags)
    for tag, value in tags.items():
        near(table.attributes[tag].values["eao"], value)
    benchmark = open_benchmark("VOT2018", settings_for("VOT2018"))
    for tag in VOT_TAGS:
        occurs = [np.any(sequence.annotation.tags[tag]) for sequence in benchmark]
        assert table.attribute_counts[tag] == sum(occurs)


@pytest.mark.parametrize("tracker", trackers("pysot_vot", "VOT2018", "ar"))
def test_pysot_accuracy_and_robustness(tracker: str):
    want = expected("pysot_vot")["VOT2018"]["ar"][tracker]
    table, overall = table_of("VOT2018", "pysot-vot2018", tracker)
    close(overall.values["accuracy"], want["accuracy"])
    close(overall.values["robustness"], want["robustness"])
    close(overall.values["lost"], want["lost_number"])
    assert sum(int(scores.parts["frames"]) for scores in table.sequences.values()) == want["total_length"]
    assert set(table.sequences) == set(want["sequences"])
    benchmark = open_benchmark("VOT2018", settings_for("VOT2018"))
    for name, numbers in want["sequences"].items():
        scores = table.sequences[name]
        close(scores.values["accuracy"], numbers["accuracy"])
        close(scores.values["lost"], numbers["lost_number"])
        truth = truth_of(benchmark[name])
        runs, _ = read_supervised(FOLDER / "bench" / "results" / "VOT2018" / tracker, [name], len(truth.bbox))
        repetitions = side_by_side(runs.supervised, len(truth.bbox))
        # in the order in which the reference's machine listed the files
        failures = np.count_nonzero(repetitions.code == 2, axis=1)
        assert sorted(failures.tolist()) == sorted(numbers["failures_per_run"])
        whole, _ = pysot_vot.overlaps(truth, repetitions)
        same_frames(pysot_vot.burnt_in_overlaps(whole, repetitions), numbers["overlaps_burnin10"])


@pytest.mark.parametrize("tracker", trackers("pysot_vot", "VOT2018", "eao_curve_all"))
def test_pysot_curve(tracker: str):
    want = expected("pysot_vot")["VOT2018"]["eao_curve_all"][tracker]
    _, overall = table_of("VOT2018", "pysot-vot2018", tracker)
    curve = numbers_of(want["curve_float32"])
    assert overall.curves["eao"].shape == overall.curves["eao_x"].shape == curve.shape
    np.testing.assert_allclose(overall.curves["eao"], curve, rtol=0, atol=EAO)


@pytest.mark.parametrize("tracker", trackers("vot_official", "shortterm"))
def test_official(tracker: str):
    want = expected("vot_official")["shortterm"][tracker]
    for year, eao in want["eao"].items():
        table, overall = table_of("VOT2018", year.lower(), tracker)
        near(overall.values["eao"], eao)
        curve = numbers_of(want["eao_curve"])
        assert overall.curves["eao"].shape == curve.shape
        np.testing.assert_allclose(overall.curves["eao"], curve, rtol=0, atol=EAO)
        close(overall.values["accuracy"], want["accuracy"])
        close(overall.values["failures"], want["failures_length_weighted"])
        close(overall.values["failures_sum"], want["cumulative_failures_vot2016"])
        close(overall.values["reliability"], want["ar_point"][0])
        assert set(table.sequences) == set(want["per_sequence"])
        for name, numbers in want["per_sequence"].items():
            values = table.sequences[name].values
            close(values["accuracy"], numbers["accuracy"])
            close(values["failures"], numbers["failures"])
            close(values["reliability"], numbers["ar_point"][0])
    benchmark = open_benchmark("VOT2018", settings_for("VOT2018"))
    for name, frames in want["raw_overlap_first_run_bounded"].items():
        truth = truth_of(benchmark[name])
        folder = FOLDER / "bench" / "results" / "VOT2018" / tracker
        runs, _ = read_supervised(folder, [name], len(truth.bbox))
        overlap = vot.overlaps(truth, side_by_side(runs.supervised[:1], len(truth.bbox)))[0]
        same_frames(np.nan_to_num(overlap, nan=0.0), frames)


@pytest.mark.parametrize("tracker", trackers("got10k", "vot_ar"))
def test_got10k(tracker: str):
    want = expected("got10k")["vot_ar"][tracker]
    _, overall = table_of("VOT2018", "got10k-vot", tracker)
    close(overall.values["accuracy"], want["accuracy"])
    close(overall.values["robustness"], want["robustness"])
    if want["speed_fps"] < 0:
        assert np.isnan(overall.values["fps"])
    else:
        close(overall.values["fps"] / want["speed_fps"], 1.0)


@pytest.mark.parametrize("tracker", trackers("pysot_votlt"))
def test_pysot_long_term(tracker: str):
    want = expected("pysot_votlt")[tracker]
    table, overall = table_of("VOT2018-LT", "pysot-votlt", tracker)
    protocol = PROTOCOLS.get("pysot-votlt")()
    for key in ("precision", "recall", "f1"):
        close(overall.values[key], want[key])
        same_frames(overall.curves[key], np.nan_to_num(numbers_of(want[f"{key}_curve"]), nan=0.0))
    assert overall.values["threshold"] == float(want["best_threshold"])
    thresholds = protocol.thresholds(list(table.sequences.values()))
    assert thresholds.tolist() == numbers_of(want["thresholds"]).tolist()  # to the last bit: they are data
    assert int(np.argmax(overall.curves["f1"])) == want["best_index"]
    assert set(table.sequences) == set(want["sequences"])
    for name, numbers in want["sequences"].items():
        for got, key in zip(
            protocol.sequence_curves(table.sequences[name], thresholds), ("precision", "recall")
        ):
            same_frames(got, numbers[f"{key}_curve"])


@pytest.mark.parametrize("tracker", trackers("vot_official", "longterm"))
def test_official_long_term(tracker: str):
    want = expected("vot_official")["longterm"][tracker]
    table, overall = table_of("VOT2018-LT", "votlt", tracker)
    for key, name in (("precision", "precision"), ("recall", "recall"), ("f1", "f")):
        close(overall.values[key], want[name])
    same_frames(overall.curves["f1"], want["f_curve"])
    recall, precision = np.array(want["curve_recall_precision"]).T
    same_frames(overall.curves["recall"], recall)
    same_frames(overall.curves["precision"], precision)
    for name, counts in want["frame_counts_T_F_M_H_N"].items():
        values = table.sequences[name].values
        # to the toolkit, frames without a target are unknown and no kind of frame
        assert [values["tracked"], values["failed"], values["missed"], 0, 0] == counts


@pytest.mark.parametrize("tracker", trackers("pysot_votlt"))
def test_drawing_sequences_long_term(tracker: str):
    """At thresholds of all sequences: drawing each once is the score itself."""
    for name in ("pysot-votlt", "votlt"):
        table, overall = table_of("VOT2018-LT", name, tracker)
        protocol, scores = PROTOCOLS.get(name)(), list(table.sequences.values())
        drawn = protocol.resampled(scores, np.array([[1] * len(scores), [2] * len(scores)]))
        for key, values in drawn.items():
            np.testing.assert_allclose(values, overall.values[key], rtol=0, atol=EXACT)
        only = protocol.resampled(scores, np.eye(len(scores)))
        curves = [protocol.sequence_curves(score, protocol.thresholds(scores)) for score in scores]
        for k, (precision, recall) in enumerate(curves):
            best = np.nanmax(2 * precision * recall / (precision + recall))
            close(only["f1"][k], best)


# What results are like in each recorded edge case, from ``{sequence: [trajectory of each repetition]}``.
PERFECT = ["1", *(f"{11 + k},10,20,20" for k in range(139))]
SHIFTED = ["1", *(f"{21 + k},10,20,20" for k in range(139))]
FAILING = [*PERFECT[:50], "2", "0", "0", "0", "0", "1", *PERFECT[56:]]
WHOLE = {name: [PERFECT] for name in ("aaa", "bbb", "ccc")}
EDGES: dict[str, dict[str, list[list[str]]]] = {
    "base": WHOLE,
    # the reference takes the file that the directory lists first; these are what it happened upon
    "three_runs": {
        "aaa": [SHIFTED, PERFECT, PERFECT],
        "bbb": [SHIFTED, PERFECT, PERFECT],
        "ccc": [PERFECT, SHIFTED, SHIFTED],
    },
    "two_fail_ragged": {**WHOLE, "aaa": [PERFECT, *[FAILING] * 14]},
    "missing_first": {**WHOLE, "aaa": []},
    "missing_last": {**WHOLE, "ccc": []},
    "mid_unknown": {**WHOLE, "aaa": [[*PERFECT[:70], "0", *PERFECT[71:]]]},
    "shorter": {**WHOLE, "aaa": [PERFECT[:120]]},
    "longer": {**WHOLE, "aaa": [[*PERFECT, *PERFECT[1:6]]]},
    "unknown_year": WHOLE,
}
NAMED = {
    "missing_first": "missing",
    "missing_last": "missing",
    "mid_unknown": "nan",
    "shorter": "short",
    "longer": "long",
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case) for case in expected("edge_cases").get("vot", {})]
)
def test_edge_cases_are_equal_or_named(tmp_path: Path, case: str):
    """pysot's number wherever it has one; and where the files are faulty results, a fault that names one."""
    make_benchmark(tmp_path, EDGES[case])
    config = load_settings(["paths.test.VOT2018", str(tmp_path / "VOT2018"), "paths.var", str(tmp_path)])
    year = "2015" if case == "unknown_year" else "2018"
    measure = functools.partial(evaluate, config, "VOT2018", results=tmp_path / "results")
    if year == "2015":
        with pytest.raises(UserError, match="unknown protocol 'pysot-vot2015'"):
            measure(protocols=("pysot-vot2015",))
        return
    report = measure(protocols=("pysot-vot2018",), allow_missing=True)
    kinds = {fault.kind for fault in report.faults["tracker"]}
    assert kinds == ({NAMED[case]} if case in NAMED else set())
    if kinds:
        with pytest.raises(UserError, match="faulty results"):
            measure(protocols=("pysot-vot2018",))
    want = expected("edge_cases")["vot"][case]["pysot"]
    table = report.scores["pysot-vot2018"]["tracker"]
    values = table.overall.values
    eao = want["eao"]["all"]
    assert (
        np.isnan(values["eao"]) if eao is None else abs(values["eao"] - eao) < 1e-5
    )  # five digits are recorded
    if "ar" in want:
        assert abs(values["accuracy"] - want["ar"]["accuracy"]) < 1e-5
        frames = {name: int(scores.parts["frames"]) for name, scores in table.sequences.items()}
        assert frames == want["ar"]["frames_used"]
    if "robustness" in want:
        close(values["robustness"], want["robustness"])


def test_the_vot_toolkit_refuses_other_lengths(tmp_path: Path):
    """Its own comparison of trajectories raises; so does the got10k toolkit's."""
    make_benchmark(tmp_path, EDGES["shorter"])
    config = load_settings(["paths.test.VOT2018", str(tmp_path / "VOT2018"), "paths.var", str(tmp_path)])
    report = evaluate(
        config,
        "VOT2018",
        results=tmp_path / "results",
        protocols=("vot2018", "got10k-vot"),
        allow_missing=True,
    )
    told = [fault.detail for fault in report.faults["tracker"] if fault.kind == "refused"]
    assert told == ["vot2018: 120 lines for 140 frames", "got10k-vot: 120 lines for 140 frames"]
    assert set(report.scores["vot2018"]["tracker"].sequences) == {"bbb", "ccc"}


def make_benchmark(root: Path, results: dict[str, list[list[str]]]) -> None:
    """Three videos of 140 frames with a target that moves by a pixel, and one tracker."""
    entry = {
        "img_names": [f"{k:08d}.jpg" for k in range(140)],
        "gt_rect": [[10 + k, 10, 20, 20] for k in range(140)],
        "width": 320,
        "height": 240,
    }
    (root / "VOT2018").mkdir()
    (root / "VOT2018" / "VOT2018.json").write_text(json.dumps({name: entry for name in results}))
    for name, repetitions in results.items():
        folder = root / "results" / "VOT2018" / "tracker" / "baseline" / name
        folder.mkdir(parents=True)
        for number, lines in enumerate(repetitions, 1):
            (folder / f"{name}_{number:03d}.txt").write_text("\n".join(lines) + "\n")


def truth_of(sequence) -> Truth:
    annotation = sequence.annotation
    return Truth(
        sequence.name,
        annotation.bbox,
        image_size=sequence.image_size,
        polygon=annotation.polygon,
        tags=annotation.tags,
    )
