"""Segmentation losses that are the Jaccard index made differentiable.

The Lovász extension sorts the pixels by error, worst first, and weights each with what it adds to the Jaccard
loss ``1 - |A and B| / |A or B|`` of those before it (Berman, Rannen Triki, Blaschko, CVPR 2018).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class LovaszSegLoss(nn.Module):
    """Lovász-Softmax of one foreground class: errors are the distances of probabilities from the mask.

    Images without foreground count too: their loss is the largest probability.

    Args:
        per_image: the mean of each image's loss; otherwise all pixels of the batch are one image.
    """

    def __init__(self, *, per_image: bool = True) -> None:
        super().__init__()
        self.per_image = per_image

    def forward(self, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """A scalar.

        Args:
            logits: ``[N, ...]``, images first.
            mask: 0 or 1, bool or float, of the same shape.
        """
        logits, mask = (value.flatten(1 if self.per_image else 0) for value in (logits, mask))
        mask = mask.to(logits.dtype)
        return lovasz((mask - logits.sigmoid()).abs(), mask).mean()


class LovaszHinge(nn.Module):
    """Lovász hinge: errors are the hinge losses ``max(0, 1 - logit)`` of foreground, ``1 + logit`` of background."""

    def forward(self, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The mean of each image's loss: a scalar; arguments as for ``LovaszSegLoss``."""
        logits, mask = logits.flatten(1), mask.flatten(1).to(logits.dtype)
        # Sorted before the hinge: among the pixels without a loss the order would be arbitrary.
        return lovasz(1 - logits * (2 * mask - 1), mask).mean()


def lovasz(errors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The Lovász extension of the Jaccard loss; errors below zero count as none.

    Args:
        errors: how wrong each pixel is ``[..., P]``.
        mask: 0 or 1 ``[..., P]``.

    Returns:
        ``[...]``.
    """
    errors, order = errors.sort(-1, descending=True)
    foreground = mask.gather(-1, order)
    size = foreground.sum(-1, keepdim=True)
    jaccard = 1 - (size - foreground.cumsum(-1)) / (size + (1 - foreground).cumsum(-1))
    return (F.relu(errors) * jaccard.diff(dim=-1, prepend=torch.zeros_like(size))).sum(-1)
