"""Losses of Ocean (Zhang et al., ECCV 2020) with the IoU prediction of SPOT (TIP 2024)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ltr.models.layers.anchor_free import STRIDE, grid
from ltr.models.tracking.ocean import decode
from ltr.models.tracking.transt import Decoded

REACH = 2  # cells, in rows and columns together, around the target's centre that are positive
GROWTH = 0.2  # of the box's size on each side: where the IoU prediction is trained too


class OceanLabels(NamedTuple):
    """What the cells of a ``map x map`` output should say."""

    positive: torch.Tensor  # bool [B, map, map], cells about the target's centre
    inside: torch.Tensor  # bool [B, map, map], cells within the box, of which the boxes are trained
    near: torch.Tensor  # bool [B, map, map], cells within the grown box
    distances: torch.Tensor  # [B, 4, map, map] to the box's left, top, right, bottom, px; negative beyond it


def ocean_labels(target_cxcywh: torch.Tensor, map_size: int, search_size: int) -> OceanLabels:
    """The labels of every cell.

    The centre of the positive cells is found as published: the target's offset from the crop's middle,
    in cells, cut towards zero. A box outside the crop has no positive cell.

    Args:
        target_cxcywh: boxes ``[B, 4]``, search px.
        map_size: cells a side.
        search_size: side of the search crop, px.
    """
    centre, size = target_cxcywh.float().split(2, -1)
    x, y = grid(map_size, search_size, device=target_cxcywh.device)
    cells = torch.arange(map_size, device=x.device) - (map_size - 1) / 2
    shift = ((centre - search_size / 2) / STRIDE).trunc()
    columns, rows = ((cells - shift[:, axis, None]).abs() for axis in (0, 1))
    positive = rows[:, :, None] + columns[:, None, :] <= REACH

    (left, top), (right, bottom) = (centre - size / 2).unbind(1), (centre + size / 2).unbind(1)
    sides = (x - left[:, None], y - top[:, None], right[:, None] - x, bottom[:, None] - y)
    across = [side[:, None, :].expand(-1, map_size, -1) for side in sides[::2]]
    down = [side[:, :, None].expand(-1, -1, map_size) for side in sides[1::2]]
    distances = torch.stack([across[0], down[0], across[1], down[1]], 1)
    border = GROWTH * size.clamp(min=1).repeat(1, 2)[..., None, None]
    return OceanLabels(positive, (distances > 0).all(1), (distances >= -border).all(1), distances)


def overlaps(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """``(I + 1) / (U + 1)`` of boxes about the same points, with I and U their intersection and union in px².

    Yu et al., UnitBox, ACM MM 2016; the ones keep its logarithm finite.

    Args:
        predicted, truth: distances left, top, right, bottom ``[B, 4, ...]``, px, none negative.

    Returns:
        ``[B, ...]``.
    """
    intersection = _area(torch.minimum(predicted, truth))
    return (intersection + 1) / (_area(predicted) + _area(truth) - intersection + 1)


def _area(distances: torch.Tensor) -> torch.Tensor:
    left, top, right, bottom = distances.unbind(1)
    return (left + right) * (top + bottom)


class OceanObjective(nn.Module):
    """Classification of all cells, boxes within the target, alignment, IoU prediction in and around the target.

    Each term is a mean over the cells it is about, and 0 where there are none.

    Args:
        search_size: side of the search crop, px.
        ce: weight of the classification, half for positive and half for negative cells.
        bbox: weight of the logarithm of the overlap.
        align: weight of the object-aware branch, which is to say how much its box overlaps the target.
        iou: weight of the IoU prediction, on labelled samples only.
        reference_compat: as published, for comparison: a single positive cell counts as none, without
            positive cells the classification is left out, and the object-aware branch moves the boxes too.
        mean_over_ranks: averages a tensor over the training processes, so that averaged gradients
            equal those of one process with the whole batch.
    """

    def __init__(
        self,
        *,
        search_size: int,
        ce: float = 1.0,
        bbox: float = 1.0,
        align: float = 1.0,
        iou: float = 0.5,
        reference_compat: bool = False,
        mean_over_ranks: Callable[[torch.Tensor], torch.Tensor] = lambda value: value,
    ) -> None:
        super().__init__()
        self.search_size = search_size
        self.weights = {"loss_ce": ce, "loss_bbox": bbox, "loss_align": align, "loss_iou_pred": iou}
        self.reference_compat = reference_compat
        self.mean_over_ranks = mean_over_ranks

    def forward(
        self,
        outputs: Mapping[str, torch.Tensor],
        target_cxcywh_norm: torch.Tensor,
        labelled: bool,
        weight: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The weighted loss of a batch.

        Args:
            outputs: what ``Ocean`` returns.
            target_cxcywh_norm: ``[B, 4]``, fractions of the crop; parts outside are fine.
            labelled: whether people drew the targets; only then the IoU prediction is trained.
            weight: of each sample ``[B]``, default 1; 0 leaves it out.

        Returns:
            the loss (scalar), and detached scalars: the terms before weighting (``loss_ce``,
            ``loss_bbox``, with the object-aware branch ``loss_align``, where labelled
            ``loss_iou_pred``) and ``iou``, the mean overlap within the target.
        """
        logits, boxes = outputs["pred_logits"].float()[:, 0], outputs["pred_boxes"].float()
        labels = ocean_labels(target_cxcywh_norm * self.search_size, logits.shape[-1], self.search_size)
        sample = torch.ones_like(logits[:, :1, :1]) if weight is None else weight.float()[:, None, None]
        every, positive, inside, near = (
            mask * sample for mask in (torch.ones_like(logits), labels.positive, labels.inside, labels.near)
        )
        counts = self.mean_over_ranks(torch.stack([m.sum() for m in (every, positive, inside, near)]))
        cells, _, insides, nears = torch.where(counts > 0, counts, 1.0)  # without any the sum is 0 too

        # Beyond the target any box will do, as long as its overlap has a gradient.
        overlap = overlaps(boxes, torch.where(labels.inside[:, None], labels.distances, 1.0))
        terms = {
            "loss_ce": self.classification(logits, positive, every, counts[1], counts[0]),
            "loss_bbox": -(overlap.log() * inside).sum() / insides,
        }
        reached = overlap * labels.inside
        if "align_logits" in outputs:
            label = reached if self.reference_compat else reached.detach()
            entropy = F.binary_cross_entropy_with_logits(
                outputs["align_logits"].float()[:, 0], label, reduction="none"
            )
            terms["loss_align"] = (entropy * every).sum() / cells
        if labelled and "pred_ious" in outputs:
            miss = (outputs["pred_ious"].float()[:, 0] - reached.detach()).abs()
            terms["loss_iou_pred"] = (miss * near).sum() / nears
        loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        stats = {name: term.detach() for name, term in terms.items()}
        stats["iou"] = (overlap.detach() * inside).sum() / insides
        return loss, stats

    def classification(
        self,
        logits: torch.Tensor,
        positive: torch.Tensor,
        every: torch.Tensor,
        positives: torch.Tensor,
        cells: torch.Tensor,
    ) -> torch.Tensor:
        """Half the mean cross entropy of the positive cells and half that of the negative ones.

        Args:
            logits: ``[B, map, map]``.
            positive, every: the weight of each cell among the positive ones and among all, ``[B, map, map]``.
            positives, cells: sums of these weights, averaged over the processes.
        """
        negative, negatives = every - positive, cells - positives
        on = (F.softplus(-logits) * positive).sum() / torch.where(positives > 0, positives, 1.0)
        off = (F.softplus(logits) * negative).sum() / torch.where(negatives > 0, negatives, 1.0)
        if self.reference_compat:
            on, off = on * (positives > 1), off * (positives > 0)
        return 0.5 * (on + off)

    def decode(self, outputs: Mapping[str, torch.Tensor], window_penalty: float) -> Decoded:
        """The best box of each sample; see ``ltr.models.tracking.ocean.decode``."""
        return decode(outputs, window_penalty, self.search_size)
