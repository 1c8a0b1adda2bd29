"""Ocean's labels and losses: against a plain loop over samples and cells, over ranks, and at the edges."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr.models.loss.ocean import OceanObjective, ocean_labels

MAP, SIZE = 11, 127
MIDDLE = 8 * (MAP // 2)  # px from the first cell to the middle one
fractions = st.floats(-0.6, 1.6)
sides = st.floats(0.005, 1.5)
targets = st.lists(st.tuples(fractions, fractions, sides, sides), min_size=1, max_size=4)


def made_up(batch: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(channels: int) -> torch.Tensor:
        return torch.rand(batch, channels, MAP, MAP, generator=generator)

    return {
        "pred_logits": draw(1) * 4 - 2,
        "pred_boxes": draw(4) * 60 + 0.5,
        "align_logits": draw(1) * 4 - 2,
        "pred_ious": draw(1),
    }


def box(fractions_of_crop) -> torch.Tensor:
    return torch.tensor(fractions_of_crop, dtype=torch.float32)


def plain_loss(outputs: dict[str, torch.Tensor], target: torch.Tensor, labelled: bool) -> float:
    """The published rules, cell by cell."""
    losses: dict[str, list[float]] = {kind: [] for kind in ("on", "off", "bbox", "align", "iou")}
    for b, (cx, cy, w, h) in enumerate((target * SIZE).tolist()):
        shift_x, shift_y = (math.trunc((c - SIZE / 2) / 8) for c in (cx, cy))
        for row in range(MAP):
            for column in range(MAP):
                x, y = ((SIZE - 1) / 2 - MIDDLE + 8 * cell for cell in (column, row))
                near_x = abs(column - MAP // 2 - shift_x)
                logit = outputs["pred_logits"][b, 0, row, column].item()
                if near_x + abs(row - MAP // 2 - shift_y) <= 2:
                    losses["on"].append(math.log1p(math.exp(-logit)))
                else:
                    losses["off"].append(math.log1p(math.exp(logit)))
                left, top, right, bottom = x - cx + w / 2, y - cy + h / 2, cx + w / 2 - x, cy + h / 2 - y
                p = outputs["pred_boxes"][b, :, row, column].tolist()
                iou = 0.0
                if min(left, top, right, bottom) > 0:
                    inner = (min(left, p[0]) + min(right, p[2])) * (min(top, p[1]) + min(bottom, p[3]))
                    union = w * h + (p[0] + p[2]) * (p[1] + p[3]) - inner
                    iou = (inner + 1) / (union + 1)
                    losses["bbox"].append(-math.log(iou))
                logit = outputs["align_logits"][b, 0, row, column].item()
                losses["align"].append(
                    math.log1p(math.exp(-logit)) * iou + math.log1p(math.exp(logit)) * (1 - iou)
                )
                grown_w, grown_h = 0.5 * w + 0.2 * max(w, 1), 0.5 * h + 0.2 * max(h, 1)
                if abs(x - cx) <= grown_w and abs(y - cy) <= grown_h:
                    losses["iou"].append(abs(outputs["pred_ious"][b, 0, row, column].item() - iou))
    mean = {kind: sum(values) / max(len(values), 1) for kind, values in losses.items()}
    total = 0.5 * mean["on"] + 0.5 * mean["off"] + mean["bbox"] + mean["align"]
    return total + 0.5 * mean["iou"] if labelled else total


@settings(max_examples=25)
@given(targets, st.booleans(), st.integers(0, 99))
def test_agrees_with_a_loop_over_cells(boxes, labelled, seed):
    target = box(boxes)
    outputs = made_up(len(boxes), seed)
    loss, stats = OceanObjective(search_size=SIZE)(outputs, target, labelled)
    assert loss.item() == pytest.approx(plain_loss(outputs, target, labelled), rel=1e-4)
    assert all(value.isfinite() and not value.requires_grad for value in stats.values())
    assert ("loss_iou_pred" in stats) == labelled


@settings(max_examples=50)
@given(targets, st.integers(2, 16))
def test_cells_within_the_box_are_within_the_grown_box_and_measure_it(boxes, cells):
    target = box(boxes) * SIZE
    labels = ocean_labels(target, cells, SIZE)
    assert not (labels.inside & ~labels.near).any()
    assert ((labels.distances > 0).all(1) == labels.inside).all()
    left, top, right, bottom = labels.distances.unbind(1)
    for whole, side in ((left + right, 2), (top + bottom, 3)):
        assert torch.allclose(whole, target[:, side, None, None].expand_as(whole), atol=1e-3)
    assert (labels.positive.sum((1, 2)) <= 13).all()


def test_the_positive_cells_are_a_diamond_about_the_middle_of_odd_and_even_maps():
    middle = torch.tensor([[SIZE / 2, SIZE / 2, 20.0, 20.0]])
    for cells, count in ((11, 13), (12, 12)):
        positive = ocean_labels(middle, cells, SIZE).positive[0]
        assert positive.sum() == count
        assert torch.equal(positive, positive.flip(0)) and torch.equal(positive, positive.T)


def gradients(objective: OceanObjective, outputs, target, labelled=True) -> dict[str, torch.Tensor | None]:
    own = {name: value.clone().requires_grad_() for name, value in outputs.items()}
    objective(own, target, labelled)[0].backward()
    return {name: value.grad for name, value in own.items()}


def test_neither_the_alignment_nor_the_iou_prediction_moves_the_boxes():
    outputs, target = made_up(2), box([[0.5, 0.5, 0.5, 0.4], [0.4, 0.6, 0.3, 0.3]])
    only_others = OceanObjective(search_size=SIZE, bbox=0.0)
    moved = gradients(only_others, outputs, target)["pred_boxes"]
    assert moved is not None and not moved.any()
    published = OceanObjective(search_size=SIZE, bbox=0.0, reference_compat=True)
    assert gradients(published, outputs, target)["pred_boxes"].any()


def test_a_target_without_any_cell_teaches_that_it_is_not_there():
    """Beyond the crop: all cells are negative, no box is trained, and every gradient is finite."""
    outputs, target = made_up(1), box([[3.0, 3.0, 0.2, 0.2]])
    _, stats = OceanObjective(search_size=SIZE)(outputs, target, True)
    logits = outputs["pred_logits"]
    assert stats["loss_ce"].item() == pytest.approx(0.5 * logits.exp().log1p().mean().item(), rel=1e-5)
    assert stats["loss_bbox"] == stats["loss_iou_pred"] == stats["iou"] == 0
    found = gradients(OceanObjective(search_size=SIZE), outputs, target)
    assert all(value is not None and value.isfinite().all() for value in found.values())
    assert (found["pred_logits"] > 0).all() and not found["pred_boxes"].any()
    assert OceanObjective(search_size=SIZE, reference_compat=True)(outputs, target, True)[1]["loss_ce"] == 0


def test_a_single_positive_cell_counts():
    outputs = made_up(1)
    target = box([[0.5 - (MIDDLE + 16) / SIZE, 0.5, 0.2, 0.2]])  # the tip of the diamond, in the first column
    assert ocean_labels(target * SIZE, MAP, SIZE).positive.sum() == 1
    pulled = {}
    for compat in (False, True):
        found = gradients(OceanObjective(search_size=SIZE, reference_compat=compat), outputs, target)
        pulled[compat] = found["pred_logits"][0, 0, MAP // 2, 0]
    assert pulled[False] < 0 and pulled[True] == 0


def test_two_ranks_learn_what_one_process_learns():
    target = box([[0.5, 0.5, 0.4, 0.3], [0.2, 0.7, 0.1, 0.1], [0.9, 0.1, 0.5, 0.6], [1.5, 0.5, 0.1, 0.1]])
    outputs = made_up(4)
    whole = gradients(OceanObjective(search_size=SIZE), outputs, target)
    counts: list[torch.Tensor] = []

    def note(value: torch.Tensor) -> torch.Tensor:
        counts.append(value)
        return value

    parts = [slice(0, 1), slice(1, 4)]
    for part in parts:
        own = {name: value[part] for name, value in outputs.items()}
        OceanObjective(search_size=SIZE, mean_over_ranks=note)(own, target[part], True)
    assert len(counts) == 2  # one exchange each
    mean = torch.stack(counts).mean(0)
    for part in parts:
        objective = OceanObjective(search_size=SIZE, mean_over_ranks=lambda _: mean)
        own = {name: value[part] for name, value in outputs.items()}
        for name, value in gradients(objective, own, target[part]).items():
            assert torch.allclose(value / len(parts), whole[name][part], atol=1e-7), name


def test_weight_zero_leaves_a_sample_out():
    target = box([[0.5, 0.5, 0.4, 0.3], [0.2, 0.7, 0.1, 0.1], [0.9, 0.1, 0.5, 0.6]])
    outputs, objective = made_up(3), OceanObjective(search_size=SIZE)
    loss, _ = objective(outputs, target, True, torch.tensor([1.0, 0.0, 1.0]))
    kept = [0, 2]
    expected, _ = objective({name: value[kept] for name, value in outputs.items()}, target[kept], True)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    nothing, stats = objective(outputs, target, True, torch.zeros(3))
    assert nothing.item() == 0 and all(value == 0 for value in stats.values())


def test_heads_that_a_network_does_not_have_are_not_trained():
    target = box([[0.5, 0.5, 0.4, 0.3]])
    outputs = made_up(1)
    del outputs["align_logits"], outputs["pred_ious"]
    _, stats = OceanObjective(search_size=SIZE)(outputs, target, True)
    assert set(stats) == {"loss_ce", "loss_bbox", "iou"}


def test_decode_finds_the_box_that_the_labels_describe():
    """Distances that are exact and a score on one cell inside the target give the target back."""
    target = box([[0.45, 0.6, 0.3, 0.25]])
    labels = ocean_labels(target * SIZE, MAP, SIZE)
    outputs = made_up(1) | {"pred_boxes": labels.distances.clamp(min=0.1)}
    place = int(labels.inside.flatten().nonzero()[0])
    outputs["pred_logits"] = torch.full((1, 1, MAP, MAP), -9.0)
    outputs["pred_logits"].view(-1)[place] = 9.0
    found = OceanObjective(search_size=SIZE).decode(outputs, 0.0)
    assert found.index.tolist() == [place]
    assert torch.allclose(found.bbox_cxcywh_norm, target, atol=1e-5)
    assert found.confidence[0] == outputs["pred_ious"].flatten()[place]


def test_nothing_looks_at_a_value():
    """So nothing waits for the device: tensors without content do as well."""
    objective, target = OceanObjective(search_size=SIZE), torch.zeros(2, 4, device="meta")
    outputs = {name: value.to("meta").requires_grad_() for name, value in made_up(2).items()}
    loss, stats = objective(outputs, target, True, torch.ones(2, device="meta"))
    loss.backward()
    assert loss.shape == () and all(value.device.type == "meta" for value in stats.values())
    assert objective.decode(outputs, 0.3).bbox_cxcywh_norm.shape == (2, 4)
