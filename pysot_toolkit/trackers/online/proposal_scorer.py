"""The last part of an IoU network, made for one target and for boxes that lie close together.

Boxes are scored many times per frame, by the same modulation all along a video. So the modulation is put into the
weights; and of the feature maps only the cells that the boxes touch are looked at, for which pooling is one matrix
product. Scores are the network's up to rounding, and as differentiable.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch.nn.utils.fusion import fuse_linear_bn_weights

from ltr.data.bbox import xywh_to_xyxy
from ltr.models.bbreg.iou_net import BINS, STRIDES, AtomIoUNet, LinearBlock, Pair
from ltr.ops.prroi_pool import _weights as bin_weights


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

    def __call__(self, features: Pair, boxes: torch.Tensor) -> torch.Tensor:
        """Scores of boxes ``[1, P, 4]`` (x, y, w, h), px: ``[1, P]``.

        Args:
            features: of ``AtomIoUNet.get_iou_feat``, float32 ``[1, C, h, w]`` each.
        """
        regions = xywh_to_xyxy(boxes)
        parts = [
            F.relu(F.linear(_pooled(feature, regions / stride, bins), weight, bias))
            for feature, bins, stride, (weight, bias) in zip(features, BINS, STRIDES, self.layers)
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
