"""The test branch of an IoU network, made for one target and for boxes that lie close together.

Boxes are scored many times per frame, by the same modulation all along a video. So the modulation is put into the
weights; and on a CPU maps are computed, and looked at, only where the boxes are, for which pooling is one matrix
product. Scores are the network's up to rounding, and as differentiable.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.nn.utils.fusion import fuse_linear_bn_weights

from ltr.data.bbox import xywh_to_xyxy
from ltr.models.bbreg.iou_net import BINS, STRIDES, AtomIoUNet, LinearBlock, Pair
from ltr.ops.prroi_pool import bin_weights

_HALO = 2  # cells that the two 3x3 convolutions of a map look beyond it


class NearbyMaps:
    """The maps that boxes are pooled from, computed as far as boxes reach.

    Args:
        compute: backbone features to maps; see ``AtomIoUNet.get_iou_feat``.
        features: backbone features, ``[1, C, h, w]`` each, the second of half the size of the first.
    """

    def __init__(self, compute: Callable[[Pair], Pair], features: Pair) -> None:
        self._compute, self._features = compute, features
        self._cells: tuple[range, range] | None = None  # of the second map that are right: rows and columns
        self._maps: Pair = features
        self._origins = ((0, 0), (0, 0))  # of each map: its first column and row, cells

    def about(self, boxes: torch.Tensor) -> tuple[Pair, list[torch.Tensor]]:
        """Maps that are right where boxes ``[1, P, 4]`` (x, y, w, h) px lie, and in cells of each map the boxes
        ``[1, P, 4]`` (x1, y1, x2, y2)."""
        height, width = self._features[1].shape[2:]
        x1, y1, x2, y2 = (xywh_to_xyxy(boxes).detach() / STRIDES[1]).unbind(-1)
        needed = _touched(y1, y2, height), _touched(x1, x2, width)
        if self._cells is None:
            self._prepare(_grown(needed[0], height), _grown(needed[1], width))
        elif not all(set(need) <= set(have) for need, have in zip(needed, self._cells)):
            self._prepare(range(height), range(width))
        corners = xywh_to_xyxy(boxes)
        regions = [corners / stride for stride in STRIDES]
        if any(map(any, self._origins)):
            shifts = (corners.new_tensor([left, top, left, top]) for left, top in self._origins)
            regions = [region - shift for region, shift in zip(regions, shifts)]
        return self._maps, regions

    def _prepare(self, rows: range, columns: range) -> None:
        """Compute the maps for these cells of the second one."""
        parts, origins = [], []
        for feature, stride in zip(self._features, STRIDES):
            finer = STRIDES[1] // stride
            (top, bottom), (left, right) = (
                (max(finer * cells.start - _HALO, 0), finer * cells.stop + _HALO) for cells in (rows, columns)
            )
            parts.append(feature[..., top:bottom, left:right])
            origins.append((left, top))
        self._maps, self._cells = self._compute((parts[0], parts[1])), (rows, columns)
        self._origins = (origins[0], origins[1])


def _grown(cells: range, size: int) -> range:
    """Room for boxes to move, as far as the map goes."""
    margin = max(len(cells) // 4, 1)
    return range(max(cells.start - margin, 0), min(cells.stop + margin, size))


class ProposalScorer:
    """``AtomIoUNet.predict_iou`` for one modulation.

    Args:
        network: in evaluation mode.
        modulation: of ``AtomIoUNet.get_modulation``, ``[1, C, 1, 1]`` each.
    """

    def __init__(self, network: AtomIoUNet, modulation: Pair) -> None:
        self.layers = [
            _modulated(block, weight, bins)
            for block, weight, bins in zip((network.fc3_rt, network.fc4_rt), modulation, BINS)
        ]
        self.last = network.iou_predictor

    def __call__(self, maps: NearbyMaps, boxes: torch.Tensor) -> torch.Tensor:
        """Scores of boxes ``[1, P, 4]`` (x, y, w, h), px of the image: ``[1, P]``."""
        features, regions = maps.about(boxes)
        parts = [
            F.relu(F.linear(_pooled(feature, region, bins), weight, bias))
            for feature, region, bins, (weight, bias) in zip(features, regions, BINS, self.layers)
        ]
        return self.last(torch.cat(parts, 1)).view(boxes.shape[:2])


def _modulated(block: LinearBlock, weight: torch.Tensor, bins: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights ``[outputs, bins * bins * C]`` and bias of a block with its batch norm and the channels' weights."""
    linear, norm = block.linear, block.bn
    assert norm.running_mean is not None and norm.running_var is not None
    fused, bias = fuse_linear_bn_weights(
        linear.weight, linear.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    by_channel = fused.detach().unflatten(1, (-1, bins * bins)) * weight.view(1, -1, 1)
    return by_channel.transpose(1, 2).flatten(1).contiguous(), bias.detach()


def _pooled(feature: torch.Tensor, regions: torch.Tensor, bins: int) -> torch.Tensor:
    """Precise RoI pooling of regions ``[1, P, 4]`` (x1, y1, x2, y2), cells: ``[P, bins * bins * C]``, channels last."""
    x1, y1, x2, y2 = regions[0].unbind(-1)
    solid = (x2 > x1) & (y2 > y1)
    columns, rows = (_touched(*side) for side in ((x1, x2, feature.shape[3]), (y1, y2, feature.shape[2])))
    across, down = (
        bin_weights(
            torch.where(solid, low, 0.0) - cells.start,
            torch.where(solid, high, 1.0) - cells.start,
            bins,
            len(cells),
        )
        for low, high, cells in ((x1, x2, columns), (y1, y2, rows))
    )
    weights = (down[:, :, None, :, None] * across[:, None, :, None, :]).flatten(3).flatten(0, 2)
    part = feature[0, :, rows.start : rows.stop, columns.start : columns.stop]
    pooled = weights @ part.permute(1, 2, 0).flatten(0, 1)
    return torch.where(solid[:, None], pooled.view(len(x1), -1), 0.0)


def _touched(low: torch.Tensor, high: torch.Tensor, size: int) -> range:
    """The cells of a map that regions touch along one axis; all where asking would make the host wait."""
    if low.device.type != "cpu":
        return range(size)
    first, last = float(low.detach().min()), float(high.detach().max())
    if not (math.isfinite(first) and math.isfinite(last)):
        return range(size)
    start = min(max(math.floor(first), 0), size - 1)
    return range(start, max(min(math.ceil(last) + 1, size), start + 1))
