"""The official ``got10k`` package runs our trackers, reads our results, and reports what we report.

The package is used as it is, but for two things: its OTB experiment downloads the videos that are not there,
so empty folders stand for them, and it takes the part of David's frames that belongs to the benchmark by their
position, so placeholders stand for those before it. Its ExperimentVOT does not run with NumPy 2 (``np.NaN``)
and its LaSOT reader raises a TypeError (``_check_integrity`` takes one argument and gets two).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
import torch

from config.environment import load_settings
from ltr.models.registry import build_network
from pysot_toolkit.datasets import open_benchmark
from pysot_toolkit.evaluation.evaluate import evaluate
from pysot_toolkit.evaluation.pack import check_archive, pack
from pysot_toolkit.evaluation.unpack import unpack
from pysot_toolkit.testing.one_pass import Clip, TrackResult
from pysot_toolkit.testing.results import write_result
from pysot_toolkit.trackers.transt import TransTTracker
from tests.conftest import ROOT, need_shared
from tests.testing.alone import run_alone

matplotlib.use("Agg")
experiments = pytest.importorskip("got10k.experiments")

from pysot_toolkit.testing.got10k_client import Got10kTracker  # noqa: E402

EXACT = 1e-12
TINY = {"backbone": "tiny", "hidden_dim": 16, "nheads": 2, "dim_feedforward": 32, "featurefusion_layers": 1}


class Matcher:
    """Finds the first frame's patch again by correlation, within a window around where it was; may be unsteady."""

    def __init__(self, seed: int | None = None) -> None:
        self.random = None if seed is None else np.random.default_rng(seed)

    def initialize(self, image: np.ndarray, bbox: np.ndarray) -> None:
        assert image.dtype == np.uint8 and image.ndim == 3
        self.bbox = bbox.copy()
        x, y, w, h = np.maximum(bbox.round().astype(int), [0, 0, 4, 4])
        self.patch = image[y : y + h, x : x + w]

    def track(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        height, width = self.patch.shape[:2]
        left, top = np.maximum((self.bbox[:2] - self.bbox[2:]).astype(int), 0)
        window = image[top : top + 3 * height + 1, left : left + 3 * width + 1]
        if window.shape[0] < height or window.shape[1] < width:
            return self.bbox, 0.0
        answer = cv2.matchTemplate(window, self.patch, cv2.TM_CCOEFF_NORMED)
        _, score, _, (dx, dy) = cv2.minMaxLoc(answer)
        self.bbox[:2] = left + dx, top + dy
        noise = 0 if self.random is None else self.random.normal(size=4)
        return self.bbox + noise, float(score)


def transt() -> TransTTracker:
    torch.manual_seed(0)
    return TransTTracker(build_network("transt", TINY), torch.device("cpu"), template_size=32, search_size=64)


@pytest.fixture(scope="module")
def video():
    """GOT-10k's folder with a real validation video."""
    need_shared("sequences", "GOT-10k", "val", "list.txt")
    return need_shared("sequences", "GOT-10k")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """GOT-10k's validation layout with covered and cut targets; the images are empty, only counted here."""
    root = tmp_path_factory.mktemp("many") / "GOT-10k"
    shutil.copytree(need_shared("metrics", "bench", "data", "GOT-10k", "val"), root / "val")
    for name in (root / "val" / "list.txt").read_text().split():
        folder = root / "val" / name
        for number, _ in enumerate((folder / "groundtruth.txt").read_text().splitlines(), 1):
            (folder / f"{number:08d}.jpg").touch()
    return root


def settings_for(tmp_path: Path, **folders: Path):
    pairs = [text for name, path in folders.items() for text in (f"paths.test.{name}", str(path))]
    return load_settings(["paths.var", str(tmp_path / "var"), "paths.seq_files", "", *pairs])


def experiment_in(results: Path, root: Path, subset: str = "val"):
    return experiments.ExperimentGOT10k(
        str(root), subset, result_dir=str(results), report_dir=str(results.parent / "official_reports")
    )


def same_report(official: dict, tmp_path: Path, root: Path, results: Path, tracker: str) -> None:
    """Ours on the same files says what the package says, overall, of each sequence and at each threshold."""
    settings = settings_for(tmp_path, **{"GOT-10k": root})
    ours = evaluate(settings, "GOT-10k", trackers=[tracker], results=results).scores["got10k"][tracker]
    assert ours.overall is not None
    for scores, numbers in [(ours.overall, official["overall"])] + [
        (ours.sequences[name], numbers) for name, numbers in official["seq_wise"].items()
    ]:
        assert scores.values["ao"] == pytest.approx(numbers["ao"], abs=EXACT)
        assert scores.values["sr50"] == pytest.approx(numbers["sr"], abs=EXACT)
        assert scores.values["fps"] == pytest.approx(numbers["speed_fps"], rel=EXACT)
    curve = np.array(official["overall"]["succ_curve"])
    np.testing.assert_allclose(ours.overall.curves["success"], curve, rtol=0, atol=EXACT)
    assert ours.overall.values["sr75"] == pytest.approx(curve[75], abs=EXACT)
    assert len(ours.sequences) == len(official["seq_wise"])


@pytest.mark.parametrize("make", [transt, Matcher])
def test_its_experiment_runs_our_tracker(video, tmp_path, make):
    experiment = experiment_in(tmp_path / "results", video)
    experiment.run(Got10kTracker("ours", make()))
    report = experiment.report(["ours"])["ours"]
    same_report(report, tmp_path, video, tmp_path / "results", "ours")
    # It gave the tracker the images and the box that our testing gives it.
    for sequence in open_benchmark("GOT-10k", settings_for(tmp_path, **{"GOT-10k": video})):
        name = sequence.name
        told = np.loadtxt(tmp_path / "results" / "GOT-10k" / "ours" / name / f"{name}_001.txt", delimiter=",")
        ours = run_alone(make(), Clip(name, sequence.frames, sequence.init_bbox))
        np.testing.assert_allclose(told, ours.bboxes, rtol=0, atol=0.0005001)
        assert not (tmp_path / "results" / "GOT-10k" / "ours" / name / f"{name}_002.txt").exists()
    if make is Matcher:
        assert 0.1 < report["overall"]["ao"] < 1  # the numbers above are of a tracker that tracks


def test_repetitions_of_an_unsteady_tracker_are_pooled_alike(video, tmp_path):
    tracker = Got10kTracker("shaky", Matcher(seed=0))
    tracker.is_deterministic = False
    experiment = experiment_in(tmp_path / "results", video)
    experiment.run(tracker)
    assert len(list((tmp_path / "results").rglob("*_00[123].txt"))) == 3 * len(experiment.dataset)
    same_report(experiment.report(["shaky"])["shaky"], tmp_path, video, tmp_path / "results", "shaky")


def test_it_reads_what_our_testing_writes(video, tmp_path):
    for sequence in open_benchmark("GOT-10k", settings_for(tmp_path, **{"GOT-10k": video})):
        result = run_alone(Matcher(), Clip(sequence.name, sequence.frames, sequence.init_bbox))
        write_result(tmp_path / "var", "GOT-10k", "ours", sequence.name, result)
    results = tmp_path / "var" / "results"
    report = experiment_in(results, video).report(["ours"])["ours"]
    assert 0.1 < report["overall"]["ao"] < 1
    same_report(report, tmp_path, video, results, "ours")


def test_it_agrees_where_targets_are_covered_and_cut(many, tmp_path):
    """Boxes of the reference trackers, rewritten by our testing, with the ground truth's hard cases."""
    reference = need_shared("metrics", "bench", "results", "GOT-10k")
    trackers = sorted(path.name for path in reference.iterdir())
    for tracker in trackers:
        for path in sorted((reference / tracker).glob("*/*_001.txt")):
            boxes = np.loadtxt(path, delimiter=",")
            seconds = np.loadtxt(path.parent / f"{path.parent.name}_time.txt", delimiter=",", ndmin=2)[:, 0]
            result = TrackResult(boxes, np.ones(len(boxes)), seconds, [])
            write_result(tmp_path / "var", "GOT-10k", tracker, path.parent.name, result)
    results = tmp_path / "var" / "results"
    report = experiment_in(results, many).report(trackers)
    for tracker in trackers:
        same_report(report[tracker], tmp_path, many, results, tracker)


@pytest.fixture(scope="module")
def otb(tmp_path_factory):
    """OTB as the package wants it, with the real videos that there are."""
    source = need_shared("sequences", "OTB100")
    root = tmp_path_factory.mktemp("otb") / "OTB100"
    present = sorted(path.name for path in source.iterdir() if path.is_dir())
    for name in {*experiments.otb.OTB._OTB__version_dict[2015], *present}:
        (root / name).mkdir(parents=True)
    for name in present:
        images = sorted((source / name / "img").iterdir())
        (root / name / "img").mkdir()
        for number in range(1, int(images[0].stem)):  # before the part that belongs to the benchmark
            (root / name / "img" / f"{number:04d}{images[0].suffix}").touch()
        for path in [*images, *(source / name).glob("groundtruth_rect*.txt")]:
            (root / path.relative_to(source)).symlink_to(path)
    return root


def test_its_otb_experiment_runs_our_tracker(otb, tmp_path):
    experiment = experiments.ExperimentOTB(
        str(otb), 2015, result_dir=str(tmp_path / "results"), report_dir=str(tmp_path / "official_reports")
    )
    experiment.run(Got10kTracker("ours", Matcher()))
    official = experiment.report(["ours"])["ours"]
    settings = settings_for(tmp_path, OTB100=otb)
    root = unpack(settings, "OTB100", tmp_path / "results" / "OTB2015")
    report = evaluate(settings, "OTB100", trackers=["ours"], results=root, protocols=["otb-got10k"])
    ours = report.scores["otb-got10k"]["ours"]
    assert ours.overall is not None and 0.1 < official["overall"]["success_score"] < 1
    assert set(ours.sequences) == set(official["seq_wise"]) and len(ours.sequences) > 1
    for scores, numbers in [(ours.overall, official["overall"])] + [
        (ours.sequences[name], numbers) for name, numbers in official["seq_wise"].items()
    ]:
        np.testing.assert_allclose(scores.curves["success"], numbers["success_curve"], rtol=0, atol=EXACT)
        np.testing.assert_allclose(scores.curves["precision"], numbers["precision_curve"], rtol=0, atol=EXACT)
        assert scores.values["auc"] == pytest.approx(numbers["success_score"], abs=EXACT)
        assert scores.values["precision"] == pytest.approx(numbers["precision_score"], abs=EXACT)
        assert scores.values["sr50"] == pytest.approx(numbers["success_rate"], abs=EXACT)
        assert scores.values["fps"] == pytest.approx(numbers["speed_fps"], rel=EXACT)


def test_both_pack_the_same_files_for_the_server(tmp_path):
    root, results = tmp_path / "GOT-10k", tmp_path / "var" / "results"
    names = [f"GOT-10k_Test_{number:06d}" for number in range(1, 181)]
    random = np.random.default_rng(0)
    for frames, name in enumerate(names, 2):
        folder = root / "test" / name
        folder.mkdir(parents=True)
        for number in range(1, frames + 1):
            (folder / f"{number:08d}.jpg").touch()
        boxes = random.uniform(1, 100, (frames, 4)).round(4)
        (folder / "groundtruth.txt").write_text(",".join(map(str, boxes[0])) + "\n")
        result = TrackResult(boxes, np.ones(frames), random.uniform(0.01, 0.1, frames), [])
        write_result(tmp_path / "var", "GOT-10k_test", "ours", name, result)
    (root / "test" / "list.txt").write_text("\n".join(names))
    settings = settings_for(tmp_path, **{"GOT-10k_test": root})
    ours = pack(settings, "GOT-10k_test", "ours", None, tmp_path / "ours.zip")

    (results / "GOT-10k_test").rename(results / "GOT-10k")
    experiment_in(results, root, "test").report(["ours"])
    theirs = results / "GOT-10k" / "ours.zip"
    check_archive(theirs, settings, "GOT-10k_test")
    files = []
    for path in (ours, theirs):
        with zipfile.ZipFile(path) as archive:
            files.append(
                {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}
            )
    assert files[0] == files[1] and len(files[0]) == 360


def test_without_the_package_one_line_says_so(tmp_path):
    (tmp_path / "got10k.py").write_text("raise ImportError('no such package')\n")
    told = subprocess.run(
        [sys.executable, "-c", "from config.cli import run; run(lambda: __import__('pysot_toolkit.testing.got10k_client'))"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert told.returncode == 2 and "pip install got10k" in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1 and "Traceback" not in told.stderr
