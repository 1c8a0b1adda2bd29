"""Small backbones that train from scratch on a CPU."""

from __future__ import annotations

import torch
from torch import nn

from ltr.models.backbone.registry import BACKBONES


class _ConvStack(nn.Module):
    """3x3 convolutions, each with a norm and ReLU; the first three halve the resolution.

    The norm is over groups of channels: template and search crops pass separately, and batch
    statistics of the two would differ from the running mixture of both that inference uses.
    """

    channels: int
    stride = 8
    imagenet: str | None = None
    widths: tuple[int, ...]
    groups = 8

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for number, width in enumerate(self.widths):
            layers += [
                nn.Conv2d(inputs, width, 3, stride=2 if number < 3 else 1, padding=1, bias=False),
                nn.GroupNorm(self.groups, width),
                nn.ReLU(inplace=True),
            ]
            inputs = width
        self.body = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images ``[B, 3, H, W]`` to features ``[B, channels, H / 8, W / 8]``."""
        return self.body(images)


@BACKBONES.register("tiny")
class Tiny(_ConvStack):
    """Three layers, for tests."""

    widths = (8, 16, 16)
    channels = 16


@BACKBONES.register("conv5")
class Conv5(_ConvStack):
    """Five layers at stride 8, for the demo and for measurements of the method on a CPU."""

    widths = (32, 48, 64, 96, 96)
    channels = 96
