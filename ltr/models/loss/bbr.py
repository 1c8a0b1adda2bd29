"""Regression of dense boxes, each given by the distances from its cell (Mayer et al., ToMP, CVPR 2022)."""

from __future__ import annotations

import torch
from torch import nn

from ltr.data.bbox import iou_xyxy


class GIoULoss(nn.Module):
    """``1 - GIoU`` of the boxes at the cells of a region (Rezatofighi et al., CVPR 2019)."""

    def forward(
        self, predicted: torch.Tensor, target: torch.Tensor, region: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean over the region's cells, 0 where it has none, and the IoU of every cell.

        Args:
            predicted, target: distances to the box's left, top, right and bottom ``[..., 4, H, W]``, negative
                beyond it, in any unit in which boxes are not much smaller than 1e-3.
            region: which cells count, bool or 0 and 1, ``[..., 1, H, W]``; None: all.

        Returns:
            a scalar, and ``[..., H, W]``.
        """
        iou, giou = iou_xyxy(_corners(predicted), _corners(target))
        loss = 1 - giou
        if region is None:
            return loss.mean(), iou
        weight = region.squeeze(-3).to(loss.dtype).expand_as(loss)
        return (loss * weight).sum() / weight.sum().clamp(min=1), iou


def _corners(distances: torch.Tensor) -> torch.Tensor:
    """Boxes ``[..., H, W, 4]`` (left, top, right, bottom) relative to their cells."""
    left, top, right, bottom = distances.unbind(-3)
    return torch.stack([-left, -top, right, bottom], -1)
