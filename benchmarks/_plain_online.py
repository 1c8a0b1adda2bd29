"""The published formulations of DiMP's and ATOM's tracking over the same weights: what their speed is measured against.

The whole image becomes float32 before a patch is cut from it, batch norms stay, the IoU network's maps cover the
patch, are weighted for every scoring, and boxes are pooled from them and scored under autograd. DiMP's
filter is convolved anew in each of its iterations, by grouped convolutions; ATOM's conjugate gradient differentiates
twice. What is not timed (first frame, localisation, geometry) is the trackers' own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from ltr.data.augment import MEAN, STD
from ltr.data.bbox import xywh_to_xyxy
from ltr.models.bbreg.iou_net import BINS, STRIDES, Pair
from ltr.models.target_classifier.optimizer import DiMPOptimizer, centres
from ltr.ops.optimization import Tensors, gauss_newton
from ltr.ops.prroi_pool import prroi_pool_grouped
from pysot_toolkit.trackers.atom import ATOMParameters, ATOMTracker, upsampled
from pysot_toolkit.trackers.base import inference_autocast
from pysot_toolkit.trackers.dimp import DiMPTracker
from pysot_toolkit.trackers.online.parameters import OnlineParameters
from pysot_toolkit.trackers.online.sample_patch import patch_window
from pysot_toolkit.trackers.online.tracker import Features, OnlineTracker


class PlainPatch(NamedTuple):
    """A patch before it is resized."""

    pixels: torch.Tensor  # float32 [1, 3, rows, columns]
    box_yxyx: np.ndarray  # [4]


class PlainOnline(OnlineTracker):
    """What both have in common: patch, backbone, and boxes that climb."""

    def __init__(self, network, device: torch.device, parameters: OnlineParameters | None = None) -> None:  # type: ignore[no-untyped-def]
        super().__init__(network, device, parameters)
        self.network = copy.deepcopy(network).eval().requires_grad_(False).to(device)

    def crop(self, image: np.ndarray) -> PlainPatch:  # type: ignore[override]
        """See ``OnlineTracker.crop``; here on the device."""
        whole = torch.from_numpy(image).to(self.device).float().permute(2, 0, 1)[None].contiguous()
        p, (place, size) = self.parameters, self._patch_place(image)
        window = patch_window(image.shape[:2], place, size, self.output, p.border, p.max_shrink)
        (top, left), step = window.offset, window.step
        thin = whole[..., top::step, left::step]
        (y0, x0), (y1, x1) = window.first, window.last
        height, width = thin.shape[2:]
        padding = (-int(x0), int(x1) - width, -int(y0), int(y1) - height)
        return PlainPatch(F.pad(thin, padding, mode="replicate"), window.box_yxyx)

    def _images(self, crops: Sequence[PlainPatch]) -> torch.Tensor:  # type: ignore[override]
        size = [int(n) for n in self.output]
        return torch.cat([F.interpolate(crop.pixels, size, mode="bilinear") for crop in crops])

    def _extract(self, images: torch.Tensor) -> Features:
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        images = (images / 255 - mean) / std
        with torch.no_grad(), inference_autocast(self.device, "float32"):
            return self.network.extract_backbone(images.contiguous())

    def _climb(self, features: Pair, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps, boxes = self._iou_maps(features), start
        scores = boxes.new_zeros(boxes.shape[:2])
        for _ in range(self.parameters.refine.iterations):
            with torch.enable_grad():
                at = boxes.clone().detach().requires_grad_()
                found = self._predicted(maps, at)
                found.backward(torch.ones_like(found))
            assert at.grad is not None
            scores, step = found.detach(), self.parameters.refine.step[0]
            boxes = at.detach() + step * at.grad * at.detach()[..., 2:].repeat(1, 1, 2)
        return boxes, scores

    def _predicted(self, maps: Pair, boxes: torch.Tensor) -> torch.Tensor:
        network = self.network.bb_regressor
        regions, parts = xywh_to_xyxy(boxes), []
        for map_, weight, bins, stride, block in zip(
            maps, self.modulation, BINS, STRIDES, (network.fc3_rt, network.fc4_rt)
        ):
            pooled = prroi_pool_grouped(map_ * weight, regions, bins, 1 / stride)[0]
            parts.append(block(pooled.flatten(1)))
        return network.iou_predictor(torch.cat(parts, 1)).view(boxes.shape[:2])


class PlainDiMP(PlainOnline, DiMPTracker):
    """DiMP with its filter learned in the published way: three convolutions of all samples per iteration."""

    def classify(self, samples: torch.Tensor) -> torch.Tensor:
        """See ``OnlineTracker.classify``."""
        return _apply(samples, self.filter)

    def learn(self, iterations: int) -> None:
        """See ``OnlineTracker.learn``."""
        samples, boxes, weights = self.memory.contents()
        optimizer, filter = self.network.classifier.filter_optimizer, self.filter
        assert isinstance(optimizer, DiMPOptimizer)
        reg, step = optimizer.regularisation(), optimizer.step_factor()
        size = samples.shape[2] + 1 - self.kernel % 2, samples.shape[3] + 1 - self.kernel % 2
        basis = _distances(optimizer, centres(boxes, optimizer.stride, (self.kernel, self.kernel)), size)
        label = optimizer.label_map_predictor(basis)[:, 0]
        mask = optimizer.target_mask_predictor(basis).sigmoid()[:, 0]
        weight = weights.sqrt()[:, None, None] * optimizer.spatial_weight_predictor(basis)[:, 0]
        for _ in range(iterations):
            scores = _apply(samples, filter)
            slope = (1 - mask) / 2 * scores.sign() + (1 + mask) / 2
            residuals = weight * ((1 - mask) / 2 * scores.abs() + (1 + mask) / 2 * scores - label)
            gradient = _transpose(samples, weight * slope * residuals, self.kernel) + reg * filter
            along = weight * slope * _apply(samples, gradient)
            squared = gradient.square().sum()
            curvature = (along.square().sum() + reg * squared).clamp(min=1e-8)
            filter = filter - step * squared / curvature * gradient
        self.filter = filter


def _apply(samples: torch.Tensor, filter: torch.Tensor) -> torch.Tensor:
    """Scores ``[N, h', w']`` of samples ``[N, C, h, w]`` by one filter ``[1, C, k, k]``."""
    return F.conv2d(samples, filter, padding=filter.shape[-1] // 2)[:, 0]


def _transpose(samples: torch.Tensor, scores: torch.Tensor, kernel: int) -> torch.Tensor:
    """The derivative by the filter, a convolution whose kernels are the samples; one group per sample."""
    count, channels = samples.shape[:2]
    padding = kernel - 1 - kernel // 2
    found = F.conv2d(scores[None], samples.flatten(0, 1)[:, None], padding=padding, groups=count)
    return found.view(count, channels, kernel, kernel).sum(0, keepdim=True).flip(2, 3)


def _distances(optimizer: DiMPOptimizer, places: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Triangular functions of the distance from places ``[N, 2]`` (row, column), the last one constant from its
    peak on: ``[N, bins, h, w]``."""
    rows, columns = (torch.arange(n, device=places.device) - places[:, i, None] for i, n in enumerate(size))
    distance = (rows[:, :, None].square() + columns[:, None].square()).sqrt()[:, None] / optimizer.spacing
    bins = optimizer.label_map_predictor.weight.shape[1]
    offset = distance - torch.arange(bins, device=places.device)[:, None, None]
    return torch.cat([F.relu(1 - offset[:, :-1].abs()), (1 + offset[:, -1:]).clamp(0, 1)], 1)


class PlainATOM(PlainOnline, ATOMTracker):
    """ATOM with its filter learned in the published way: convolutions of all samples, differentiated twice."""

    parameters: ATOMParameters

    def kept(self, samples: torch.Tensor) -> torch.Tensor:
        """See ``OnlineTracker.kept``."""
        return F.conv2d(samples, self.projection)

    def classify(self, samples: torch.Tensor) -> torch.Tensor:
        """See ``OnlineTracker.classify``."""
        return upsampled(_same(samples, self.filter), self.parameters.sample_size)

    def learn(self, iterations: int) -> None:
        """See ``OnlineTracker.learn``."""
        samples, boxes, weights = self.memory.contents()
        labels, root = self._labels(boxes), weights.sqrt()[:, None, None]

        def residuals(x: Tensors) -> Tensors:
            scores = _same(samples, x[0])
            activated = F.elu(F.leaky_relu(scores, 1 / 0.05), 0.05)
            return root * (activated - labels), self.parameters.filter_reg**0.5 * x[0]

        (self.filter,) = gauss_newton(residuals, (self.filter,), [iterations], fletcher_reeves=False).x


def _same(samples: torch.Tensor, filter: torch.Tensor) -> torch.Tensor:
    """Scores as many as cells; an even filter's last row and column are left out."""
    return _apply(samples, filter)[:, : samples.shape[2], : samples.shape[3]]
