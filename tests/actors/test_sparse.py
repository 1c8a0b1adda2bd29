"""One sparse step: from the teacher's answer to a recorded box and to what the student learns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch

from config.defaults import get_defaults
from ltr.actors.sparse import SparseActor, refill_order
from ltr.admin.process_group import ProcessGroup
from ltr.data.augment import DRAWS, Draw
from ltr.data.bbox import xywh_to_cxcywh
from ltr.data.crop import box_to_crop

SIZE, B = 96, 5


class Decoded(NamedTuple):
    bbox_cxcywh_norm: torch.Tensor
    score: torch.Tensor
    confidence: torch.Tensor


class Objective:
    """Remembers the targets it is given; its loss depends on which part it is."""

    def __init__(self, answer: torch.Tensor, confidence: torch.Tensor) -> None:
        self.answer, self.confidence, self.seen = answer, confidence, {}

    def __call__(self, outputs, target, labelled, weight=None):
        self.seen[labelled] = (target, weight)
        loss = outputs["value"].mean() * (1.0 if labelled else 7.0)
        return loss, {"iou": loss.detach()}

    def decode(self, outputs, window_penalty):
        return Decoded(self.answer, self.confidence, self.confidence)


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, template, search):
        return {"value": self.weight * torch.ones(len(search), 1)}


@pytest.fixture
def step():
    """A function that runs one step and returns actor, objective, result and the true boxes in the image."""

    def run(confidence: list[float], **sparse):
        rng = np.random.default_rng(0)
        truth = torch.from_numpy(np.c_[rng.uniform(40, 90, (B, 2)), rng.uniform(20, 40, (B, 2))])
        unlabeled, aug = truth + 3.0, truth * 1.02 - 2.0  # about which the two crops were made
        factor = torch.full((B,), 0.8, dtype=torch.float64)
        answer = xywh_to_cxcywh(box_to_crop(truth, unlabeled, factor, SIZE)) / SIZE
        settings = get_defaults()
        settings.data.search_size, settings.data.template_size = SIZE, 48
        objective = Objective(answer, torch.tensor(confidence))
        actor = SparseActor(
            Network(), Network(), objective, settings, ProcessGroup(0, 1, torch.device("cpu"))
        )
        draws = torch.full((B, DRAWS), 0.99)  # no mirror, no turn upside down, not grey
        draws[:, Draw.ANGLE] = 0.5  # no rotation
        crops = {name: torch.zeros(B, side, side, 3, dtype=torch.uint8) for name, side in
                 (("key", 48), ("relay", 48), ("unlabeled", SIZE), ("aug", SIZE))}  # fmt: skip
        unsup = {
            **crops,
            **{
                "unlabeled_extract": unlabeled,
                "unlabeled_factor": factor,
                "aug_extract": aug,
                "aug_factor": factor,
            },
            **{"aug_mean": torch.zeros(B, 3), "image_size": torch.tensor([[320.0, 240.0]]).repeat(B, 1)},
            **{
                "row": torch.arange(B) + 10,
                "frame": torch.arange(B) + 20,
                "index": torch.arange(B) + 30,
                "draws": draws,
            },
        }
        sup = {
            **{
                "template": torch.zeros(2, 48, 48, 3, dtype=torch.uint8),
                "search": torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8),
            },
            **{
                "search_bbox": torch.tensor([[10.0, 10, 20, 20]] * 2),
                "draws": draws[:2],
                "index": torch.arange(2),
            },
        }
        result = actor({"sup": sup, "unsup": unsup})
        in_aug = xywh_to_cxcywh(box_to_crop(truth, aug, factor, SIZE).float()) / SIZE
        return actor, objective, result, truth, in_aug

    return run


def test_confident_boxes_are_recorded_in_the_image_and_learned_in_the_aug_crop(step):
    actor, objective, result, truth, in_aug = step([0.9, 0.2, 0.95, 0.5, 0.86])
    records = actor.take_records()
    good = [0, 2, 4]
    assert records["row"].tolist() == [10, 12, 14] and records["frame"].tolist() == [20, 22, 24]
    assert records["order"].tolist() == [30, 32, 34]
    np.testing.assert_allclose(records["bbox"], truth[good].numpy(), atol=1e-4)
    np.testing.assert_allclose(records["confidence"], [0.9, 0.95, 0.86], atol=1e-6)
    assert len(actor.take_records()) == 0

    pseudo, weight = objective.seen[False]
    torch.testing.assert_close(pseudo, in_aug[[0, 2, 4, 0, 2]], atol=1e-4, rtol=0)
    assert (weight == 1).all()
    # (2 labelled pairs with loss 1, 5 unsupervised ones with loss 7) over 7
    assert result.loss.item() == pytest.approx((2 * 1 + 5 * 7) / 7)
    assert result.stats["acceptance"].item() == pytest.approx(3 / 5)
    result.loss.backward()
    assert actor.teacher.weight.grad is None


def test_without_a_confident_box_the_labelled_pairs_alone_are_learned(step):
    actor, objective, result, _, _ = step([0.1] * B)
    assert len(actor.take_records()) == 0
    assert (objective.seen[False][1] == 0).all()
    assert result.loss.item() == pytest.approx(1.0)
    assert torch.isnan(result.stats["pseudo_iou"])  # left out of the epoch's mean


def test_a_batch_is_refilled_by_repeating_in_order():
    assert refill_order(torch.tensor([True] * 4)).tolist() == [0, 1, 2, 3]
    assert refill_order(torch.tensor([False, True, False, True, False])).tolist() == [1, 3, 1, 3, 1]
    assert refill_order(torch.tensor([False] * 3)).tolist() == [0, 1, 2]
