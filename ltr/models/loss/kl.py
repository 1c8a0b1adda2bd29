"""Losses of probabilistic regression: the network's scores are energies of a density over boxes or positions.

Scores ``s(y)`` stand for the density ``p(y) = exp(s(y)) / Z`` with ``Z`` the integral of ``exp(s)``. Its negative
log-likelihood under the density ``g`` of the annotation is ``log Z - integral of s g``: the Kullback-Leibler
divergence of ``p`` from ``g`` up to a constant (Danelljan, Van Gool, Timofte, PrDiMP, CVPR 2020; maximum
likelihood: Gustafsson et al., BMVC 2020). The integrals are estimated with samples drawn from a proposal
density ``q``, each weighted by ``1 / q``, or with a grid.
"""

from __future__ import annotations

import math

import torch
from torch import nn


class KLRegression(nn.Module):
    """Divergence from the annotation's density, integrated over samples.

    Args:
        eps: added to the proposal density, which limits the weight of a sample.
    """

    def __init__(self, *, eps: float = 0.0) -> None:
        super().__init__()
        self.eps = eps

    def forward(
        self, scores: torch.Tensor, sample_density: torch.Tensor, gt_density: torch.Tensor
    ) -> torch.Tensor:
        """The mean over all sets of samples: a scalar.

        Args:
            scores: energies ``[..., P]`` of P samples.
            sample_density: proposal density of the samples ``[..., P]``, positive.
            gt_density: the annotation's density at the samples ``[..., P]``.
        """
        density = sample_density + self.eps
        return (_log_integral(scores, density) - (scores * (gt_density / density)).mean(-1)).mean()


class MLRegression(nn.Module):
    """Negative log-likelihood of the annotation itself, which is the first sample.

    Args:
        eps: added to the proposal density, which limits the weight of a sample.
    """

    def __init__(self, *, eps: float = 0.0) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, scores: torch.Tensor, sample_density: torch.Tensor) -> torch.Tensor:
        """The mean over all sets of samples: a scalar.

        Args:
            scores: energies ``[..., 1 + P]``: of the annotation, then of P samples.
            sample_density: their proposal density ``[..., 1 + P]``; the first is not used.
        """
        return (_log_integral(scores[..., 1:], sample_density[..., 1:] + self.eps) - scores[..., 0]).mean()


class KLRegressionGrid(nn.Module):
    """Divergence from the annotation's density, integrated over a grid.

    Args:
        cell: area of a grid cell, in the units of the density.
    """

    def __init__(self, *, cell: float = 1.0) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, scores: torch.Tensor, gt_density: torch.Tensor) -> torch.Tensor:
        """The mean over all maps: a scalar.

        Args:
            scores: energies ``[..., H, W]``.
            gt_density: the annotation's density ``[..., H, W]``; its sum times ``cell`` is 1.
        """
        expected = self.cell * (scores * gt_density).sum((-2, -1))
        return (scores.logsumexp((-2, -1)) + math.log(self.cell) - expected).mean()


def _log_integral(scores: torch.Tensor, density: torch.Tensor) -> torch.Tensor:
    """``log Z`` from samples ``[..., P]``: ``[...]``."""
    return (scores - density.log()).logsumexp(-1) - math.log(scores.shape[-1])
