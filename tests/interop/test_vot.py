"""The official VOT toolkit: it runs trackers of ours, reads what we write, and agrees on the scores.

It lives in an environment of its own, ``.venv-vot``, that ``make vot-env`` makes. Its release 0.7.4 runs the
experiment with resets, which 0.8 and 0.9 refuse for any tracker; 0.9.0 runs the long-term one and does all analyses.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from config.environment import load_settings
from config.errors import UserError
from ltr.models.registry import build_network
from pysot_toolkit.datasets.benchmarks import open_benchmark
from pysot_toolkit.datasets.vot import polygon_to_rectangle
from pysot_toolkit.evaluation.evaluate import evaluate
from pysot_toolkit.evaluation.protocol import RESULT_READERS
from pysot_toolkit.testing.queue import Candidate, run_queue
from pysot_toolkit.testing.vot_client import serve
from pysot_toolkit.trackers.base import build_tracker
from pysot_toolkit.trackers.images import read_image
from tests.conftest import ROOT, need_shared
from tests.interop.drifting import Drifting

VOT = ROOT / ".venv-vot"
TRACKERS = ("drifting", "tiny", "ours_drifting", "ours_tiny")
FRAMES = 196  # of the sequence bag
NETWORK = {
    "backbone": "tiny",
    "hidden_dim": 16,
    "nheads": 2,
    "dim_feedforward": 32,
    "featurefusion_layers": 1,
}
CROPS = {"template_size": 32, "search_size": 64, "template_factor": 2.0, "search_factor": 4.0}
PYTHON = f"{sys.executable} -m pysot_toolkit.testing.vot_client --arch transt --device cpu --set threads 1 --resume"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny TransT that nobody has trained: it loses its target now and then."""
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pth.tar"
    torch.manual_seed(0)
    content = {
        "format": 1,
        "epoch": 1,
        "net_type": "TransT",
        "net": build_network("transt", NETWORK).state_dict(),
        "constructor": {"name": "transt", "args": NETWORK},
        "settings": {"data": CROPS},
    }
    torch.save(content, path)
    return path


class Workspace:
    """A workspace of the toolkit with one of its own stacks and the sequence bag; and the user's folder for ours."""

    def __init__(self, folder: Path, stack: str, experiment: str, dataset: str, checkpoint: Path) -> None:
        self.folder, self.experiment, self.dataset = folder, experiment, dataset
        self.toolkit("initialize", stack, "--nodownload", "--workspace", str(folder))
        bag = need_shared("sequences", "VOT2018", "bag")
        shutil.copytree(bag, folder / "sequences" / "bag", ignore=shutil.ignore_patterns("*.jpg"))
        (folder / "sequences" / "bag" / "color").rmdir()
        (folder / "sequences" / "bag" / "color").symlink_to(bag / "color")
        (folder / "sequences" / "list.txt").write_text("bag\n")
        if dataset == "VOT2018-LT":
            truth = folder / "sequences" / "bag" / "groundtruth.txt"
            boxes = polygon_to_rectangle(np.loadtxt(truth, delimiter=","))
            boxes[60:70] = np.nan
            np.savetxt(truth, boxes, delimiter=",", fmt="%.3f")
        commands = {
            "tiny": f"{PYTHON} {checkpoint}",
            "drifting": f"{sys.executable} {ROOT / 'tests' / 'interop' / 'drifting.py'}",
        }
        (folder / "trackers.ini").write_text(
            "".join(
                f"[{name}]\nlabel = {name}\nprotocol = trax\ncommand = {command}\n"
                for tracker, command in commands.items()
                for name in (tracker, f"ours_{tracker}")
            )
        )
        self.settings = load_settings(
            [
                "device",
                "cpu",
                "threads",
                "1",
                "paths.var",
                str(folder / "var"),
                f"paths.test.{dataset}",
                str(folder),
            ]
        )

    def toolkit(self, *words: str, release: str = "") -> None:
        """Call ``vot`` of 0.9.0, or of another release in a folder of its environment; it cannot reach the network."""
        place = {"PYTHONPATH": str(VOT / release)} if release else {}
        nowhere = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}
        done = subprocess.run(
            [str(VOT / "bin" / "python"), "-m", "vot", *words],
            env={**os.environ, "OMP_NUM_THREADS": "1", **nowhere, **place},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0 and "rror" not in done.stderr, done.stdout[-2000:] + done.stderr[-2000:]

    def track(self, *trackers: str, release: str = "") -> None:
        """Let the toolkit run its experiment."""
        words = ["--workspace", str(self.folder), "--experiments", self.experiment]
        self.toolkit("evaluate", *words, *trackers, release=release)

    def track_ourselves(self, checkpoint: Path) -> None:
        """Run the experiment with our own testing, and put the results where the toolkit looks for them."""
        for tracker, build in (("ours_tiny", None), ("ours_drifting", lambda *_: Drifting())):
            outcome = run_queue(
                lambda tracker=tracker: [Candidate(tracker, checkpoint)],
                lambda: open_benchmark(self.dataset, self.settings),
                self.dataset,
                "transt",
                self.settings,
                build=build,
            )
            assert (outcome.finished, outcome.exit_code) == (1, 0)
        shutil.copytree(
            self.folder / "var" / "results" / self.dataset, self.folder / "results", dirs_exist_ok=True
        )

    def analysis(self, *trackers: str) -> dict[str, list]:
        """Tracker to what the toolkit's analyses of the experiment found, in the order of the stack."""
        words = ["--workspace", str(self.folder), "--experiments", self.experiment, "--name", "report"]
        self.toolkit("analysis", *words, *trackers)
        report = json.loads((self.folder / "analysis" / "report.json").read_text())
        assert report["toolkit"] == "0.9.0"
        analyses = report["results"][self.experiment]["results"]
        return {tracker: [grid[i] for grid in analyses] for i, tracker in enumerate(trackers)}

    def scores(self, protocol: str):
        """Tracker to what our protocol finds in the results of the workspace."""
        root = self.folder / "by_benchmark"
        root.mkdir()
        (root / self.dataset).symlink_to(self.folder / "results")
        report = evaluate(self.settings, self.dataset, results=root, protocols=(protocol,))
        return {tracker: scores.overall for tracker, scores in report.scores[protocol].items()}

    def result(self, tracker: str):
        """The runs of a tracker as our reader sees them."""
        layout = {"baseline": "vot", "longterm": "votlt"}[self.experiment]
        runs, faults = RESULT_READERS.get(layout)(self.folder / "results" / tracker, ["bag"], FRAMES)
        assert faults == []
        return runs


@pytest.fixture(scope="module")
def toolkit():
    """Skips, or fails in CI, where the toolkit's environment is not there."""
    if not (VOT / ".installed").exists():
        message = f"{VOT} is missing: make vot-env"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="module")
def baseline(toolkit, checkpoint, tmp_path_factory):
    """VOT2018 with resets: run by the toolkit, run by us, analysed by the toolkit."""
    folder = tmp_path_factory.mktemp("vot2018")
    workspace = Workspace(folder, "vot2018/shortterm", "baseline", "VOT2018", checkpoint)
    workspace.track("tiny", "drifting", release="resets")
    workspace.track_ourselves(checkpoint)
    return workspace, workspace.analysis(*TRACKERS)


@pytest.fixture(scope="module")
def longterm(toolkit, checkpoint, tmp_path_factory):
    """VOT2018's long-term experiment, likewise."""
    folder = tmp_path_factory.mktemp("votlt2018")
    workspace = Workspace(folder, "vot2018/longterm", "longterm", "VOT2018-LT", checkpoint)
    workspace.track("tiny", "drifting")
    workspace.track_ourselves(checkpoint)
    return workspace, workspace.analysis(*TRACKERS)


@pytest.mark.parametrize("tracker", ["tiny", "drifting"])
@pytest.mark.parametrize("experiment", ["baseline", "longterm"])
def test_the_toolkit_gets_from_our_trackers_what_we_get(request, experiment, tracker):
    """Polygons and boxes go through TraX as decimal numbers, so positions differ by thousandths of a pixel."""
    workspace, _ = request.getfixturevalue(experiment)
    theirs, ours = workspace.result(tracker), workspace.result(f"ours_{tracker}")
    repetitions = 3 if experiment == "baseline" else 1  # the toolkit stops once three are equal
    assert (len(theirs.supervised), len(ours.supervised)) == (repetitions, 1)
    for run in theirs.supervised:
        np.testing.assert_array_equal(run.code, ours.supervised[0].code)
        np.testing.assert_allclose(run.regions.values, ours.supervised[0].regions.values, atol=0.01)
    if experiment == "baseline":
        starts = np.flatnonzero(ours.supervised[0].code == 1)
        assert len(starts) > 2 and max(np.diff([*starts, FRAMES])) > 5
    else:
        np.testing.assert_allclose(theirs.presence[0], ours.presence[0], atol=1e-4)


def test_the_toolkit_agrees_on_accuracy_failures_and_expected_overlap(baseline):
    workspace, analysis = baseline
    scores = workspace.scores("vot2018")
    assert scores.keys() == analysis.keys()
    for tracker, ((accuracy, failures, point, frames), (eao,), (curve,)) in analysis.items():
        values = scores[tracker].values
        assert frames == FRAMES and failures == values["failures"] > 0
        np.testing.assert_allclose(values["accuracy"], accuracy, rtol=0, atol=1e-12)
        np.testing.assert_allclose(values["reliability"], point[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(values["eao"], eao, rtol=0, atol=1e-6)
        np.testing.assert_allclose(scores[tracker].curves["eao"], curve, rtol=0, atol=1e-6)
    # The score is a mean over lengths from 100 on: the untrained network never lasts that long.
    assert [np.isnan(analysis[tracker][1][0]) for tracker in TRACKERS] == [False, True] * 2


def test_the_toolkit_agrees_on_long_term_precision_recall_and_f(longterm):
    workspace, analysis = longterm
    scores = workspace.scores("votlt")
    assert scores.keys() == analysis.keys()
    for tracker, ((precision, recall, f1), *_) in analysis.items():
        values = scores[tracker].values
        np.testing.assert_allclose(
            [values["precision"], values["recall"], values["f1"]], [precision, recall, f1], rtol=0, atol=1e-6
        )
        assert 0 < f1 < 1


# -- TraX alone ------------------------------------------------------------------------------------


@pytest.fixture
def server(checkpoint):
    """``server(*words)`` starts our side of TraX; its process."""
    started: list[subprocess.Popen] = []

    def start(*words: str, stdin=subprocess.PIPE) -> subprocess.Popen:
        process = subprocess.Popen(
            [*PYTHON.split(), *(words or [str(checkpoint)])],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def client_of(process: subprocess.Popen):
    from trax.client import Client

    streams = (process.stdin.fileno(), process.stdout.fileno())
    return Client(stream=streams, log=lambda text: None)  # the package cannot do without


def test_a_trax_session(server, checkpoint):
    trax = pytest.importorskip("trax")
    folder = need_shared("sequences", "VOT2018", "bag")
    polygons = np.loadtxt(folder / "groundtruth.txt", delimiter=",")[:5]
    images = [str(folder / "color" / f"{i + 1:08d}.jpg") for i in range(5)]
    settings = load_settings(["device", "cpu", "threads", "1"])
    tracker = build_tracker("transt", checkpoint, settings, torch.device("cpu"))
    process = server()
    client = client_of(process)
    assert set(client.region_formats) == {"rectangle", "polygon"} and client.channels == ["color"]
    assert client.tracker_name == "tiny"
    corners = [tuple(corner) for corner in polygons[0].reshape(4, 2)]
    for region, box in (
        (trax.Polygon.create(corners), polygon_to_rectangle(polygons[0])),
        (trax.Rectangle.create(100, 90, 80.5, 70), [100, 90, 80.5, 70]),
    ):
        state, _ = client.initialize({"color": trax.FileImage.create(images[0])}, [(region, {})], {})
        np.testing.assert_allclose(state[0][0].bounds(), box, atol=1e-3)
        assert dict(state[0][1]) == {}
        tracker.initialize(read_image(images[0]), np.array(box))
        for image in images[1:]:
            state, _ = client.frame({"color": trax.FileImage.create(image)}, {}, [])
            answer = tracker.track(read_image(image))
            np.testing.assert_allclose(state[0][0].bounds(), answer.bbox, atol=0.01)
            assert abs(float(dict(state[0][1])["confidence"]) - answer.score) < 1e-4
    client.quit()
    assert process.wait(20) == 0 and process.stderr.read() == b""


def test_an_unreadable_image_ends_the_session_with_the_reason(server, tmp_path):
    trax = pytest.importorskip("trax")
    image = tmp_path / "broken.jpg"
    image.write_bytes(b"no image")
    process = server()
    client = client_of(process)
    with pytest.raises(trax.TraxException, match=r"broken\.jpg"):
        client.initialize(
            {"color": trax.FileImage.create(str(image))}, [(trax.Rectangle.create(1, 2, 30, 40), {})], {}
        )
    assert process.wait(20) == 2
    err = process.stderr.read().decode()
    assert err.startswith("error: ") and "broken.jpg" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("words, hint", [((), "the TraX session broke off"), (("none.tar",), "none.tar")])
def test_a_wrong_start_is_one_line(server, words, hint):
    pytest.importorskip("trax")
    process = server(*words, stdin=subprocess.DEVNULL)
    err = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 2 and len(err.splitlines()) == 1 and hint in err


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "trax", None)
    with pytest.raises(UserError, match="pip install vot-trax"):
        serve(Drifting(), "drifting")
