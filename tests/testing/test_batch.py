"""Several sequences at once: what one at a time says, whatever their lengths, number and accidents."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from config.cli import run as run_verb
from config.environment import load_settings
from ltr.models.registry import build_network
from pysot_toolkit.testing.batch import Batch
from pysot_toolkit.testing.launch import under_mpi
from pysot_toolkit.testing.one_pass import Clip, one_pass
from pysot_toolkit.testing.queue import Candidate, run_queue
from pysot_toolkit.trackers.base import BatchTracker, Prediction, track_together, twin
from scripts import test as testing
from tests.conftest import ROOT, need_shared
from tests.testing.alone import run_alone
from tests.trackers import test_dimp_tracker

LONGEST, WIDTH, HEIGHT = 12, 60, 40
PARTS = ("crop", "network", "move", "number")


class Shared(nn.Module):
    """In the place of a network, which twins share: the size of every call of it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []


class Walker:
    """Walks by all that it has seen; in the frames of ``troubles`` (sequence to frame and part) something fails.

    The height of the first box tells the sequence, the grey value of an image its number.
    """

    def __init__(self, troubles: dict[int, tuple[int, str]], weight: int) -> None:
        self.network, self.troubles, self.weight = Shared(), troubles, weight
        self.seen: list[int] = []

    def initialize(self, image: np.ndarray, bbox: np.ndarray) -> None:
        self.bbox, self.seen, self.sequence = bbox, [int(image[0, 0, 0])], int(bbox[3])

    def check(self, image: np.ndarray, part: str) -> None:
        if self.troubles.get(self.sequence) == (int(image[0, 0, 0]), part):
            raise (RuntimeError if part == "network" else ValueError)(f"no {part}")

    def track(self, image: np.ndarray) -> Prediction:
        for part in PARTS:
            self.check(image, part)
        return self.walk(image)

    def walk(self, image: np.ndarray) -> Prediction:
        self.seen.append(int(image[0, 0, 0]))
        step = [sum(self.seen) * self.weight % 9 - 3.5, len(self.seen) % 5 - 2, 0, 0]
        self.bbox = self.bbox + np.array(step)
        return Prediction(self.bbox.copy(), 1 / (1 + sum(self.seen)))


class BatchWalker(Walker, BatchTracker):
    """The same in three parts, as if on a GPU; crops come in two sizes."""

    device = torch.device("cuda")
    track = BatchTracker.track

    @classmethod
    def from_checkpoint(cls, *_):
        raise NotImplementedError

    def crop(self, image):
        self.check(image, "crop")
        return image[: 4 + int(image[0, 0, 0]) % 2]

    def locate(self, twins, crops):
        assert all(twin.network is self.network for twin in twins) and len(crops) == len(twins)
        self.network.calls.append(len(twins))
        for each, crop in zip(twins, crops):
            each.check(crop, "network")
        return list(crops)

    def move(self, found, width, height):
        assert (width, height) == (WIDTH, HEIGHT)
        self.check(found, "move")
        prediction = self.walk(found)
        trouble = self.troubles.get(self.sequence) == (int(found[0, 0, 0]), "number")
        return prediction._replace(bbox=prediction.bbox * np.nan) if trouble else prediction


class PairWalker(BatchWalker):
    """As if on the CPU."""

    device = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images whose grey value is their number, and one that is none."""
    path = tmp_path_factory.mktemp("frames")
    for i in range(2 * LONGEST):
        cv2.imwrite(str(path / f"{i}.png"), np.full((HEIGHT, WIDTH, 3), i, np.uint8))
    (path / "broken.png").write_bytes(b"no image")
    return path


def sequence(folder: Path, number: int, length: int, first: int = 0, broken: int | None = None):
    """A benchmark's sequence of ``length`` images from number ``first``, true boxes moving right."""
    names = [str(folder / ("broken.png" if i == broken else f"{first + i}.png")) for i in range(length)]
    boxes = np.array([[2.0 + i, 5.0, 12.0, number] for i in range(length)])
    annotation = SimpleNamespace(bbox=boxes, polygon=None)
    return SimpleNamespace(name=f"s{number}", frames=names, init_bbox=boxes[0], annotation=annotation)


class Desk:
    """Runs the queue over given sequences and reads what it wrote."""

    def __init__(self, root: Path, monkeypatch) -> None:
        self.root = root
        (root / "local.py").write_text(
            "class EnvironmentSettings:\n    def __init__(self):\n        self.train_dataset_dirs = {}\n"
            "        self.test_dataset_dirs = {}\n        self.workspace_dir = 'unused'\n        self.seq_files_dir = ''\n"
        )
        monkeypatch.setenv("SPOT_LOCAL", str(root / "local.py"))
        for name in "abc":
            (root / name).write_text(name)
        self.runs = 0

    def run(self, kind, sequences, dataset="OTB100", batch=1, troubles=None, names="a"):
        """The outcome, the text of each result file, and the trackers that were loaded."""
        self.runs += 1
        var = self.root / f"var{self.runs}"
        options = load_settings(["device", "cpu", "paths.var", str(var), "testing.batch", str(batch)])
        loaded = {}

        def build(arch, checkpoint, settings, device):
            assert checkpoint.name not in loaded
            loaded[checkpoint.name] = kind(troubles or {}, ord(checkpoint.name))
            return loaded[checkpoint.name]

        outcome = run_queue(
            lambda: [Candidate(name, self.root / name) for name in names],
            lambda: sequences, dataset, "walker", options, build=build,
        )  # fmt: skip
        texts = {
            str(path.relative_to(var)): path.read_text()
            for path in var.rglob("*.txt")
            if not path.name.endswith("_time.txt")
        }
        return outcome, texts, loaded


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield Desk(tmp_path_factory.mktemp("desk"), patch)


LENGTH = st.integers(1, LONGEST)
TROUBLE = st.one_of(st.none(), st.tuples(st.integers(0, LONGEST), st.sampled_from(PARTS[:3])))
ONE = st.tuples(LENGTH, st.integers(0, LONGEST), TROUBLE, st.one_of(st.none(), st.integers(0, LONGEST)))


@settings(max_examples=40)
@given(
    kind=st.sampled_from([Walker, BatchWalker, PairWalker]),
    dataset=st.sampled_from(["OTB100", "VOT2018", "VOT2018-LT"]),
    clips=st.lists(ONE, min_size=1, max_size=7),
    batch=st.integers(2, 9),
    names=st.sampled_from(["a", "ab", "abc"]),
)
def test_a_batch_says_what_one_at_a_time_says(folder, desk, kind, dataset, clips, batch, names):
    """Any lengths, resets, unreadable frames, and failures in any frame and part, of any number of checkpoints."""
    sequences = [
        sequence(folder, 5 + i, length, first, broken) for i, (length, first, _, broken) in enumerate(clips)
    ]
    troubles = {5 + i: trouble for i, (_, _, trouble, _) in enumerate(clips) if trouble}
    one, alone, _ = desk.run(Walker, sequences, dataset, 1, troubles, names)
    many, together, loaded = desk.run(kind, sequences, dataset, batch, troubles, names)
    assert together == alone
    assert set(many.failures) == set(one.failures) and many.finished == one.finished
    assert sorted(many.unreadable) == sorted(one.unreadable)
    most = 2 if kind is PairWalker else batch
    assert all(size <= most for walker in loaded.values() for size in walker.network.calls)


def test_who_has_finished_is_replaced_at_once(folder, desk):
    sequences = [sequence(folder, 4 + n, n) for n in (4, 5, 8)]
    flat = type("Flat", (BatchWalker,), {"crop": lambda self, image: image[:1]})
    _, _, loaded = desk.run(flat, sequences, batch=2)
    # the longest two together until the second ends, then the third starts while the first goes on
    assert loaded["a"].network.calls == [2, 2, 2, 2, 1, 2, 2, 1]


def test_the_cpu_sees_two_crops_at_once(folder, desk):
    sequences = [sequence(folder, 5 + n, 4) for n in range(5)]
    flat = type("Flat", (PairWalker,), {"crop": lambda self, image: image[:1]})
    _, _, loaded = desk.run(flat, sequences, batch=5)
    assert loaded["a"].network.calls == [2, 2, 1] * 3


@pytest.mark.parametrize("kind, calls", [(BatchWalker, [5] * 3), (PairWalker, [2, 2, 1] * 3), (Walker, [])])
def test_objects_of_one_frame_answer_as_if_alone_in_few_calls(kind, calls):
    flat = kind if kind is Walker else type("Flat", (kind,), {"crop": lambda self, image: image[:1]})
    frames = [np.full((HEIGHT, WIDTH, 3), value, np.uint8) for value in (3, 1, 4, 1)]
    starts = [np.array([1.0, 2, 12, number]) for number in range(5)]
    alone, leader = [Walker({}, 7) for _ in starts], flat({}, 7)
    together = [leader, *(twin(leader) for _ in starts[1:])]
    for one, other, box in zip(alone, together, starts):
        one.initialize(frames[0], box.copy())
        other.initialize(frames[0], box.copy())
    for frame in frames[1:]:
        for (box, score, _), one in zip(track_together(together, frame), alone, strict=True):
            assert np.array_equal(box, (expected := one.track(frame)).bbox) and score == expected.score
    assert leader.network.calls == calls


def test_a_wrong_number_costs_only_its_sequence(folder, desk):
    sequences = [sequence(folder, n, 6) for n in (5, 6, 7)]
    outcome, texts, _ = desk.run(BatchWalker, sequences, batch=3, troubles={6: (3, "number")})
    assert [(f.what, "frame 4" in f.reason) for f in outcome.failures] == [("s6", True)]
    assert sorted(Path(name).stem for name in texts) == ["s5", "s7"]


def test_a_batch_that_fails_as_a_whole_is_done_one_by_one(folder, desk, capsys):
    class Narrow(BatchWalker):
        def locate(self, twins, crops):
            if len(twins) > 1:
                raise RuntimeError("out of memory")
            return super().locate(twins, crops)

    sequences = [sequence(folder, n, 6) for n in (5, 6, 7)]
    _, alone, _ = desk.run(Walker, sequences)
    outcome, together, _ = desk.run(Narrow, sequences, batch=3)
    assert together == alone and outcome.failures == []
    assert capsys.readouterr().err.count("out of memory") == 1


def test_a_mistake_in_a_tracker_stops_the_run(folder, desk):
    class Wrong(BatchWalker):
        def move(self, found, width, height):
            raise TypeError("a mistake")

    with pytest.raises(TypeError, match="a mistake"):
        desk.run(Wrong, [sequence(folder, n, 6) for n in (5, 6)], batch=2)


def test_ctrl_c_keeps_what_is_finished(folder, desk):
    class Interrupted(BatchWalker):
        def initialize(self, image, bbox):
            if bbox[3] == 6:  # the third, when the second has ended
                raise KeyboardInterrupt
            super().initialize(image, bbox)

    sequences = [sequence(folder, 7, 9), sequence(folder, 5, 4), sequence(folder, 6, 3)]
    with pytest.raises(KeyboardInterrupt):
        desk.run(Interrupted, sequences, batch=2)
    assert [path.name for path in (desk.root / f"var{desk.runs}").rglob("*.txt")] == ["s5.txt"]


@pytest.mark.parametrize("name", ["atom", "dimp50"])
def test_trackers_that_learn_do_not_disturb_each_other(name, tmp_path):
    images, boxes = test_dimp_tracker.video()
    for number, image in enumerate(images[:5]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    clips = [
        Clip("long", [str(tmp_path / f"{i}.png") for i in range(5)], boxes[0]),
        Clip("short", [str(tmp_path / f"{i}.png") for i in (4, 2, 0)], np.array([20.0, 30, 40, 36])),
    ]
    alone = [run_alone(test_dimp_tracker.tracker(name), clip) for clip in clips]
    with Batch(2, 2) as batch:
        tracker = test_dimp_tracker.tracker(name)
        runs = [batch.begin(tracker, clip, one_pass) for clip in clips]
        while going := [run for run in runs if run.going]:
            batch.step(going)
    for run, one in zip(runs, alone):
        assert run.error is None
        np.testing.assert_allclose(run.result.bboxes, one.bboxes, rtol=0, atol=1e-4)
        np.testing.assert_allclose(run.result.scores, one.scores, rtol=0, atol=1e-5)


# -- from the command line, on real video ------------------------------------------------------------

TRANST = {
    "backbone": "tiny", "hidden_dim": 16, "nheads": 2, "dim_feedforward": 32, "featurefusion_layers": 1,
}  # fmt: skip
OCEAN = {"backbone": "ocean_tiny", "hidden_dim": 16, "towers": 1, "template_margin": 1}
SIZES = {"transt": (32, 64), "ocean": (63, 127)}
LEARNING = {  # often and quickly, whatever is found
    "locate_not_found": "-9", "locate_distractor": "9", "update_interval": "3", "memory_size": "30",
    "initial_iterations": "6", "augment_rotations": "[5]", "augment_blurs": "[]", "refine_random_boxes": "3",
    "refine_iterations": "2", "search_factor": "2",
}  # fmt: skip


def small_checkpoint(path: Path, arch: str) -> Path:
    """A network of random weights."""
    if arch in test_dimp_tracker.NETWORK:
        return test_dimp_tracker.checkpoint(path, arch)
    torch.manual_seed(0)
    args = TRANST if arch == "transt" else OCEAN
    template, search = SIZES[arch]
    crops = {"template_size": template, "search_size": search, "template_factor": 2.0, "search_factor": 4.0}
    content = {
        "format": 1, "epoch": 1, "net_type": arch, "net": build_network(arch, args).state_dict(),
        "constructor": {"name": arch, "args": args}, "settings": {"data": crops},
    }  # fmt: skip
    torch.save(content, path)
    return path


@pytest.fixture
def videos(local, tmp_path):
    """Real video: OTB100 cut to 40, 30 and 20 frames, and three parts of VOT2018's bag, one with a jump."""
    otb, vot = need_shared("sequences", "OTB100"), need_shared("sequences", "VOT2018")
    ours = tmp_path / "otb"
    for name, count in {"Crossing": 40, "David": 30, "DragonBaby": 20}.items():
        (ours / name / "img").mkdir(parents=True)
        for image in sorted((otb / name / "img").iterdir())[:count]:
            (ours / name / "img" / image.name).symlink_to(image)
        truth = (otb / name / "groundtruth_rect.txt").read_text().splitlines()[:count]
        (ours / name / "groundtruth_rect.txt").write_text("\n".join(truth) + "\n")
    bags = tmp_path / "vot"
    for name, frames in {
        "bag": [*range(14), *range(120, 146)],
        "middle": range(60, 90),
        "short": range(100, 120),
    }.items():
        (bags / name / "color").mkdir(parents=True)
        images = sorted((vot / "bag" / "color").iterdir())
        for number, i in enumerate(frames):
            (bags / name / "color" / f"{number + 1:08d}.jpg").symlink_to(images[i])
        truth = (vot / "bag" / "groundtruth.txt").read_text().splitlines()
        (bags / name / "groundtruth.txt").write_text("\n".join(truth[i] for i in frames) + "\n")
    (bags / "list.txt").write_text("bag\nmiddle\nshort\n")
    return local(OTB100=ours, VOT2018=bags)


def numbers(var: Path, dataset: str, name: str) -> dict[str, list[np.ndarray]]:
    """The lines of every result file."""
    files = [path for path in (var / "results" / dataset / name).rglob("*.txt") if "_time" not in path.name]
    return {p.name: [np.array(line.split(","), float) for line in p.read_text().split()] for p in files}


@pytest.mark.parametrize("arch", ["transt", "ocean", "dimp50", "atom"])
@pytest.mark.parametrize("dataset", ["OTB100", "VOT2018"])
def test_batches_and_ranks_write_the_same_boxes(videos, tmp_path, monkeypatch, capsys, arch, dataset):
    checkpoint = small_checkpoint(tmp_path / "tiny.pth.tar", arch)
    words = ["--dataset", dataset, "--arch", arch, "--resume", str(checkpoint), "--device", "cpu"]
    words += ["--set", "threads", "1"]
    if arch in test_dimp_tracker.NETWORK:
        words += [word for name, value in LEARNING.items() for word in ("--set", f"tracker.{name}", value)]
    for name, more in {"one": [], "three": ["--batch", "3"], "two": ["--set", "testing.batch", "2"]}.items():
        monkeypatch.setattr(sys, "argv", ["test.py", *words, "--name", name, *more])
        with pytest.raises(SystemExit) as end:
            run_verb(testing.main)
        assert not end.value.code and "3 sequences tracked" in capsys.readouterr().out
    if (arch, dataset) == ("transt", "OTB100"):
        line = [sys.executable, str(ROOT / "scripts" / "test.py"), *words, "--name", "ranks", "--batch", "2"]
        done = subprocess.run(
            under_mpi(line, 2), capture_output=True, text=True, timeout=120,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0 and "3 sequences tracked" in done.stdout, done.stderr
    alone, *others = (
        numbers(videos, dataset, path.name) for path in sorted((videos / "results" / dataset).iterdir())
    )
    assert len(alone) == 3 and len(others) >= 2
    if dataset == "VOT2018":
        assert any(line.tolist() == [2] for lines in alone.values() for line in lines)  # resets
    for other in others:
        assert other.keys() == alone.keys()
        for file, lines in alone.items():
            for ours, theirs in zip(other[file], lines, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
