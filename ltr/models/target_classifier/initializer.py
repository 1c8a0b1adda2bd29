"""The filter from which optimisation starts. Bhat et al., DiMP, ICCV 2019, section 3.3."""

from __future__ import annotations

import torch
from torch import nn

from ltr.data.bbox import xywh_to_xyxy
from ltr.ops.prroi_pool import prroi_pool_grouped


class FilterInitializer(nn.Module):
    """The target's features after a convolution, pooled to the size of a filter and averaged over the frames.

    Args:
        channels: of the features.
        filter_size: side of the filter, cells.
        stride: px per cell.
        zero: begin training with a convolution of zeros, as PrDiMP does.
    """

    def __init__(self, channels: int, filter_size: int, stride: int, *, zero: bool = False) -> None:
        super().__init__()
        self.filter_size, self.stride = filter_size, stride
        self.filter_conv = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.filter_conv.parameters():
            nn.init.zeros_(parameter)
        if not zero:
            nn.init.kaiming_normal_(self.filter_conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: torch.Tensor, bboxes: torch.Tensor) -> torch.Tensor:
        """The filters of S sequences.

        Args:
            features: ``[F, S, C, h, w]``.
            bboxes: the target, ``[F, S, 4]`` (x, y, w, h), px of the images.

        Returns:
            ``[S, C, filter_size, filter_size]``.
        """
        regions = xywh_to_xyxy(bboxes).flatten(0, 1)[:, None]
        mapped = self.filter_conv(features.flatten(0, 1))
        pooled = prroi_pool_grouped(mapped, regions, self.filter_size, 1 / self.stride)
        return pooled.view(*features.shape[:3], *pooled.shape[-2:]).mean(0)
