"""TransT's losses: against a plain loop over samples and cells, over ranks, and at the edges."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr.data.bbox import cxcywh_to_xyxy, iou_xyxy
from ltr.models.loss.transt import TransTObjective, target_cells

SIZE = 8
fractions = st.floats(-0.6, 1.6)
sides = st.floats(0.001, 1.5)
targets = st.lists(st.tuples(fractions, fractions, sides, sides), min_size=1, max_size=5)


def made_up(batch: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(last: int) -> torch.Tensor:
        return torch.rand(batch, SIZE * SIZE, last, generator=generator)

    return {"pred_logits": draw(2) * 4, "pred_boxes": draw(4) * 0.8 + 0.1, "pred_ious": draw(1)}


def plain_loss(outputs: dict[str, torch.Tensor], target: torch.Tensor, labelled: bool) -> torch.Tensor:
    """The published rules, cell by cell."""
    sums, counts = (
        dict.fromkeys(("ce", "l1", "giou", "on", "ring"), 0.0),
        dict.fromkeys(("ce", "on", "ring"), 0.0),
    )
    for b, box in enumerate(target):
        corners = (cxcywh_to_xyxy(box) * SIZE).tolist()
        x0, y0 = (max(math.ceil(v), 0) for v in corners[:2])
        x1, y1 = (min(math.ceil(v), SIZE) for v in corners[2:])
        x1, y1 = x1 + (x0 == x1), y1 + (y0 == y1)
        for cell in range(SIZE * SIZE):
            row, column = divmod(cell, SIZE)
            on = y0 <= row < y1 and x0 <= column < x1
            near = y0 - 3 <= row < y1 + 3 and x0 - 3 <= column < x1 + 3
            weight = 1.0 if on else 0.0625
            sums["ce"] -= weight * outputs["pred_logits"][b, cell].log_softmax(0)[0 if on else 1]
            counts["ce"] += weight
            predicted = outputs["pred_boxes"][b, cell]
            iou, giou = iou_xyxy(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(box))
            miss = (outputs["pred_ious"][b, cell, 0] - iou).abs()
            if on:
                sums["l1"] += (predicted - box).abs().sum()
                sums["giou"] += 1 - giou
            if near:
                kind = "on" if on else "ring"
                sums[kind] += miss
                counts[kind] += 1
    on, ring = max(counts["on"], 1), max(counts["ring"], 1)
    total = 8.334 * sums["ce"] / counts["ce"] + 5 * sums["l1"] / on + 2 * sums["giou"] / on
    return total + sums["on"] / on + sums["ring"] / ring if labelled else total


@settings(max_examples=25, deadline=None)
@given(targets, st.booleans(), st.integers(0, 99))
def test_agrees_with_a_loop_over_cells(boxes, labelled, seed):
    target = torch.tensor(boxes, dtype=torch.float32)
    outputs = made_up(len(boxes), seed)
    loss, stats = TransTObjective()(outputs, target, labelled)
    assert loss.item() == pytest.approx(float(plain_loss(outputs, target, labelled)), rel=1e-4)
    assert all(value.isfinite() and not value.requires_grad for value in stats.values())
    assert ("loss_iou_pred" in stats) == labelled


@settings(max_examples=60, deadline=None)
@given(targets)
def test_the_ring_surrounds_the_target_and_never_overlaps_it(boxes):
    positive, ring = target_cells(torch.tensor(boxes, dtype=torch.float32), SIZE)
    assert not (positive & ring).any()
    for (cx, cy, w, h), cells in zip(boxes, positive.unflatten(1, (SIZE, SIZE))):
        starts_inside = max(cx - w / 2, cy - h / 2) * SIZE < SIZE - 1 - 1e-3  # before the last row and column
        if starts_inside and cx > 0.01 and cy > 0.01:
            assert cells.any()


def test_two_ranks_learn_what_one_process_learns():
    target = torch.tensor(
        [[0.5, 0.5, 0.4, 0.3], [0.2, 0.7, 0.1, 0.1], [0.9, 0.1, 0.5, 0.6], [1.5, 0.5, 0.1, 0.1]]
    )
    whole = {name: value.requires_grad_() for name, value in made_up(4).items()}
    TransTObjective()(whole, target, True)[0].backward()

    counts: list[torch.Tensor] = []
    parts = [slice(0, 1), slice(1, 4)]

    def note(value: torch.Tensor) -> torch.Tensor:
        counts.append(value)
        return value

    outputs = made_up(4)
    for part in parts:
        TransTObjective(mean_over_ranks=note)({k: v[part] for k, v in outputs.items()}, target[part], True)
    mean = torch.stack(counts).mean(0)
    for part in parts:
        own = {name: value[part].clone().requires_grad_() for name, value in outputs.items()}
        TransTObjective(mean_over_ranks=lambda _: mean)(own, target[part], True)[0].backward()
        for name, value in own.items():
            assert torch.allclose(value.grad / len(parts), whole[name].grad[part], atol=1e-7), name


def test_weight_zero_leaves_a_sample_out():
    target = torch.tensor([[0.5, 0.5, 0.4, 0.3], [0.2, 0.7, 0.1, 0.1], [0.9, 0.1, 0.5, 0.6]])
    outputs = made_up(3)
    loss, stats = TransTObjective()(outputs, target, True, torch.tensor([1.0, 0.0, 1.0]))
    kept = [0, 2]
    expected, _ = TransTObjective()(
        {name: value[kept] for name, value in outputs.items()}, target[kept], True
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    nothing, stats = TransTObjective()(outputs, target, True, torch.zeros(3))
    assert nothing.item() == 0 and all(value == 0 for value in stats.values())


def test_a_map_that_is_not_square_is_refused():
    outputs = {name: value[:, :-1] for name, value in made_up(1).items()}
    with pytest.raises(ValueError, match="63 cells"):
        TransTObjective()(outputs, torch.tensor([[0.5, 0.5, 0.1, 0.1]]), True)


def test_decode_takes_the_window_into_account():
    outputs = made_up(2)
    middle = SIZE // 2 * SIZE + SIZE // 2
    outputs["pred_logits"][:] = torch.tensor([-9.0, 9.0])
    outputs["pred_logits"][0, 0] = torch.tensor([9.0, -9.0])  # sure, but in the corner
    outputs["pred_logits"][1, middle] = torch.tensor([0.0, 0.0])
    objective = TransTObjective()
    corner = objective.decode(outputs, 0.0)
    assert corner.index.tolist() == [0, middle]
    assert torch.equal(corner.confidence, outputs["pred_ious"][[0, 1], [0, middle], 0])
    assert torch.equal(corner.bbox_cxcywh_norm, outputs["pred_boxes"][[0, 1], [0, middle]])
    windowed = objective.decode(outputs, 0.9)
    assert windowed.index[0] != 0 and windowed.index[1] == middle
