"""Ocean between backbone and outputs: neck, encoders, correlation, towers, alignment. Zhang et al., ECCV 2020."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ltr.models.layers.anchor_free import align_offsets
from ltr.ops.correlation import depthwise_correlation
from ltr.ops.deform_conv import DeformConv

_DILATIONS = {"matrix11": (1, 1), "matrix12": (2, 1), "matrix21": (1, 2)}  # rows, columns
LEAST_TEMPLATE = 5  # cells a side that a kernel of dilation 2 covers

Triple = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class TemplateKernels(NamedTuple):
    """All that correlation needs of a template of ``k x k`` cells: kernels for the three dilations.

    Their sizes are ``[B, C, k - 2, k - 2]``, ``[B, C, k - 4, k - 2]`` and ``[B, C, k - 2, k - 4]``.
    """

    cls11: torch.Tensor
    cls12: torch.Tensor
    cls21: torch.Tensor
    reg11: torch.Tensor
    reg12: torch.Tensor
    reg21: torch.Tensor


def batched(memories: Sequence[TemplateKernels]) -> TemplateKernels:
    """The kernels of several templates of one size as those of a batch."""
    return (
        memories[0] if len(memories) == 1 else TemplateKernels(*(torch.cat(part) for part in zip(*memories)))
    )


class Neck(nn.Module):
    """Fewer channels: 1x1 convolution and batch norm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, features: torch.Tensor, margin: int = 0) -> torch.Tensor:
        """``[B, inputs, m, m]`` to ``[B, outputs, m - 2 margin, m - 2 margin]``, cut after the norm."""
        side = features.shape[-1] - margin
        return self.downsample(features)[..., margin:side, margin:side]


class Encoder(nn.Module):
    """3x3 convolutions of three dilations, one set for the template (``_k``), one for the search features (``_s``)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, dilation in _DILATIONS.items():
            for side in ("k", "s"):
                branch = nn.Sequential(
                    nn.Conv2d(channels, channels, 3, dilation=dilation, bias=False),
                    nn.BatchNorm2d(channels),
                    nn.ReLU(inplace=True),
                )
                self.add_module(f"{name}_{side}", branch)

    def forward(self, features: torch.Tensor, side: str) -> Triple:
        """Features ``[B, C, m, m]`` of ``side`` "k" or "s" in the three dilations; see ``TemplateKernels`` for sizes."""
        first, second, third = (self.get_submodule(f"{name}_{side}")(features) for name in _DILATIONS)
        return first, second, third


class GroupCorrelation(nn.Module):
    """Depth-wise correlations in the three dilations, summed with learned weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def weighted(self, kernels: Triple) -> Triple:
        """The kernels times their weights: a weight on a kernel is one on its correlation, and cheaper."""
        first, second, third = (w * kernel for w, kernel in zip(F.softmax(self.weight, 0), kernels))
        return first, second, third

    def forward(self, search: Triple, kernels: Triple) -> torch.Tensor:
        """Search features and weighted kernels ``[B, C, ., .]`` to their sum of correlations ``[B, C, map, map]``."""
        first, second, third = (depthwise_correlation(s, k) for s, k in zip(search, kernels))
        return first + second + third


class Connection(nn.Module):
    """Encoders, correlation, towers and predictions. Parameter names are the published ones.

    Args:
        channels: of all features.
        towers: convolutions in each tower.
        iou_head: predict the IoU of each box too.
        log_limit: upper limit of the logarithm of a distance, px; None: none.
    """

    def __init__(self, channels: int, towers: int, iou_head: bool, log_limit: float | None) -> None:
        super().__init__()
        self.log_limit = log_limit
        self.cls_encode, self.reg_encode = Encoder(channels), Encoder(channels)
        self.cls_dw, self.reg_dw = GroupCorrelation(), GroupCorrelation()
        self.bbox_tower, self.cls_tower = _tower(channels, towers), _tower(channels, towers)
        self.bbox_pred = nn.Conv2d(channels, 4, 3, padding=1)
        self.cls_pred = nn.Conv2d(channels, 1, 3, padding=1)
        self.adjust = nn.Parameter(torch.full((1,), 0.1))
        self.bias = nn.Parameter(torch.ones(1, 4, 1, 1))
        self.iou_pred_tower = _tower(channels, towers) if iou_head else None
        self.iou_pred = nn.Conv2d(channels, 1, 3, padding=1) if iou_head else None

    def remember(self, template: torch.Tensor) -> TemplateKernels:
        """The kernels of template features ``[B, C, k, k]``, k at least 5."""
        cls = self.cls_dw.weighted(self.cls_encode(template, "k"))
        reg = self.reg_dw.weighted(self.reg_encode(template, "k"))
        return TemplateKernels(*cls, *reg)

    def forward(
        self, search: torch.Tensor, memory: TemplateKernels
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Predictions for search features ``[B, C, m, m]``.

        Returns:
            ``pred_logits``, ``pred_boxes`` and ``pred_ious`` as ``Ocean.forward`` has them, and the
            features ``[B, C, map, map]`` that the boxes were predicted from.
        """
        cls11, cls12, cls21, reg11, reg12, reg21 = memory  # torch 2.8 cannot compile a slice of it
        cls = self.cls_dw(self.cls_encode(search, "s"), (cls11, cls12, cls21))
        reg = self.reg_dw(self.reg_encode(search, "s"), (reg11, reg12, reg21))
        towers = [self.cls_tower(cls), self.bbox_tower(reg)]
        if self.iou_pred_tower is not None:
            towers.append(self.iou_pred_tower(reg.detach()))
        # Boxes and what is compared between cells need more digits than bfloat16 has.
        with torch.autocast(search.device.type, enabled=False):
            cls, reg, *iou = (tower.to(self.bias.dtype) for tower in towers)
            logarithm = self.adjust * self.bbox_pred(reg) + self.bias
            if self.log_limit is not None:
                logarithm = logarithm.clamp(max=self.log_limit)
            outputs = {"pred_logits": 0.1 * self.cls_pred(cls), "pred_boxes": logarithm.exp()}
            if self.iou_pred is not None:
                outputs["pred_ious"] = self.iou_pred(*iou).sigmoid()
        return outputs, reg


def _tower(channels: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(count):
        layers += [
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class AlignHead(nn.Module):
    """A score from features sampled inside the box predicted at each cell (the object-aware branch)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rpn_conv = AlignedConv(channels)
        self.rpn_cls = nn.Conv2d(channels, 1, 1)

    def forward(self, features: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
        """Features ``[B, C, map, map]`` and box distances ``[B, 4, map, map]``, px, to logits ``[B, 1, map, map]``."""
        return self.rpn_cls(F.relu(self.rpn_conv(features, align_offsets(distances)), inplace=True))


class AlignedConv(nn.Module):
    """A deformable 3x3 convolution, at offsets that are given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = DeformConv(channels, channels, 3, padding=1)

    def forward(self, features: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        """Features ``[B, C, H, W]`` and offsets ``[B, 18, H, W]`` to features of the same shape."""
        return self.conv(features, offsets)
