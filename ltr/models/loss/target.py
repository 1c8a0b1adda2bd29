"""Losses and accuracy of target score maps.

A map is ``[..., H, W]``; what stands before rows and columns (frames, sequences) is up to the caller. ``valid [...]``
says which maps count: bool, or 0 and 1. Means are over the maps that count; without any they are 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

_PRESENT = 0.25  # a label map that reaches no higher shows no target


def mean_of_maps(per_map: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """The mean of one number per map ``[...]`` over the maps that count (scalar)."""
    if valid is None:
        return per_map.mean()
    weight = valid.to(per_map.dtype)
    return (per_map * weight).sum() / weight.sum().clamp(min=1)


class LBHinge(nn.Module):
    """Squared error with a hinge on the background (Bhat et al., DiMP, ICCV 2019, eq. 2).

    Where the label is below the threshold only a positive prediction is wrong: the classifier may say
    anything below zero about the background.

    Args:
        threshold: labels below it are background; None: plain squared error.
        clip: an upper limit of the mean, from which on it has no gradient; None: none.
    """

    def __init__(self, *, threshold: float | None = None, clip: float | None = None) -> None:
        super().__init__()
        self.threshold, self.clip = threshold, clip

    def forward(
        self, prediction: torch.Tensor, label: torch.Tensor, valid: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The mean over all maps that count: a scalar.

        Args:
            prediction, label: ``[..., H, W]``.
            valid: ``[...]``; None: all maps count.
        """
        loss = mean_of_maps(self.per_map(prediction, label), valid)
        return loss if self.clip is None else loss.clamp(max=self.clip)

    def per_map(
        self, prediction: torch.Tensor, label: torch.Tensor, valid: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The mean of each map ``[...]``; 0 for those that do not count."""
        error = prediction - label
        if self.threshold is not None:
            error = torch.where(label < self.threshold, F.relu(prediction), error)
        loss = error.square().mean((-2, -1))
        return loss if valid is None else loss * valid.to(loss.dtype)


class IsTargetCellLoss(nn.Module):
    """Binary cross entropy of "this cell is the target" (Bhat et al., KYS, ECCV 2020).

    Args:
        logits: predictions are logits; otherwise probabilities.
    """

    def __init__(self, *, logits: bool = True) -> None:
        super().__init__()
        self.entropy = F.binary_cross_entropy_with_logits if logits else F.binary_cross_entropy

    def forward(
        self, prediction: torch.Tensor, is_target: torch.Tensor, valid: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The mean over all maps that count: a scalar.

        Args:
            prediction: ``[..., H, W]``.
            is_target: 0 or 1, bool or float, of the same shape.
            valid: ``[...]``; None: all maps count.
        """
        return mean_of_maps(self.per_map(prediction, is_target), valid)

    def per_map(self, prediction: torch.Tensor, is_target: torch.Tensor) -> torch.Tensor:
        """The mean of each map ``[...]``."""
        return self.entropy(prediction, is_target.to(prediction.dtype), reduction="none").mean((-2, -1))


class FocalLoss(nn.Module):
    """Cross entropy that turns to the cells that are still wrong (Lin et al., ICCV 2017), for soft labels.

    Args:
        gamma: 0 is plain cross entropy; the larger, the less the cells count that are right already.
        alpha: weight of the target, ``1 - alpha`` of the background; None: both count fully.
    """

    def __init__(self, *, gamma: float = 2.0, alpha: float | None = None) -> None:
        super().__init__()
        self.gamma, self.alpha = gamma, alpha

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """The mean over all cells: a scalar.

        Args:
            logits: any shape.
            label: in [0, 1], of the same shape.
        """
        entropy = F.binary_cross_entropy_with_logits(logits, label, reduction="none")
        probability = logits.sigmoid()
        wrong = probability + label - 2 * probability * label  # expected, when the label is a probability too
        loss = entropy * wrong**self.gamma
        if self.alpha is not None:
            loss = loss * (self.alpha * label + (1 - self.alpha) * (1 - label))
        return loss.mean()


class TrackingClassificationAccuracy(nn.Module):
    """How often the highest score lies on the target, or off it where the map shows none.

    Args:
        threshold: label value from which a cell is on the target.
    """

    def __init__(self, *, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(
        self, prediction: torch.Tensor, label: torch.Tensor, valid: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The share of maps that are right, and which are.

        Args:
            prediction, label: ``[..., H, W]``.
            valid: ``[...]``; None: all maps count.

        Returns:
            a scalar, and 0 or 1 for each map ``[...]``, whether or not it counts.
        """
        peak = prediction.flatten(-2).argmax(-1, keepdim=True)
        labels = label.flatten(-2)
        found = labels.gather(-1, peak)[..., 0] >= self.threshold
        highest = labels.amax(-1)
        right = torch.where(found, highest > _PRESENT, highest < _PRESENT).to(prediction.dtype)
        return mean_of_maps(right, valid), right
