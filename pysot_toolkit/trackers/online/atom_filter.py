"""ATOM's online classifier: a projection of backbone features to a few channels and a filter on them.

Both are learned on the first frame by Gauss-Newton, then the filter alone by conjugate gradient, on the residuals

    sqrt(weight) (mlu(filter * (P x)) - label),  sqrt(filter_reg) filter,  sqrt(projection_reg) P

(Danelljan et al., ATOM: Accurate Tracking by Overlap Maximization, CVPR 2019, 4.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ltr.models.layers.activation import mlu, mlu_slope
from ltr.models.layers.filter import apply_filter, apply_transpose
from ltr.ops.optimization import Optimum, Tensors, conjugate_gradient, gauss_newton

ACTIVATION_FLOOR = 0.05  # of the MLU


class Regularisation(NamedTuple):
    """Weights of the squared filter and the squared projection."""

    filter: float = 0.1
    projection: float = 1e-4


class Training(NamedTuple):
    """What is learned from."""

    samples: torch.Tensor  # [N, C, h, w]
    labels: torch.Tensor  # [N, h, w]
    weights: torch.Tensor  # [N], sum 1


def project(samples: torch.Tensor, projection: torch.Tensor) -> torch.Tensor:
    """Samples ``[N, C', h, w]`` with the channels of ``projection [C, C', 1, 1]``: ``[N, C, h, w]``."""
    return (projection.flatten(1) @ samples.flatten(2)).view(len(samples), -1, *samples.shape[2:])


def classify(samples: torch.Tensor, filter: torch.Tensor) -> torch.Tensor:
    """Scores of projected samples ``[N, C, h, w]`` by a filter ``[1, C, k, l]``: ``[N, h, w]``.

    The score at (y, x) is the filter's with its tap (k // 2, l // 2) there: an even filter's middle lies half a cell
    further up and left.
    """
    return apply_filter(samples[:, None], filter)[:, 0, : samples.shape[2], : samples.shape[3]]


def learn_both(
    data: Training,
    filter: torch.Tensor,
    projection: torch.Tensor,
    iterations: Sequence[int],
    reg: Regularisation,
) -> Optimum:
    """Filter and projection on unprojected samples, with conjugate-gradient ``iterations`` per linearisation."""

    def residuals(x: Tensors) -> Tensors:
        errors = _residuals(data, project(data.samples, x[1]), x[0], reg)
        return (*errors, math.sqrt(reg.projection) * x[1])

    def precondition(r: Tensors) -> Tensors:
        return r[0] / reg.filter, r[1] / reg.projection

    return gauss_newton(residuals, (filter, projection), iterations, precondition=precondition)


def learn_filter(data: Training, filter: torch.Tensor, iterations: int, reg: Regularisation) -> Optimum:
    """The filter on projected samples, by conjugate gradient on the residuals linearised once.

    With the scores ``s = X f`` of all samples and the slope ``m`` of the activation in them, ``J p`` is
    ``sqrt(weight) m (X p)``, and ``J^T J p`` is ``X^T (weight m^2 (X p)) + filter_reg p``.
    """
    kernel = (filter.shape[-2], filter.shape[-1])

    def back(by_scores: torch.Tensor) -> torch.Tensor:
        return apply_transpose(data.samples[:, None], _whole(by_scores, kernel)[:, None], kernel)

    def normal(p: Tensors) -> Tensors:
        return (back(curvature * classify(data.samples, p[0])) + reg.filter * p[0],)

    weights, scores = data.weights[:, None, None], classify(data.samples, filter)
    slope = mlu_slope(scores, ACTIVATION_FLOOR)
    errors, curvature = mlu(scores, ACTIVATION_FLOOR) - data.labels, weights * slope.square()
    gradient = back(weights * slope * errors) + reg.filter * filter
    solution = conjugate_gradient(normal, (-gradient,), iterations, fletcher_reeves=False)
    loss = (weights * errors.square()).sum() + reg.filter * filter.square().sum()
    return Optimum((filter + solution.x[0],), loss[None], solution.residual_norms, solution.directions)


def _whole(scores: torch.Tensor, kernel: tuple[int, int]) -> torch.Tensor:
    """Scores ``[N, h, w]`` with zeros where ``classify`` leaves out an even filter's last row and column."""
    return F.pad(scores, (0, 1 - kernel[1] % 2, 0, 1 - kernel[0] % 2))


def _residuals(data: Training, samples: torch.Tensor, filter: torch.Tensor, reg: Regularisation) -> Tensors:
    errors = mlu(classify(samples, filter), ACTIVATION_FLOOR) - data.labels
    return data.weights.sqrt()[:, None, None] * errors, math.sqrt(reg.filter) * filter
