"""What a filter is fitted to: how far scores are from what they should be, as a function of the scores.

Each is ``sum_f w_f l_f(s_f)`` of the score maps of a sequence and gives three things to an optimiser: the value, the
slope, which is the derivative by the scores, and the curvature along a change of the scores. Shapes: F frames,
S sequences, score maps h x w.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import nn

from ltr.models.layers.activation import BentIdentPar, LeakyReLUPar, score_activation


class Objective(Protocol):
    """A loss of score maps."""

    def value(self, scores: torch.Tensor) -> torch.Tensor:
        """The loss, ``[F, S, h, w]`` to ``[S]``."""

    def slope(self, scores: torch.Tensor) -> torch.Tensor:
        """The derivative by the scores, ``[F, S, h, w]``."""

    def curvature(self, scores: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
        """The second derivative along the change ``along`` of the scores, ``[S]``, never negative."""


class SquaredError(NamedTuple):
    """``sum r^2`` with the residuals ``r = v (a(s, m) - y)``; slope and curvature are those of half of it.

    The curvature is that of the linearised residuals (Gauss-Newton): ``|v a'(s, m) along|^2``.
    """

    label: torch.Tensor  # y, [F, S, h, w]
    mask: torch.Tensor  # m, [F, S, h, w]: 1 where scores count as they are, 0 where those below 0 count as 0
    weight: torch.Tensor  # v, [F, S, h, w]
    activation: LeakyReLUPar | BentIdentPar  # a

    def value(self, scores: torch.Tensor) -> torch.Tensor:
        """See ``Objective.value``."""
        return self._residuals(scores).square().sum((0, 2, 3))

    def slope(self, scores: torch.Tensor) -> torch.Tensor:
        """See ``Objective.slope``."""
        return self.weight * self.activation.slope(scores, self.mask) * self._residuals(scores)

    def curvature(self, scores: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
        """See ``Objective.curvature``."""
        change = self.weight * self.activation.slope(scores, self.mask) * along
        return change.square().sum((0, 2, 3))

    def _residuals(self, scores: torch.Tensor) -> torch.Tensor:
        return self.weight * (self.activation.value(scores, self.mask) - self.label)


class KLDivergence(NamedTuple):
    """``sum_f w (log sum exp s - sum p s)``, up to a constant the divergence of the softmax q of s from p.

    The curvature ``w (sum q along^2 - (sum q along)^2)`` is exact: this loss is convex in the scores.
    """

    density: torch.Tensor  # p, [F, S, h, w]
    weight: torch.Tensor  # w, [F, S, 1, 1]

    def value(self, scores: torch.Tensor) -> torch.Tensor:
        """See ``Objective.value``."""
        cross = scores.logsumexp((2, 3), keepdim=True) - (self.density * scores).sum((2, 3), keepdim=True)
        return (self.weight * cross).sum((0, 2, 3))

    def slope(self, scores: torch.Tensor) -> torch.Tensor:
        """See ``Objective.slope``."""
        return self.weight * (self._softmax(scores) - self.density)

    def curvature(self, scores: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
        """See ``Objective.curvature``."""
        q = self._softmax(scores)
        weighted = q * along
        mean = weighted.sum((2, 3), keepdim=True)
        variance = (along * (weighted - q * mean)).sum((2, 3), keepdim=True)
        return (self.weight * variance.clamp(min=0)).sum((0, 2, 3))  # rounding may make it negative

    @staticmethod
    def _softmax(scores: torch.Tensor) -> torch.Tensor:
        return scores.flatten(2).softmax(2).view_as(scores)


class HingeResidual(nn.Module):
    """The residuals of SuperDiMP-simple: labels from outside, and nothing learned but the regularisation.

    Where the label is above the threshold the score shall be the label; elsewhere it shall be ``leak`` times
    the label, and scores below 0 count only ``leak`` times.

    Args:
        init_filter_reg: first root of the weight of ``|filter|^2``.
        threshold: of the label.
        leak: in [0, 1].
        activation: "relu" or "bentpar", see ``score_activation``.
        act_param: its parameter.
    """

    def __init__(
        self,
        *,
        init_filter_reg: float,
        threshold: float,
        leak: float,
        activation: str = "relu",
        act_param: float | None = None,
    ) -> None:
        super().__init__()
        self.filter_reg = nn.Parameter(torch.full((1,), init_filter_reg))
        self.threshold, self.leak = threshold, leak
        self.activation = score_activation(activation, act_param)

    def forward(self, labels: torch.Tensor, sample_weight: torch.Tensor) -> SquaredError:
        """The objective for labels ``[F, S, h, w]`` and weights of the frames ``[F, S, 1, 1]``."""
        mask = ((labels > self.threshold).to(labels.dtype) + self.leak).clamp(max=1)
        return SquaredError(mask * labels, mask, sample_weight.sqrt(), self.activation)
