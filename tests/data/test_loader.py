"""The loader: the same samples for any number of workers and ranks, and bad frames replaced by name."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from config.defaults import get_defaults
from config.errors import UserError
from ltr.data.augment import DRAWS
from ltr.data.crop import crop
from ltr.data.image_loader import read_image
from ltr.data.loader import ATTEMPTS, Key, Plan, TrackingSamples, build_loader
from ltr.data.sampler import FrameBox, LabelledPair, SparseInstance

FRAMES = 6


class Drawn:
    """Draws frames of one folder, as the samplers do; ``state`` changes what is drawn."""

    def __init__(self, folder: Path, sparse: bool, state: State):
        self.folder, self.sparse, self.state, self.epoch = folder, sparse, state, -1

    def draw(self, epoch, index, attempt=0):
        if epoch != self.epoch:
            self.state.refresh()
            self.epoch = epoch
        rng = np.random.default_rng([epoch, index, attempt, self.state.seen])

        def frame():
            box = np.concatenate([rng.uniform(0, 150, 2), rng.uniform(20, 90, 2)])
            return FrameBox(str(self.folder / f"{rng.integers(FRAMES)}.jpg"), box)

        if not self.sparse:
            return LabelledPair(frame(), frame())
        return SparseInstance(frame(), frame(), frame(), index, epoch, "reviewing")


class State:
    """A sampler state in a file: its generation."""

    def __init__(self, path: Path):
        self.path, self.seen = path, 0

    def refresh(self):
        self.seen = int(self.path.read_text())


@pytest.fixture
def settings():
    settings = get_defaults()
    settings.train.iterations, settings.train.batch_size_sup, settings.train.batch_size_unsup = 3, 2, 4
    settings.data.workers = 0
    return settings


@pytest.fixture
def folder(tmp_path, shared):
    paths = sorted(shared("sequences", "LaSOT").glob("*/*/img/*.jpg"))[:FRAMES]
    for number, path in enumerate(paths):
        (tmp_path / f"{number}.jpg").write_bytes(path.read_bytes())
    (tmp_path / "state").write_text("0")
    return tmp_path


def make(folder, settings, **options):
    state = State(folder / "state")
    samples = TrackingSamples(Drawn(folder, False, state), Drawn(folder, True, state), settings)
    return build_loader(samples, settings, **options)


def equal(a, b):
    assert a.keys() == b.keys()
    for part in a.keys() - {"bad"}:
        assert a[part].keys() == b[part].keys()
        for name in a[part]:
            assert torch.equal(a[part][name], b[part][name]), f"{part} {name}"
    assert a["bad"] == b["bad"]


def test_the_batch_is_as_described(folder, settings):
    batches = list(make(folder, settings).epoch(1, sparse=True))
    assert len(batches) == 3
    data = settings.data
    template, search = (
        (2, data.template_size, data.template_size, 3),
        (2, data.search_size, data.search_size, 3),
    )
    sup, unsup = batches[1]["sup"], batches[1]["unsup"]
    assert sup["template"].shape == template and sup["search"].shape == search
    assert unsup["key"].shape == unsup["relay"].shape == (4, *template[1:])
    assert unsup["unlabeled"].shape == unsup["aug"].shape == (4, *search[1:])
    assert sup["index"].tolist() == [6, 7] and unsup["index"].tolist() == [8, 9, 10, 11]
    assert unsup["row"].tolist() == [8, 9, 10, 11] and unsup["frame"].tolist() == [1] * 4
    assert sup["draws"].shape == (2, DRAWS) and sup["draws"].dtype == torch.float32
    for name, dtype in {"extract": torch.float64, "factor": torch.float64}.items():
        assert unsup[f"unlabeled_{name}"].dtype == unsup[f"aug_{name}"].dtype == dtype
    for part in (sup, unsup):
        images = [value for value in part.values() if value.ndim == 4]
        assert all(image.dtype == torch.uint8 for image in images)
    burn_in = next(iter(make(folder, settings).epoch(1, sparse=False)))
    assert "unsup" not in burn_in and burn_in["sup"]["index"].tolist() == list(range(6))


def test_crops_show_the_drawn_frames(folder, settings):
    """Against cutting from the whole frame: template without jitter, the aug crop about its own box."""
    state = State(folder / "state")
    for batch in make(folder, settings).epoch(2, sparse=True):
        for slot, index in enumerate(batch["unsup"]["index"].tolist()):
            drawn = Drawn(folder, True, state).draw(2, index)
            frame = read_image(drawn.unlabeled.path)
            about = batch["unsup"]["aug_extract"][slot].numpy()
            mean = batch["unsup"]["aug_mean"][slot].numpy()
            assert np.allclose(mean, frame.mean((0, 1)), atol=1.0)
            pixels, geometry = crop(frame, about, 4.0, 256, frame.mean((0, 1)))
            assert geometry.factor == batch["unsup"]["aug_factor"][slot]
            if geometry.side < 512:  # larger ones are decoded at half size
                gap = np.abs(batch["unsup"]["aug"][slot].numpy().astype(int) - pixels)
                assert (gap > 1).mean() < 1e-3
            assert batch["unsup"]["image_size"][slot].tolist() == [frame.shape[1], frame.shape[0]]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_make_the_same_samples(folder, settings, method):
    alone = [list(make(folder, settings).epoch(epoch, epoch > 1)) for epoch in (1, 2)]
    settings.data.workers = 2
    loader = make(folder, settings)
    loader._loader.multiprocessing_context = multiprocessing.get_context(method)
    for epoch in (1, 2):  # the same workers in both stages
        for ours, theirs in zip(loader.epoch(epoch, epoch > 1), alone[epoch - 1], strict=True):
            equal(ours, theirs)


def test_workers_see_the_new_state_in_the_next_epoch(folder, settings):
    settings.data.workers = 1
    loader = make(folder, settings)
    before = list(loader.epoch(1, sparse=True))
    (folder / "state").write_text("1")
    after = list(loader.epoch(2, sparse=True))
    settings.data.workers = 0
    for ours, theirs in zip(after, make(folder, settings).epoch(2, sparse=True), strict=True):
        equal(ours, theirs)
    assert not torch.equal(before[0]["unsup"]["relay"], after[0]["unsup"]["relay"])


def test_ranks_share_the_batch(folder, settings):
    whole = list(make(folder, settings).epoch(3, sparse=True))
    parts = [list(make(folder, settings, rank=rank, ranks=2).epoch(3, sparse=True)) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        for kind in ("sup", "unsup"):
            for name, value in batch[kind].items():
                assert torch.equal(torch.cat([part[step][kind][name] for part in parts]), value)


@pytest.mark.parametrize(("sup", "unsup", "ranks"), [(8, 24, 1), (8, 24, 4), (3, 5, 2), (1, 2, 3)])
def test_every_index_is_made_once(sup, unsup, ranks):
    for sparse in (False, True):
        seen = []
        for rank in range(ranks):
            seen += [key for keys in Plan(4, sup, unsup, rank, ranks).batches(7, sparse) for key in keys]
        assert sorted(key.index for key in seen) == list(range(4 * (sup + unsup)))
        labelled = {key.index % (sup + unsup) for key in seen if key.kind == "sup"}
        assert labelled == set(range(sup if sparse else sup + unsup))


@pytest.mark.faults
def test_a_bad_frame_is_replaced_and_named(folder, settings):
    whole = list(make(folder, settings).epoch(1, sparse=True))
    bad = folder / "3.jpg"
    bad.write_bytes(bad.read_bytes()[:5000])
    runs = []
    for workers in (0, 2):
        settings.data.workers = workers
        runs.append(list(make(folder, settings).epoch(1, sparse=True)))
    for one, other, before in zip(*runs, whole, strict=True):
        equal(one, other)
        assert all(str(bad) in message and "truncated" in message for message in one["bad"])
        for kind in ("sup", "unsup"):
            same = (one[kind]["draws"] == before[kind]["draws"]).all(1)
            assert (~same).sum() <= len(one["bad"])
            images = (name for name in one[kind] if one[kind][name].ndim == 4)
            assert all(torch.equal(one[kind][name][same], before[kind][name][same]) for name in images)
    assert sum(len(batch["bad"]) for batch in runs[0]) > 0


@pytest.mark.faults
@pytest.mark.parametrize("workers", [0, 1])
def test_only_bad_frames_stop_the_run_in_one_line(folder, settings, workers):
    for number in range(FRAMES):
        (folder / f"{number}.jpg").write_bytes(b"")
    settings.data.workers = workers
    with pytest.raises(UserError, match=rf"^{ATTEMPTS} unreadable samples in a row.*is empty; mend"):
        next(iter(make(folder, settings).epoch(1, sparse=True)))


def test_samples_travel_to_a_worker(folder, settings):
    state = State(folder / "state")
    samples = TrackingSamples(Drawn(folder, False, state), Drawn(folder, True, state), settings)
    copy = pickle.loads(pickle.dumps(samples))
    (folder / "state").write_text("5")
    key = Key(4, 0, "unsup")
    assert np.array_equal(copy[key]["aug"], samples[key]["aug"])
    assert state.seen == 5


def test_small_target_in_a_reduced_frame(folder, settings, tmp_path):
    """The key frame and the frame to locate are one file: read once, and the box lies where it should."""
    image = np.zeros((720, 1280, 3), np.uint8)
    image[300:500, 400:640] = 255
    path = str(tmp_path / "square.jpg")
    cv2.imwrite(path, image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    frame = FrameBox(path, np.array([400.0, 300.0, 240.0, 200.0]))
    samples = TrackingSamples(None, None, settings)
    sample = samples._processing.instance(
        SparseInstance(frame, frame, frame, 0, 0, "reviewing"), np.random.default_rng(0)
    )
    for name, box in (("key", sample["key_bbox"]), ("relay", sample["relay_bbox"])):
        rows, columns = np.nonzero(sample[name][..., 0] > 127)
        seen = [columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5]
        x, y, w, h = box
        assert np.abs(np.array(seen) - [x, y, x + w, y + h]).max() <= 1.5


@pytest.mark.faults
def test_a_worker_that_dies_while_all_are_started_is_replaced(folder, settings, monkeypatch, capsys):
    expected = list(make(folder, settings).epoch(0, True))
    settings.data.workers = 2
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)  # as in a process without loaders
    dead, handlers = [], signal.getsignal(signal.SIGCHLD)
    reset = _MultiProcessingDataLoaderIter._reset

    def killed(self, *args, **options):
        if not dead:
            dead.append(self._workers[0].pid)
            os.kill(dead[0], signal.SIGKILL)
            self._workers[0].join()
        return reset(self, *args, **options)

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "_reset", killed)
    for ours, theirs in zip(make(folder, settings).epoch(0, True), expected, strict=True):
        equal(ours, theirs)
    assert f"(process {dead[0]}), killed from outside" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGCHLD) == handlers
