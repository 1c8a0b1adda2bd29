"""Normalisation of features."""

from __future__ import annotations

import math

import torch
from torch import nn


class InstanceL2Norm(nn.Module):
    """Features of every image scaled to a given L2 norm.

    Args:
        scale: root of the mean square afterwards, or the norm itself with ``mean=False``.
        mean: divide by the root of the mean square and not by the norm.
        eps: added to the sum of squares.
    """

    def __init__(self, scale: float = 1.0, *, mean: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.scale, self.mean, self.eps = scale, mean, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, C, H, W]`` to the same shape and type; sixteen bits are summed in float32."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        norm = (wide.square().sum((1, 2, 3), keepdim=True) + self.eps).sqrt()
        factor = self.scale * (math.sqrt(x[0].numel()) if self.mean else 1.0)
        return (wide * (factor / norm)).to(x.dtype)
