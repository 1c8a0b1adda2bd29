"""What the losses of the DiMP family mean, beyond the reference numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from ltr.models.loss.bbr import GIoULoss
from ltr.models.loss.kl import KLRegression, KLRegressionGrid, MLRegression
from ltr.models.loss.segmentation import LovaszHinge, LovaszSegLoss, lovasz
from ltr.models.loss.target import FocalLoss, IsTargetCellLoss, LBHinge, TrackingClassificationAccuracy


def maps(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def test_anything_below_zero_is_right_about_the_background():
    prediction, label = maps(0, 2, 3, 5, 5).requires_grad_(), maps(1, 2, 3, 5, 5).clamp(0, 1)
    LBHinge(threshold=0.3)(prediction, label).backward()
    hinged = (label < 0.3) & (prediction < 0)
    assert hinged.any() and torch.equal(prediction.grad == 0, hinged)
    lower = torch.where(hinged, prediction - 7, prediction)
    assert LBHinge(threshold=0.3)(lower, label) == LBHinge(threshold=0.3)(prediction, label)


def test_a_clipped_loss_stops_learning():
    prediction, label = maps(2, 1, 4, 4).requires_grad_(), torch.zeros(1, 4, 4, dtype=torch.float64)
    whole = LBHinge()(prediction, label)
    assert LBHinge(clip=whole.item() * 2)(prediction, label) == whole
    clipped = LBHinge(clip=whole.item() / 2)(prediction, label)
    clipped.backward()
    assert clipped == whole / 2 and not prediction.grad.any()


@given(st.lists(st.booleans(), min_size=6, max_size=6))
def test_means_are_over_the_maps_that_count(counts):
    prediction, label = maps(3, 2, 3, 4, 4), maps(4, 2, 3, 4, 4).clamp(0, 1)
    valid = torch.tensor(counts).view(2, 3)
    target = label > 0.1
    found = (
        LBHinge(threshold=0.05)(prediction, label, valid),
        IsTargetCellLoss()(prediction, target, valid),
        TrackingClassificationAccuracy(threshold=0.25)(prediction, label, valid)[0],
    )
    if not valid.any():
        assert all(loss == 0 for loss in found)
        return
    kept = prediction[valid], label[valid]
    expected = (
        LBHinge(threshold=0.05)(*kept),
        IsTargetCellLoss()(kept[0], kept[1] > 0.1),
        TrackingClassificationAccuracy(threshold=0.25)(*kept)[0],
    )
    for ours, theirs in zip(found, expected):
        assert torch.isclose(ours, theirs)


def test_accuracy_is_its_definition():
    prediction, label = maps(5, 40, 3, 3), maps(6, 40, 3, 3) * 0.3
    share, right = TrackingClassificationAccuracy(threshold=0.25)(prediction, label)
    for scores, truth, said in zip(prediction, label, right):
        at_peak = truth.flatten()[scores.argmax()]
        present = truth.max() > 0.25
        assert bool(said) == bool(at_peak >= 0.25 if present else at_peak < 0.25)
    assert 0 < share < 1 and share == right.mean()


def test_focal_loss_without_focus_is_cross_entropy():
    logits, label = maps(7, 3, 8), maps(8, 3, 8).sigmoid()
    plain = F.binary_cross_entropy_with_logits(logits, label)
    assert torch.isclose(FocalLoss(gamma=0.0)(logits, label), plain)
    assert FocalLoss()(logits, label) < plain
    # right answers count for less than wrong ones, more so with a larger gamma
    sure, truth = torch.tensor([4.0, -4.0]), torch.tensor([1.0, 1.0])
    shares = [
        (FocalLoss(gamma=g)(sure[:1], truth[:1]) / FocalLoss(gamma=g)(sure[1:], truth[1:]))
        for g in (0.0, 2.0)
    ]
    assert shares[1] < shares[0] * 1e-2


# A normal density scored against a normal annotation: the cross entropy is known.

SCORE, TRUTH = 0.3, 0.2
CROSS_ENTROPY = 0.5 * math.log(2 * math.pi * SCORE**2) + TRUTH**2 / (2 * SCORE**2)


def normal(y, sigma):
    return torch.exp(-0.5 * (y / sigma) ** 2) / (math.sqrt(2 * math.pi) * sigma)


@pytest.mark.parametrize("shift", [0.0, 50.0])
def test_sampled_divergence_is_the_integral(shift):
    """Importance sampling with a wider proposal; a constant added to all energies changes nothing."""
    y = torch.from_numpy(np.random.default_rng(0).normal(0, 0.6, (200_000,)))
    energies = -0.5 * (y / SCORE) ** 2 + shift
    loss = KLRegression()(energies, normal(y, 0.6), normal(y, TRUTH))
    assert abs(loss - CROSS_ENTROPY) < 0.02 + 0.003 * shift


@pytest.mark.parametrize("shift", [0.0, 50.0])
def test_likelihood_is_that_of_the_annotation(shift):
    y = torch.cat(
        [torch.tensor([0.1], dtype=torch.float64), torch.linspace(-3, 3, 20_001, dtype=torch.float64)]
    )
    density = torch.full_like(y, 1 / 6)
    density[0] = -1  # of the annotation: not used
    loss = MLRegression()(-0.5 * (y / SCORE) ** 2 + shift, density)
    assert torch.isclose(loss, -normal(y[0], SCORE).log(), atol=1e-3)


@pytest.mark.parametrize("cells", [40, 80])
def test_divergence_on_a_grid_does_not_depend_on_its_resolution(cells):
    side = 4 / cells
    k = (torch.arange(cells, dtype=torch.float64) + 0.5) * side - 2
    energies = -0.5 * (k / SCORE) ** 2
    both = energies[:, None] + energies
    density = normal(k, TRUTH)[:, None] * normal(k, TRUTH)
    assert torch.isclose(
        KLRegressionGrid(cell=side**2)(both, density), torch.tensor(2 * CROSS_ENTROPY).double()
    )


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_lovasz_extends_the_jaccard_loss(pixels):
    mask, answer = torch.tensor(pixels, dtype=torch.float64).T
    union = torch.maximum(mask, answer).sum()
    jaccard = 1 - (mask * answer).sum() / union if union else torch.tensor(0.0)
    assert torch.isclose(lovasz((mask - answer).abs(), mask), jaccard.double())


def test_lovasz_losses_fall_with_better_answers():
    mask = (maps(9, 2, 1, 6, 6) > 0.3).double()
    for loss in (LovaszSegLoss(), LovaszSegLoss(per_image=False), LovaszHinge()):
        logits = maps(10, 2, 1, 6, 6).requires_grad_()
        values = []
        for _ in range(60):
            value = loss(logits, mask)
            (step,) = torch.autograd.grad(value, logits)
            logits = (logits - 20 * step).detach().requires_grad_()
            values.append(value.item())
        assert values[-1] < 0.2 * values[0]
    single = LovaszSegLoss()(maps(10, 2, 1, 6, 6)[:1], mask[:1])
    assert torch.isclose(single, LovaszSegLoss(per_image=False)(maps(10, 2, 1, 6, 6)[:1], mask[:1]))


def test_giou_of_boxes_that_miss_their_cell_or_each_other():
    """A target left of the cell has a negative right distance; published code multiplies two negative sides."""
    predicted = torch.tensor([0.1, 0.1, 0.1, 0.1]).view(1, 4, 1, 1).requires_grad_()
    target = torch.tensor([0.5, 0.5, -0.3, -0.3]).view(1, 4, 1, 1)
    loss, iou = GIoULoss()(predicted, target)
    union, hull = 0.2**2 + 0.2**2, 0.6**2
    assert iou.item() == 0 and math.isclose(loss.item(), 1 + (hull - union) / hull, rel_tol=1e-5)
    loss.backward()
    left, _, right, _ = predicted.grad.flatten().tolist()
    assert left < 0 and left < right  # grows towards the target most of all


def test_giou_counts_the_region_only():
    predicted, target = maps(11, 2, 3, 4, 5, 5).abs(), maps(12, 2, 3, 4, 5, 5).abs()
    region = maps(13, 2, 3, 1, 5, 5) > 0
    loss, iou = GIoULoss()(predicted, target, region)
    cells = region[:, :, 0]
    single = [
        GIoULoss()(p.view(4, 1, 1), t.view(4, 1, 1))
        for p, t in zip(predicted.movedim(2, -1)[cells], target.movedim(2, -1)[cells])
    ]
    assert torch.isclose(loss, torch.stack([value for value, _ in single]).mean())
    assert torch.allclose(iou[cells], torch.cat([value.flatten() for _, value in single]))
    nothing = GIoULoss()(predicted.requires_grad_(), target, torch.zeros_like(region))[0]
    assert nothing == 0 and not torch.autograd.grad(nothing, predicted)[0].any()
