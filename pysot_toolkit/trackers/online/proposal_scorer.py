"""The test branch of an IoU network, made for one target and for boxes that lie close together.

Boxes are scored many times per frame, by the same modulation all along a video. So the modulation is put into the
weights; maps are computed, on a CPU, only where the boxes are; and each of their cells is multiplied with the weights
once per frame: precise RoI pooling is linear in the map, so that a box is then one row of a matrix product. Slopes are
written out. Scores and slopes are the network's up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.utils.fusion import fuse_linear_bn_weights

from ltr.data.bbox import xywh_to_xyxy
from ltr.models.bbreg.iou_net import BINS, STRIDES, AtomIoUNet, LinearBlock, Pair

_HALO = 2  # cells that the two 3x3 convolutions of a map look beyond it
_MARGINS = (1, 2)  # cells that are computed beyond the first boxes, and again where boxes left these


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
        self.last = [part.detach() for part in network.iou_predictor.weight[0].chunk(2)]
        self.bias = network.iou_predictor.bias.detach()

    def near(self, compute: Callable[[Pair], Pair], features: Pair) -> Nearby:
        """The scores in one image; for the arguments see ``Nearby``."""
        return Nearby(self, compute, features)


class Nearby:
    """Scores and slopes of boxes in one image, whose maps are computed as far as the boxes reach.

    Args:
        scorer: of the target.
        compute: backbone features to maps; see ``AtomIoUNet.get_iou_feat``.
        features: backbone features, ``[1, C, h, w]`` each.
    """

    def __init__(self, scorer: ProposalScorer, compute: Callable[[Pair], Pair], features: Pair) -> None:
        self._scorer, self._compute, self._features = scorer, compute, features
        self._parts: list[_Part] = []

    def __call__(self, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores ``[1, P]`` of boxes ``[1, P, 4]`` (x, y, w, h), px of the image, and their derivatives by them."""
        corners = xywh_to_xyxy(boxes[0])
        regions = [corners / stride for stride in STRIDES]
        self._cover(regions)
        scores, by_corners = self._scorer.bias, torch.zeros_like(corners)
        for part, region, bins, stride, layer, last in zip(
            self._parts, regions, BINS, STRIDES, self._scorer.layers, self._scorer.last
        ):
            pooling = _Pooling(region, bins, part)
            hidden = torch.addmm(layer.bias, pooling.weights, part.products).clamp_(min=0)
            scores = scores + hidden @ last
            by_weights = part.products @ ((hidden > 0) * last).t()  # twice as fast as with its transpose
            by_corners = by_corners + pooling.backward(by_weights) / stride
        first, second = by_corners.split(2, 1)
        return scores[None], torch.cat([first + second, second], 1)[None]

    def _cover(self, regions: list[torch.Tensor]) -> None:
        """See that all cells that regions ``[P, 4]`` (x1, y1, x2, y2), in cells of each map, touch are there."""
        sizes = [(feature.shape[2], feature.shape[3]) for feature in self._features]
        touched = [_touched(region, size) for region, size in zip(regions, sizes)]
        if self._parts and all(part.holds(need) for part, need in zip(self._parts, touched)):
            return
        margin = _MARGINS[bool(self._parts)]
        spans = [_grown(need, margin, size) for need, size in zip(touched, sizes)]
        third, fourth = (_with_halo(feature, span) for feature, span in zip(self._features, spans))
        maps = self._compute((third, fourth))
        self._parts = [_part(*found) for found in zip(maps, spans, self._scorer.layers)]


class _Span(NamedTuple):
    """Cells of a map."""

    rows: range
    columns: range


class _Part(NamedTuple):
    """What is computed of a map."""

    span: _Span
    along: torch.Tensor  # [2, n]: its columns and its rows, n the larger number of both
    products: (
        torch.Tensor
    )  # [rows * columns * bins * bins, outputs], of each cell with the weights of each bin

    def holds(self, other: _Span) -> bool:
        """Whether all cells of ``other`` are there."""
        return all(set(need) <= set(have) for need, have in zip(other, self.span))


def _with_halo(feature: torch.Tensor, span: _Span) -> torch.Tensor:
    """The part of a feature map that the map's cells ``span`` are computed from."""
    rows, columns = (slice(max(cells.start - _HALO, 0), cells.stop + _HALO) for cells in span)
    return feature[..., rows, columns]


def _part(map_: torch.Tensor, span: _Span, layer: _Layer) -> _Part:
    """The cells ``span`` of the map ``[1, C, h, w]`` that was computed for them with their halo."""
    (top, height), (left, width) = ((min(cells.start, _HALO), len(cells)) for cells in span)
    inner = map_[0, :, top : top + height, left : left + width].permute(1, 2, 0).flatten(0, 1)
    count = torch.arange(max(height, width), dtype=map_.dtype, device=map_.device)
    along = torch.stack([count + span.columns.start, count + span.rows.start])
    return _Part(span, along, (inner @ layer.weight).view(-1, len(layer.bias)))


class _Layer(NamedTuple):
    """A linear layer on pooled features."""

    weight: torch.Tensor  # [C, bins * bins * outputs]
    bias: torch.Tensor


def _modulated(block: LinearBlock, weight: torch.Tensor, bins: int) -> _Layer:
    """A block with its batch norm and the channels' weights."""
    linear, norm = block.linear, block.bn
    assert norm.running_mean is not None and norm.running_var is not None
    fused, bias = fuse_linear_bn_weights(
        linear.weight, linear.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    by_channel = fused.detach().unflatten(1, (-1, bins * bins)) * weight.view(1, -1, 1)
    return _Layer(by_channel.permute(1, 2, 0).flatten(1).contiguous(), bias.detach())


class _Pooling:
    """What each cell counts in each bin of regions, by precise RoI pooling, and its derivative by the regions.

    The mean over a bin from e to e' of the hat function of the cell c is ``(H(e' - c) - H(e - c)) / (e' - e)`` with
    the hat function's integral H, along each axis; both axes are treated alike. See ``ltr.ops.prroi_pool``.

    Args:
        regions: ``[P, 4]`` (x1, y1, x2, y2), cells.
        bins: along each side.
        part: the cells.
    """

    def __init__(self, regions: torch.Tensor, bins: int, part: _Part) -> None:
        low, high = regions[:, :2], regions[:, 2:]
        self._solid = (high > low).all(1, keepdim=True)  # a region without an area gives 0
        low, length = torch.where(self._solid, low, 0.0), torch.where(self._solid, high - low, 1.0)
        self._bins, self._length = bins, length
        self._share = torch.linspace(0, 1, bins + 1, dtype=low.dtype, device=low.device)
        edges = torch.addcmul(low[..., None], length[..., None], self._share)
        self._offset = (edges[..., None] - part.along[:, None]).clamp_(-1, 1)  # [P, 2, bins + 1, n]
        self._scale = bins / length[..., None, None]
        integral = torch.addcmul(self._offset, self._offset, self._offset.abs(), value=-0.5)
        self._counts = integral.diff(dim=2) * self._scale  # [P, 2, bins, n]
        self._across = self._counts[:, 0, :, : len(part.span.columns)]
        self._down = self._counts[:, 1, :, : len(part.span.rows)]
        both = self._down.mT[:, :, None, :, None] * self._across.mT[:, None, :, None]
        self.weights = both.flatten(1).masked_fill_(~self._solid, 0.0)  # [P, rows * columns * bins * bins]

    def backward(self, by_weights: torch.Tensor) -> torch.Tensor:
        """From the derivative by ``weights``, ``[rows * columns * bins * bins, P]``, to that by the regions ``[P, 4]``."""
        rows, columns = self._down.shape[2], self._across.shape[2]
        by_both = by_weights.view(rows, columns, self._bins, self._bins, -1)
        by_counts = torch.zeros_like(self._counts)
        by_counts[:, 0, :, :columns] = torch.einsum("hwijp,pih->pjw", by_both, self._down)
        by_counts[:, 1, :, :rows] = torch.einsum("hwijp,pjw->pih", by_both, self._across)
        by_integral = by_counts * self._scale
        hat = 1 - self._offset.abs()
        ends, starts = (hat[:, :, 1:] * by_integral).sum(3), (hat[:, :, :-1] * by_integral).sum(3)
        by_length = ends @ self._share[1:] - starts @ self._share[:-1]
        by_length -= (by_counts * self._counts).sum((2, 3)) / self._length
        by_low = (ends - starts).sum(2) - by_length
        return torch.cat([by_low, by_length], 1).masked_fill_(~self._solid, 0.0)


def _touched(regions: torch.Tensor, size: tuple[int, int]) -> _Span:
    """The cells of a map of ``size`` (rows, columns) that regions ``[P, 4]`` (x1, y1, x2, y2) touch; all where asking
    would make the host wait."""
    height, width = size
    if regions.device.type != "cpu":
        return _Span(range(height), range(width))
    x1, y1 = regions[:, :2].amin(0).tolist()
    x2, y2 = regions[:, 2:].amax(0).tolist()
    return _Span(_between(y1, y2, height), _between(x1, x2, width))


def _between(first: float, last: float, size: int) -> range:
    if not (math.isfinite(first) and math.isfinite(last)):
        return range(size)
    start = min(max(math.floor(first), 0), size - 1)
    return range(start, max(min(math.ceil(last) + 1, size), start + 1))


def _grown(span: _Span, margin: int, size: tuple[int, int]) -> _Span:
    """Room for boxes to move, as far as the map goes."""
    rows, columns = (
        range(max(cells.start - margin, 0), min(cells.stop + margin, side)) for cells, side in zip(span, size)
    )
    return _Span(rows, columns)
