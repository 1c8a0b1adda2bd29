"""Batches of sequences: from image files to network inputs, by any number of workers."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from config.errors import UserError
from ltr.data.augment import MEAN, STD
from ltr.data.labels import GaussianLabel, boxes_of_masks
from ltr.data.loader import Loader, Plan
from ltr.data.processing_ltr import Jitter, SequenceProcessing, SequenceSamples, prepare
from ltr.data.proposals import MixtureBoxes, PerturbedBoxes, overlaps
from ltr.data.sampler_ltr import TrackingSequences
from ltr.data.transforms import FRAME_DRAWS, SequenceAugment
from ltr.dataset.base import Annotation

SIZE = (96, 64)
FRAMES = 24
PLAIN = SequenceAugment(gray=0.0, brightness=0.0)


class Targets:
    """Videos of a white rectangle that moves over dark noise, as PNG files."""

    name, split = "Targets", "train"

    def __init__(self, folder):
        rng = np.random.default_rng(0)
        self.folder = folder
        corners = np.linspace([5, 60], [150, 10], FRAMES).round() + rng.integers(-3, 4, (FRAMES, 2))
        self.bbox = np.concatenate([corners, rng.integers(18, 40, (FRAMES, 2))], 1)
        for number, (x, y, w, h) in enumerate(self.bbox.astype(int)):
            image = rng.integers(0, 60, (120, 200, 3), np.uint8)
            image[max(y, 0) : y + h, max(x, 0) : x + w] = 255
            cv2.imwrite(self.frame_path(0, number), image)

    def __len__(self):
        return 1

    def num_frames(self, i):
        return FRAMES

    def frame_path(self, i, frame):
        return f"{self.folder}/{frame}.png"

    def annotation(self, i):
        return Annotation(self.bbox, np.ones(FRAMES, dtype=bool))


@pytest.fixture
def targets(tmp_path):
    return Targets(tmp_path)


def load(dataset, workers=0, proposals=None, rank=0, ranks=1, **crops):
    """The batches of epoch 3: two steps of four sequences with three train and two test frames."""
    processing = SequenceProcessing(
        **{
            "size": SIZE,
            "search_factor": 4.0,
            "train_jitter": Jitter(1.0, 0.1),
            "test_jitter": Jitter(1.5, 0.25),
            "proposals": proposals or PerturbedBoxes(count=6, min_iou=0.1, sigmas=(0.05, 0.3)),
            **crops,
        }
    )
    sequences = TrackingSequences([dataset], 1, train_frames=3, test_frames=2, max_gap=8)
    samples = SequenceSamples(sequences, processing, 1)
    plan = Plan(iterations=2, sup=4, unsup=0, rank=rank, ranks=ranks)
    return list(Loader(samples, plan, workers, 1).epoch(3, sparse=False))


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_batch_is_as_described(targets):
    mixture = MixtureBoxes(count=5, sigmas=((0.05, 0.05), (0.5, 0.5)), gt_sigma=(0.05, 0.05))
    batch = load(targets, proposals=mixture)[1]["sup"]
    expected = {
        "train_images": ((4, 3, 64, 96, 3), torch.uint8),
        "test_images": ((4, 2, 64, 96, 3), torch.uint8),
        "train_bbox": ((4, 3, 4), torch.float32),
        "test_bbox": ((4, 2, 4), torch.float32),
        "proposals": ((4, 2, 5, 4), torch.float32),
        **{name: ((4, 2, 5), torch.float32) for name in ("proposal_iou", "proposal_density", "gt_density")},
        "train_draws": ((4, 3, FRAME_DRAWS), torch.float32),
        "test_draws": ((4, 2, FRAME_DRAWS), torch.float32),
        "gray_draw": ((4,), torch.float32),
        "index": ((4,), torch.int64),
    }
    assert {name: (tuple(value.shape), value.dtype) for name, value in batch.items()} == expected
    assert batch["index"].tolist() == [4, 5, 6, 7]

    label = GaussianLabel(sigma=0.1, kernel=4, features=(6, 4), image=SIZE)
    ready = prepare(batch, SequenceAugment(mirror=0.5), {"test_label": label, "train_label": label})
    assert {name: tuple(value.shape) for name, value in ready.items()} == {
        "train_images": (3, 4, 3, 64, 96),
        "test_images": (2, 4, 3, 64, 96),
        "train_bbox": (3, 4, 4),
        "test_bbox": (2, 4, 4),
        "proposals": (2, 4, 5, 4),
        **{name: (2, 4, 5) for name in ("proposal_iou", "proposal_density", "gt_density")},
        "index": (4,),
        "train_label": (3, 4, 5, 7),
        "test_label": (2, 4, 5, 7),
    }
    assert torch.equal(ready["test_label"], label(ready["test_bbox"]))


@pytest.mark.parametrize("mode", ["centred", "replicate", "inside", "inside_major"])
def test_targets_are_where_boxes_and_proposals_say(targets, mode):
    """In the network's input, after crop and mirror: white within the box, dark outside."""
    mirrored = 0
    for batch in load(targets, mode=mode, max_scale_change=1.5):
        ready = prepare(batch["sup"], SequenceAugment(gray=0.0, brightness=0.0, mirror=0.5), {})
        for part in ("train", "test"):
            pixels = ready[f"{part}_images"].flatten(0, 1)
            unit = pixels * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
            seen = boxes_of_masks(unit[:, 1] > 0.6)
            x, y, w, h = ready[f"{part}_bbox"].flatten(0, 1).unbind(-1)
            left, right = x.clamp(0, SIZE[0]), (x + w).clamp(0, SIZE[0])
            top, bottom = y.clamp(0, SIZE[1]), (y + h).clamp(0, SIZE[1])
            told = torch.stack([left, top, right - left, bottom - top], -1)
            shown = (told[:, 2:] > 3).all(-1)
            assert shown.sum() > 4 and (seen - told)[shown].abs().max() < 1.6
            draws = batch["sup"][f"{part}_draws"]
            mirrored += int((draws[..., 1] < 0.5).sum())
        iou = overlaps(ready["proposals"].numpy(), ready["test_bbox"][..., None, :].numpy())
        assert np.allclose(2 * iou - 1, ready["proposal_iou"].numpy(), atol=1e-3)
    assert 5 < mirrored < 35


def test_images_are_changed_as_drawn(targets):
    part = load(targets)[0]["sup"]
    plain = prepare(part, PLAIN, {})
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    unit = part["train_images"].transpose(0, 1).movedim(-1, 2).float() / 255
    assert torch.allclose(plain["train_images"], (unit - mean) / std, atol=1e-6)
    assert torch.equal(plain["train_bbox"], part["train_bbox"].transpose(0, 1))

    gray = prepare(part, SequenceAugment(gray=0.5, brightness=0.0), {})
    for images in (gray["train_images"], gray["test_images"]):
        one_channel = images * std + mean
        same = ((one_channel - one_channel[:, :, :1]).abs() < 1e-5).all(2).flatten(2).all(-1)
        assert torch.equal(same, (part["gray_draw"] < 0.5).expand_as(same))  # all frames of a sequence
    bright = prepare(part, SequenceAugment(gray=0.0, brightness=0.2), {})
    factor = 0.8 + 0.4 * part["test_draws"][..., 0].T
    unit = part["test_images"].transpose(0, 1).movedim(-1, 2).float() / 255
    expected = ((unit * factor[..., None, None, None]).clamp(0, 1) - mean) / std
    assert torch.allclose(bright["test_images"], expected, atol=1e-5)


def test_workers_and_ranks_make_the_same_samples(targets):
    alone = load(targets)
    for ours, theirs in zip(load(targets, workers=2), alone, strict=True):
        assert equal(ours["sup"], theirs["sup"])
    ranks = [load(targets, rank=rank, ranks=2) for rank in (0, 1)]
    for step, theirs in enumerate(alone):
        both = {n: torch.cat([rank[step]["sup"][n] for rank in ranks]) for n in theirs["sup"]}
        assert equal(both, theirs["sup"])
    assert not torch.equal(alone[0]["sup"]["train_bbox"], alone[1]["sup"]["train_bbox"])


def test_unreadable_frames_are_replaced_by_name(targets):
    whole = load(targets)
    broken = targets.frame_path(0, 11)
    with open(broken, "r+b") as file:
        file.truncate(900)
    batches = load(targets)
    messages = [message for batch in batches for message in batch["bad"]]
    assert messages and all(broken in message for message in messages)
    touched = 0
    for ours, theirs in zip(batches, whole):
        same = [torch.equal(a, b) for a, b in zip(ours["sup"]["test_bbox"], theirs["sup"]["test_bbox"])]
        touched += same.count(False)
        assert equal(ours["sup"], theirs["sup"]) == all(same)
    assert 1 <= touched <= len(messages) and touched < 8
    with pytest.raises(UserError, match="crop mode 'outside'"):
        load(targets, mode="outside")


def test_boxes_far_outside_do_not_stop_a_worker(targets):
    """Jitter and annotations beyond the frame: the crop shows the border, and memory stays bounded."""
    targets.bbox = targets.bbox + np.array([5e4, -3e4, 0, 0])
    targets.bbox[::2, 2:] *= 500
    for mode in ("centred", "replicate", "inside"):
        for batch in load(targets, mode=mode):
            assert not batch["bad"] and torch.isfinite(batch["sup"]["proposals"]).all()
            assert math.prod(batch["sup"]["train_images"].shape) == 4 * 3 * 64 * 96 * 3
