"""J and F agree with davis2017-evaluation, through the whole path from mask files to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.environment import load_settings
from pysot_toolkit.evaluation.davis import statistics
from pysot_toolkit.evaluation.evaluate import evaluate
from pysot_toolkit.evaluation.protocol import PROTOCOLS
from pysot_toolkit.evaluation.report import Report
from tests.conftest import need_shared
from tests.metrics.reference import EXACT, FOLDER, close, expected, same_frames

pytestmark = pytest.mark.metrics

TRACKERS: dict[str, Any] = expected("vos").get("trackers", {})
VECTORS: list[dict[str, Any]] = expected("vos").get("statistics_vectors", [])
KEYS = {
    f"{measure}_{name}": f"{measure.lower()}_{name}"
    for measure in "JF"
    for name in ("mean", "recall", "decay")
}


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Report:
    """The masks as DAVIS 2017 lays them out. There are no images: the scores need none."""
    truth = need_shared("metrics", "vos", "gt")
    root: Path = tmp_path_factory.mktemp("vos")
    for folder in (root / "DAVIS" / "Annotations", root / "DAVIS" / "ImageSets" / "2017", root / "results"):
        folder.mkdir(parents=True)
    (root / "DAVIS" / "Annotations" / "480p").symlink_to(truth)
    names = sorted(path.name for path in truth.iterdir())
    (root / "DAVIS" / "ImageSets" / "2017" / "val.txt").write_text("\n".join(names) + "\n")
    (root / "results" / "DAVIS2017").symlink_to(FOLDER / "vos" / "results")
    settings = load_settings(["paths.test.DAVIS2017", str(root / "DAVIS")])
    return evaluate(settings, "DAVIS2017", results=root / "results")


def test_every_tracker_and_sequence_is_scored(report):
    assert set(report.scores["davis"]) == set(TRACKERS)
    assert not any(report.faults.values())
    for tracker, want in TRACKERS.items():
        scored = report.scores["davis"][tracker].sequences
        names = {f"{name}_{k}" for name, scores in scored.items() for k in scores.parts["objects"]}
        assert names == set(want["objects"])


@pytest.mark.parametrize("tracker", TRACKERS)
def test_overall(report, tracker):
    overall = report.scores["davis"][tracker].overall
    assert overall is not None
    want = TRACKERS[tracker]["overall"]
    close(overall.values["jf"], want["J_and_F_mean"])
    for theirs, ours in KEYS.items():
        close(overall.values[ours], want[theirs])


@pytest.mark.parametrize("tracker", TRACKERS)
def test_every_object_and_frame(report, tracker):
    for name, want in TRACKERS[tracker]["objects"].items():
        sequence, number = name.rsplit("_", 1)
        got = report.scores["davis"][tracker].sequences[sequence]
        for theirs, ours in KEYS.items():
            close(got.values[f"{ours}_{number}"], want[theirs])
        place = got.parts["objects"].tolist().index(int(number))
        for measure in "JF":
            same_frames(got.parts[measure][place], want[f"{measure}_per_frame_excluding_first_and_last"])


@pytest.mark.parametrize("tracker", TRACKERS)
def test_pytracking_agrees(report, tracker):
    """A second implementation of the same definitions."""
    for name, want in TRACKERS[tracker].get("pytracking_vos_utils", {}).items():
        sequence, number = name.rsplit("_", 1)
        values = report.scores["davis"][tracker].sequences[sequence].values
        for theirs, ours in KEYS.items():
            close(values[f"{ours}_{number}"], want[theirs])


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['n']}-frames")
def test_statistics(vector):
    """From 256 frames on the reference's own decay wraps; the file has what the formula gives beside it."""
    values = vector["values"] or np.linspace(*vector["linear_from_to"], vector["n"])
    mean, recall, decay = statistics(np.array(values, np.float64))
    close(mean, vector["M"])
    close(recall, vector["O"])
    close(decay, vector.get("D_without_8bit_wrap", vector["D"]))


def test_resampling_repeats_sequences_not_objects(report):
    """Overall scores are means over objects: a sequence with two of them weighs double."""
    protocol = PROTOCOLS.get("davis")()
    for table in report.scores["davis"].values():
        scores = list(table.sequences.values())
        counts = np.array([np.ones(len(scores)), np.arange(len(scores)) + 1.0])
        got = protocol.resampled(scores, counts)
        repeated = [score for k, score in enumerate(scores) for _ in range(k + 1)]
        for column in protocol.columns:
            assert abs(got[column.key][0] - table.overall.values[column.key]) <= EXACT
            assert abs(got[column.key][1] - protocol.summarise(repeated).values[column.key]) <= EXACT
