"""The filter that separates a target from its background, by a few steps of steepest descent."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn

from ltr.models.layers.activation import score_activation
from ltr.models.layers.distance import radial_functions
from ltr.models.layers.filter import Size, apply_filter, apply_transpose
from ltr.models.target_classifier.residual_modules import HingeResidual, KLDivergence, Objective, SquaredError

LEAST_CURVATURE = 1e-8  # so that a gradient of zero gives a step of zero


class Optimised(NamedTuple):
    """What optimisation gives, float32."""

    filter: torch.Tensor  # [S, C, k, k], after the last iteration
    filters: torch.Tensor  # [iterations + 1, S, C, k, k], the first is the initial one
    losses: torch.Tensor  # [iterations + 1, S], value(s) + reg |w|^2 for each of these


class SteepestDescent(nn.Module):
    """Fits one filter per sequence to frames in which the target's box is known.

    A filter w gives the features x_f of frame f the score map s_f = x_f * w. It shall make small

        L(w) = sum_f w_f l(s_f) + reg / 2 |w|^2

    with a weight w_f per frame and a loss l of score maps (``ltr.models.target_classifier.residual_modules``).
    Each iteration goes against the gradient, as far as the minimum of a quadratic model of L on that line:

        g     = sum_f w_f x_f^T (dl / ds_f) + reg w                  the gradient
        d_f   = x_f * g                                              how the scores change along it
        h     = sum_f w_f d_f^T (d^2 l / ds_f^2) d_f + reg |g|^2     the curvature along it
        alpha = |g|^2 / (h + damping |g|^2)
        w    <- w - step alpha g,    s_f <- s_f - step alpha d_f

    Scores are linear in the filter, so that they follow it without another pass over the features: an iteration
    passes twice. Everything is differentiable, also in reg and step, which are learned together with the features:
    the iterations are layers of the network. For a squared loss d^2 l / ds^2 is that of the linearised residuals
    (Gauss-Newton), for the KL divergence it is exact (Newton). Sequences do not see each other, and nothing waits
    for the device.

    Bhat et al., Learning Discriminative Model Prediction for Tracking, ICCV 2019 (squared residuals);
    Danelljan et al., Probabilistic Regression for Visual Tracking, CVPR 2020 (KL divergence).

    Args:
        num_iter: iterations, where a call does not say how many.
    """

    damping = 0.0

    def __init__(self, num_iter: int) -> None:
        super().__init__()
        self.num_iter = num_iter

    def objective(
        self,
        bboxes: torch.Tensor,
        labels: torch.Tensor | None,
        sample_weight: torch.Tensor,
        kernel: Size,
        size: Size,
    ) -> Objective:
        """The loss of the score maps.

        Args:
            bboxes, labels: as for ``forward``.
            sample_weight: ``[F, S, 1, 1]``.
            kernel: size of the filter.
            size: size of the score maps.
        """
        raise NotImplementedError

    def regularisation(self) -> torch.Tensor:
        """The weight of the squared filter, ``[1]``."""
        raise NotImplementedError

    def step_factor(self) -> torch.Tensor | float:
        """How long a step is, in parts of that to the minimum."""
        return 1.0

    def forward(
        self,
        filter: torch.Tensor,
        features: torch.Tensor,
        bboxes: torch.Tensor,
        *,
        labels: torch.Tensor | None = None,
        sample_weight: torch.Tensor | None = None,
        num_iter: int | None = None,
    ) -> Optimised:
        """Optimise the filters of S sequences on F frames each; in float32 also under autocast.

        Args:
            filter: where to begin, ``[S, C, k, k]``.
            features: ``[F, S, C, h, w]``.
            bboxes: the target, ``[F, S, 4]`` (x, y, w, h), px of the images.
            labels: wanted scores ``[F, S, h', w']`` where the objective takes them from outside; see
                ``score_size`` for their size.
            sample_weight: of the frames, ``[F, S]``, with a sum of 1 over the frames; None: all alike.
            num_iter: iterations; None: as many as the constructor said.
        """
        kind = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            filter, features, bboxes = filter.to(kind), features.to(kind), bboxes.to(kind)
            frames, sequences = features.shape[:2]
            if sample_weight is None:
                sample_weight = features.new_full((frames, sequences), 1 / frames)
            kernel = (filter.shape[-2], filter.shape[-1])
            scores = apply_filter(features, filter)
            objective = self.objective(
                bboxes,
                None if labels is None else labels.to(kind),
                sample_weight.to(kind)[:, :, None, None],
                kernel,
                (scores.shape[-2], scores.shape[-1]),
            )
            reg, factor = self.regularisation(), self.step_factor()

            filters, values = [filter], [objective.value(scores)]
            for _ in range(self.num_iter if num_iter is None else num_iter):
                gradient = apply_transpose(features, objective.slope(scores), kernel) + reg * filter
                along = apply_filter(features, gradient)
                squared = gradient.square().sum((1, 2, 3))
                curvature = objective.curvature(scores, along) + (reg + self.damping) * squared
                step = factor * squared / curvature.clamp(min=LEAST_CURVATURE)
                filter = filter - step[:, None, None, None] * gradient
                scores = scores - step[:, None, None] * along
                filters.append(filter)
                values.append(objective.value(scores))
            iterates = torch.stack(filters)
            losses = torch.stack(values) + reg * iterates.square().sum((2, 3, 4))
            return Optimised(filter, iterates, losses)


class DiMPOptimizer(SteepestDescent):
    """Squared residuals whose label, mask and weight are learned functions of the distance to the target's centre.

    Args:
        num_iter: see ``SteepestDescent``.
        stride: px per feature cell.
        init_step_length: first factor of the steps.
        init_filter_reg: first root of the weight of ``|filter|^2``.
        init_gauss_sigma: of the first label, cells.
        num_dist_bins: knots of the learned functions.
        bin_displacement: cells from one to the next.
        mask_init_factor: logit of the first mask at the target.
        score_act: "relu" or "bentpar", see ``score_activation``.
        act_param: its parameter.
    """

    least_reg = 1e-6

    def __init__(
        self,
        *,
        num_iter: int,
        stride: int,
        init_step_length: float,
        init_filter_reg: float,
        init_gauss_sigma: float,
        num_dist_bins: int,
        bin_displacement: float,
        mask_init_factor: float,
        score_act: str = "relu",
        act_param: float | None = None,
    ) -> None:
        super().__init__(num_iter)
        self.stride, self.spacing = stride, bin_displacement
        self.activation = score_activation(score_act, act_param)
        self.log_step_length = nn.Parameter(torch.full((1,), math.log(init_step_length)))
        self.filter_reg = nn.Parameter(torch.full((1,), init_filter_reg))
        distance = torch.arange(num_dist_bins) * bin_displacement
        gauss = (-0.5 * (distance / init_gauss_sigma).square()).exp()
        # Published files hold the values at the knots as weights of 1x1 convolutions.
        self.label_map_predictor = _knots(gauss - gauss.min())
        self.target_mask_predictor = nn.Sequential(_knots(mask_init_factor * torch.tanh(2 - distance)))
        self.spatial_weight_predictor = _knots(torch.ones(num_dist_bins))

    def regularisation(self) -> torch.Tensor:
        """See ``SteepestDescent.regularisation``."""
        return self.filter_reg.square().clamp(min=self.least_reg)

    def step_factor(self) -> torch.Tensor:
        """See ``SteepestDescent.step_factor``."""
        return self.log_step_length.exp()

    def objective(
        self,
        bboxes: torch.Tensor,
        labels: torch.Tensor | None,
        sample_weight: torch.Tensor,
        kernel: Size,
        size: Size,
    ) -> SquaredError:
        """See ``SteepestDescent.objective``; labels from outside are not looked at."""
        learned = (self.label_map_predictor, self.target_mask_predictor, self.spatial_weight_predictor)
        values = torch.cat([knots.flatten(1) for module in learned for knots in module.parameters()])
        places = centres(bboxes, self.stride, kernel).flatten(0, 1)
        maps = radial_functions(values, self.spacing, places, size)
        label, logit, weight = maps.view(3, *bboxes.shape[:2], *size)
        return SquaredError(label, logit.sigmoid(), sample_weight.sqrt() * weight, self.activation)


class PrDiMPOptimizer(SteepestDescent):
    """The KL divergence of the scores' softmax from a Gaussian about the target's centre.

    The losses count ``reg |w|^2``, of which the descent, as published, minimises half.

    Args:
        num_iter: see ``SteepestDescent``.
        stride: px per feature cell.
        init_step_length: first factor of the steps.
        init_filter_reg: first root of the weight of ``|filter|^2``.
        min_filter_reg: least root of it.
        gauss_sigma: of the density, cells.
        alpha_eps: damping of the steps.
        normalize_label: let the density sum to 1 over the map, also where part of it lies outside.
    """

    def __init__(
        self,
        *,
        num_iter: int,
        stride: int,
        init_step_length: float,
        init_filter_reg: float,
        min_filter_reg: float,
        gauss_sigma: float,
        alpha_eps: float,
        normalize_label: bool,
    ) -> None:
        super().__init__(num_iter)
        self.stride, self.sigma, self.normalize = stride, gauss_sigma, normalize_label
        self.least_reg, self.damping = min_filter_reg**2, alpha_eps
        self.log_step_length = nn.Parameter(torch.full((1,), math.log(init_step_length)))
        self.filter_reg = nn.Parameter(torch.full((1,), init_filter_reg))

    def regularisation(self) -> torch.Tensor:
        """See ``SteepestDescent.regularisation``."""
        return self.filter_reg.square().clamp(min=self.least_reg)

    def step_factor(self) -> torch.Tensor:
        """See ``SteepestDescent.step_factor``."""
        return self.log_step_length.exp()

    def objective(
        self,
        bboxes: torch.Tensor,
        labels: torch.Tensor | None,
        sample_weight: torch.Tensor,
        kernel: Size,
        size: Size,
    ) -> KLDivergence:
        """See ``SteepestDescent.objective``; labels from outside are not looked at."""
        centre = centres(bboxes, self.stride, kernel)
        down, across = (
            torch.exp(
                -0.5 * ((torch.arange(n, device=centre.device) - centre[..., axis, None]) / self.sigma) ** 2
            )
            for axis, n in enumerate(size)
        )
        density = down[..., None] * across[..., None, :] / (2 * math.pi * self.sigma**2)
        if self.normalize:
            density = density / (density.sum((2, 3), keepdim=True) + 1e-8)
        return KLDivergence(density, sample_weight)


class HingeOptimizer(SteepestDescent):
    """Squared residuals for labels from outside, with steps of their own length (SuperDiMP-simple).

    Args:
        num_iter: see ``SteepestDescent``.
        residual: the residuals.
    """

    def __init__(self, *, num_iter: int, residual: HingeResidual) -> None:
        super().__init__(num_iter)
        self.residual_module = residual

    def regularisation(self) -> torch.Tensor:
        """See ``SteepestDescent.regularisation``."""
        return self.residual_module.filter_reg.square()

    def objective(
        self,
        bboxes: torch.Tensor,
        labels: torch.Tensor | None,
        sample_weight: torch.Tensor,
        kernel: Size,
        size: Size,
    ) -> SquaredError:
        """See ``SteepestDescent.objective``.

        Raises:
            ValueError: no labels, or of another size than the scores.
        """
        if labels is None or labels.shape[-2:] != size:
            raise ValueError(
                f"labels {None if labels is None else list(labels.shape)}: [F, S, {size[0]}, {size[1]}] are needed"
            )
        return self.residual_module(labels, sample_weight)


def centres(bboxes: torch.Tensor, stride: int, kernel: Size) -> torch.Tensor:
    """Centres of boxes ``[..., 4]`` (x, y, w, h) px on the score map of a filter, ``[..., 2]`` (row, column), cells.

    An odd filter's scores belong to the middle of a cell, an even one's to the corner of cells.
    """
    middle = (bboxes[..., :2] + bboxes[..., 2:] / 2) / stride
    return torch.stack([middle[..., 1] - kernel[0] % 2 / 2, middle[..., 0] - kernel[1] % 2 / 2], -1)


def _knots(values: torch.Tensor) -> nn.Conv2d:
    holder = nn.Conv2d(len(values), 1, 1, bias=False)
    holder.weight.data.copy_(values[None, :, None, None])
    return holder
