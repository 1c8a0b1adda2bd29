"""Losses of TransT (Chen et al., CVPR 2021) with the IoU prediction of SPOT (TIP 2024)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import nn

from ltr.data.bbox import cxcywh_to_xyxy, iou_xyxy
from ltr.models.tracking.transt import Decoded, decode, map_side

RING = 3  # cells around the target in which the IoU prediction is trained too


def target_cells(target_cxcywh_norm: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which cells of a ``size x size`` map lie on the target, and which in the ring around it.

    A box that is thinner than a cell still takes one, the next to the right and below (published so; at the far
    border there is none); a box outside the crop takes none.

    Args:
        target_cxcywh_norm: ``[B, 4]``, fractions of the crop.

    Returns:
        two boolean masks ``[B, size * size]``, rows first.
    """
    corners = (cxcywh_to_xyxy(target_cxcywh_norm.float()) * size).ceil()
    first, last = corners[:, :2].clamp(min=0), corners[:, 2:].clamp(max=size)
    last = torch.where(first == last, last + 1, last)

    def inside(first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        cell = torch.arange(size, device=first.device)
        x, y = ((cell >= first[:, axis, None]) & (cell < last[:, axis, None]) for axis in (0, 1))
        return (y[:, :, None] & x[:, None, :]).flatten(1)

    positive = inside(first, last)
    return positive, inside(first - RING, last + RING) & ~positive


class TransTObjective(nn.Module):
    """Classification of all cells, box regression at the target's cells, IoU prediction on and around it.

    Args:
        ce: weight of the cross entropy.
        bbox: weight of the L1 distance of boxes.
        giou: weight of 1 - GIoU.
        iou: weight of the IoU prediction, on labelled samples only.
        background: weight of the background class in the cross entropy.
        mean_over_ranks: averages a tensor over the training processes, so that averaged gradients
            equal those of one process with the whole batch.
    """

    def __init__(
        self,
        *,
        ce: float = 8.334,
        bbox: float = 5.0,
        giou: float = 2.0,
        iou: float = 1.0,
        background: float = 0.0625,
        mean_over_ranks: Callable[[torch.Tensor], torch.Tensor] = lambda value: value,
    ) -> None:
        super().__init__()
        self.weights = {"loss_ce": ce, "loss_bbox": bbox, "loss_giou": giou, "loss_iou_pred": iou}
        self.background = background
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
            outputs: what the network returns for a square search crop.
            target_cxcywh_norm: ``[B, 4]``, fractions of the crop; parts outside are fine.
            labelled: whether people drew the targets; only then the IoU prediction is trained.
            weight: of each sample ``[B]``, default 1; 0 leaves it out.

        Returns:
            the loss (scalar), and detached scalars: the terms before weighting (``loss_ce``,
            ``loss_bbox``, ``loss_giou``, where labelled ``loss_iou_pred``) and ``iou``, the mean
            IoU at the target's cells.
        """
        logits, boxes = outputs["pred_logits"].float(), outputs["pred_boxes"].float()
        target = target_cxcywh_norm.float()
        on_target, in_ring = target_cells(target, map_side(logits.shape[1]))
        sample = torch.ones_like(target[:, :1]) if weight is None else weight.float()[:, None]
        positive, ring = on_target * sample, in_ring * sample
        cell = torch.where(on_target, 1.0, self.background) * sample
        counts = self.mean_over_ranks(torch.stack([cell.sum(), positive.sum(), ring.sum()]))
        cells, positives, rings = torch.where(counts > 0, counts, 1.0)  # without any the sum is 0 too

        entropy = F.cross_entropy(logits.transpose(1, 2), (~on_target).long(), reduction="none")
        distance = (boxes - target[:, None]).abs().sum(-1)
        iou, giou = iou_xyxy(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target)[:, None])
        terms = {
            "loss_ce": (entropy * cell).sum() / cells,
            "loss_bbox": (distance * positive).sum() / positives,
            "loss_giou": ((1 - giou) * positive).sum() / positives,
        }
        if labelled and "pred_ious" in outputs:
            miss = (outputs["pred_ious"].float()[..., 0] - iou.detach()).abs()
            terms["loss_iou_pred"] = (miss * positive).sum() / positives + (miss * ring).sum() / rings
        loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        stats = {name: term.detach() for name, term in terms.items()}
        stats["iou"] = (iou.detach() * positive).sum() / positives
        return loss, stats

    def decode(self, outputs: Mapping[str, torch.Tensor], window_penalty: float) -> Decoded:
        """The best box of each sample; see ``ltr.models.tracking.transt.decode``."""
        return decode(outputs, window_penalty)
