"""Tracking with resets: failures, restarts, and the whole way from the command line to a score."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from config.cli import run
from config.errors import UserError
from ltr.models.registry import build_network
from pysot_toolkit.datasets.vot import polygon_to_rectangle
from pysot_toolkit.testing.one_pass import Clip
from pysot_toolkit.testing.results import result_file, write_result
from pysot_toolkit.testing.supervised import supervised
from pysot_toolkit.trackers.images import BadImage
from scripts import eval as evaluation
from scripts import test as testing
from tests.conftest import need_shared
from tests.testing.alone import run_alone

WIDTH, HEIGHT, LONGEST = 64, 48, 40
MISS = np.array([55.0, 40.0, 8.0, 7.0])  # out of reach of every true region


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Images whose grey value is their index."""
    folder = tmp_path_factory.mktemp("frames")
    for i in range(LONGEST):
        cv2.imwrite(str(folder / f"{i:03d}.png"), np.full((HEIGHT, WIDTH, 3), i, np.uint8))
    return [str(folder / f"{i:03d}.png") for i in range(LONGEST)]


def run_supervised(tracker, clip, on_frames=lambda passed: None):
    """The clip with resets."""
    return run_alone(tracker, clip, on_frames, supervised)


class Scripted:
    """Answers frame i with ``boxes[i]`` and notes where it was started."""

    def __init__(self, boxes: np.ndarray) -> None:
        self.boxes = boxes
        self.starts: list[tuple[int, list[float]]] = []

    def initialize(self, image: np.ndarray, bbox: np.ndarray) -> None:
        self.starts.append((int(image[0, 0, 0]), bbox.tolist()))

    def track(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        return self.boxes[image[0, 0, 0]], 0.5


def moving_polygons(count: int) -> np.ndarray:
    """A square on its corner that moves right, ``[count, 8]``."""
    x = 12 + 0.5 * np.arange(count)[:, None]
    return np.stack(np.broadcast_arrays(x, 6.0, x + 8, 14.0, x, 22.0, x - 8, 14.0), axis=-1).reshape(count, 8)


@given(hits=st.lists(st.booleans(), min_size=1, max_size=LONGEST))
def test_every_failure_costs_five_frames(frames, tmp_path_factory, hits):
    polygons = moving_polygons(len(hits))
    truth = polygon_to_rectangle(polygons)
    tracker = Scripted(np.where(np.array(hits)[:, None], truth, MISS))
    steps = []
    result = run_supervised(tracker, Clip("s", frames[: len(hits)], truth[0], truth, polygons), steps.append)
    var = tmp_path_factory.mktemp("var")
    write_result(var, "VOT2018", "a", "s", result)
    lines = result_file(var, "VOT2018", "a", "s").read_text().splitlines()
    assert len(lines) == steps[-1] == len(hits) and steps == sorted(steps)
    assert tracker.starts == [(i, truth[i].tolist()) for i, line in enumerate(lines) if line == "1"]
    started = [0]
    for failed in (i for i, line in enumerate(lines) if line == "2"):
        assert lines[failed + 1 : failed + 5] == ["0"] * len(lines[failed + 1 : failed + 5])
        assert not hits[failed]
        started.append(failed + 5)
    assert [i for i, line in enumerate(lines) if line == "1"] == [i for i in started if i < len(hits)]
    followed = [i for i, line in enumerate(lines) if "," in line]
    assert len(followed) + sum(lines.count(code) for code in "012") == len(lines)
    assert lines.count("0") == sum(min(4, len(hits) - start + 4) for start in started[1:])
    for i in followed:
        assert hits[i]
        np.testing.assert_allclose(np.fromstring(lines[i], sep=","), truth[i], atol=1e-4)
    assert (np.isnan(result.bboxes).any(axis=1) == [line == "0" for line in lines]).all()


def box_clip(frames, box, count=3) -> Clip:
    truth = np.tile(np.array(box, float), (count, 1))
    return Clip("s", frames[:count], truth[0], truth)


@pytest.mark.parametrize(
    "true, answer, code",
    [
        ((10, 10, 10, 10), (19, 10, 10, 10), [1, 3, 3]),
        ((10, 10, 10, 10), (20, 10, 10, 10), [1, 2, 0]),  # they touch
        ((10, 10, 10, 10), (10, 20.4, 10, 10), [1, 2, 0]),
        ((50, 10, 30, 10), (60, 10, 30, 10), [1, 3, 3]),  # they share 4 columns of the image
        ((50, 10, 30, 10), (64, 10, 30, 10), [1, 2, 0]),  # what they share lies beyond the image
    ],
)
def test_a_failure_is_an_overlap_of_zero_within_the_image(frames, true, answer, code):
    tracker = Scripted(np.tile(np.array(answer, float), (3, 1)))
    assert run_supervised(tracker, box_clip(frames, true)).code.tolist() == code


def test_the_polygon_counts_and_not_its_rectangle(frames):
    polygons = moving_polygons(2)
    truth = polygon_to_rectangle(polygons)
    x, y = truth[1, :2]
    corner = np.array([[x, y, 1.0, 1.0]] * 2)  # in the rectangle, beside the square on its corner
    clip = Clip("s", frames[:2], truth[0], truth, polygons)
    assert run_supervised(Scripted(corner), clip).code.tolist() == [1, 2]
    assert run_supervised(Scripted(corner), clip._replace(polygon=None)).code.tolist() == [1, 3]


def test_unreadable_frames(frames, tmp_path):
    paths = frames[:9]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    truth = np.tile([10.0, 10, 10, 10], (9, 1))
    boxes = truth.copy()
    boxes[3] = MISS
    clip = Clip("s", paths, truth[0], truth)
    clip.frames[2] = str(broken)
    result = run_supervised(Scripted(boxes), clip)
    assert result.code.tolist() == [1, 3, 3, 2, 0, 0, 0, 0, 1]
    assert len(result.unreadable) == 1 and str(broken) in result.unreadable[0] and result.scores[2] == 0
    clip.frames[5] = str(broken)  # nobody looks at it
    assert len(run_supervised(Scripted(boxes), clip).unreadable) == 1
    clip.frames[8] = str(broken)  # the restart
    with pytest.raises(BadImage, match=r"broken\.png"):
        run_supervised(Scripted(boxes), clip)


def test_a_truth_that_cannot_start_a_tracker_is_the_users_error(frames):
    clip = box_clip(frames, (10, 10, 10, 10), 7)
    with pytest.raises(UserError, match=r"'s'.* 7 frames; mend its annotation"):
        run_supervised(Scripted(np.tile(MISS, (7, 1))), clip._replace(bbox=clip.bbox[:1]))
    clip.bbox[6] = np.nan
    with pytest.raises(UserError, match=r"'s'.*frame 7.*mend its annotation"):
        run_supervised(Scripted(np.tile(MISS, (7, 1))), clip)


# -- the whole way ---------------------------------------------------------------------------------

NETWORK = {
    "backbone": "tiny",
    "hidden_dim": 16,
    "nheads": 2,
    "dim_feedforward": 32,
    "featurefusion_layers": 1,
}
CROPS = {"template_size": 32, "search_size": 64, "template_factor": 2.0, "search_factor": 4.0}


def call(verb, monkeypatch, *words: str) -> int:
    """Run a verb in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", [verb.__name__, *words])
    with pytest.raises(SystemExit) as end:
        run(verb.main)
    return int(end.value.code or 0)


@pytest.fixture
def bag(local, tmp_path):
    """The var folder of a user of VOT2018 and VOT2018-LT, both with the sequence bag, and a tiny checkpoint."""
    source = need_shared("sequences", "VOT2018")
    longterm = tmp_path / "longterm"
    (longterm / "bag").mkdir(parents=True)
    (longterm / "list.txt").write_text("bag\n")
    (longterm / "bag" / "color").symlink_to(source / "bag" / "color")
    boxes = polygon_to_rectangle(np.loadtxt(source / "bag" / "groundtruth.txt", delimiter=","))
    boxes[60:70] = np.nan
    np.savetxt(longterm / "bag" / "groundtruth.txt", boxes, delimiter=",", fmt="%.3f")
    torch.manual_seed(0)
    checkpoint = {
        "format": 1,
        "epoch": 1,
        "net_type": "TransT",
        "net": build_network("transt", NETWORK).state_dict(),
        "constructor": {"name": "transt", "args": NETWORK},
        "settings": {"data": CROPS},
    }
    torch.save(checkpoint, tmp_path / "tiny.pth.tar")
    return local(VOT2018=source, VOT2018_LT=longterm)


@pytest.mark.parametrize(
    "dataset, protocols",
    [("VOT2018", ("pysot-vot2018", "vot2018")), ("VOT2018-LT", ("pysot-votlt", "votlt"))],
)
def test_a_vot_benchmark_is_tested_and_scored(bag, tmp_path, monkeypatch, capsys, dataset, protocols):
    words = ["--dataset", dataset, "--resume", str(tmp_path / "tiny.pth.tar"), "--device", "cpu"]
    assert call(testing, monkeypatch, *words, "--set", "threads", "1", "--vis") == 0
    path = result_file(bag, dataset, "tiny", "bag")
    before = path.read_bytes()
    assert len(before.splitlines()) == 196 and (bag / "reports" / dataset / "tiny" / "bag.png").exists()
    assert call(testing, monkeypatch, *words) == 0
    assert "0 sequences tracked, 1 were there" in capsys.readouterr().out and path.read_bytes() == before
    assert call(evaluation, monkeypatch, "-d", dataset, "--protocol", "all") == 0
    out = capsys.readouterr().out
    assert all(protocol in out for protocol in protocols) and "tiny" in out


def test_masks_cannot_be_tested(local, tmp_path, monkeypatch, capsys):
    var = local(DAVIS2017=tmp_path)
    (tmp_path / "tiny.pth.tar").write_bytes(b"never read")
    words = ["--dataset", "DAVIS2017", "--resume", str(tmp_path / "tiny.pth.tar")]
    assert call(testing, monkeypatch, *words) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and "its results are masks" in err and not var.exists()
