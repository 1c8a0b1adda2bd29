"""Ocean's backbones: stride 8 without padding at the border. Zhang et al., Ocean, ECCV 2020."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ltr.models.backbone.registry import BACKBONES
from ltr.models.backbone.resnet import Bottleneck

STEM = "stem"  # the stage of all that comes before layer1


class OceanBackbone(nn.Module):
    """A body in stages, each of which can be frozen. The body is ``features``, as published.

    Features of images ``[B, 3, n, n]`` are ``[B, channels, m, m]`` with ``m = (n - 7) // 8``; see
    ``ltr.models.layers.anchor_free`` for where the cells lie.
    """

    channels: int
    stride = 8
    imagenet: str | None = None  # Ocean starts from a file of its own, not from torchvision's

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.features = body
        for module in body.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self._trainable = frozenset(self.stages)

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages: "stem", "layer1", "layer2", "layer3" and, where there is one, "layeronline"."""
        return tuple(dict.fromkeys(_stage(name) for name, _ in self.features.named_children()))

    def set_trainable(self, stages: Collection[str]) -> None:
        """Train exactly these stages; the others are frozen.

        Parameters of a frozen stage need no gradient, and its batch norms keep to their running
        statistics, also after ``train()``. At first every stage is trainable.

        Raises:
            ValueError: there is no such stage.
        """
        unknown = sorted(set(stages) - set(self.stages))
        if unknown:
            raise ValueError(
                f"no stage {', '.join(unknown)} in the backbone, which has {', '.join(self.stages)}"
            )
        self._trainable = frozenset(stages)
        for name, part in self.features.named_children():
            part.requires_grad_(_stage(name) in self._trainable)
        self.train(self.training)

    def train(self, mode: bool = True) -> OceanBackbone:
        """As ``nn.Module.train``, except that frozen stages stay in evaluation mode."""
        super().train(mode)
        for name, part in self.features.named_children():
            if _stage(name) not in self._trainable:
                part.eval()
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``[B, 3, n, n]`` to features ``[B, channels, m, m]``."""
        return self.features(images)


def _stage(name: str) -> str:
    return name if name.startswith("layer") else STEM


class OceanBottleneck(Bottleneck):
    """A bottleneck that may have a 3x3 shortcut, and then loses the border where it has a stride."""

    def __init__(
        self, inputs: int, planes: int, stride: int = 1, dilation: int = 1, wide_shortcut: bool = False
    ) -> None:
        super().__init__(inputs, planes, stride, dilation)
        if wide_shortcut:
            outputs, padding = planes * self.expansion, 1 if stride == 1 else 0
            self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding, bias=False)
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride, padding, bias=False), nn.BatchNorm2d(outputs)
            )


class OceanResNetBody(nn.Module):
    """ResNet-50 up to layer 3, which keeps the resolution of layer 2 and is dilated.

    Args:
        online: with ``layeronline``, the branch at stride 16 for an online classifier.
    """

    def __init__(self, online: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(OceanBottleneck(64, 64), *(OceanBottleneck(256, 64) for _ in range(2)))
        self.layer2 = _layer(256, 128, 4, stride=2)
        self.layer3 = _layer(512, 256, 6, dilation=2)
        if online:
            self.layeronline = _layer(512, 256, 6, stride=2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``[B, 3, n, n]`` to ``[B, 1024, m, m]``."""
        return self.layer3(self.shared(images))

    def shared(self, images: torch.Tensor) -> torch.Tensor:
        """The output of layer 2, ``[B, 512, m, m]``."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        return self.layer2(self.layer1(F.max_pool2d(x, 3, 2, 1)))


def _layer(inputs: int, planes: int, blocks: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    rest = (OceanBottleneck(4 * planes, planes, dilation=dilation) for _ in range(blocks - 1))
    return nn.Sequential(OceanBottleneck(inputs, planes, stride, wide_shortcut=True), *rest)


@BACKBONES.register("ocean_resnet50")
class OceanResNet50(OceanBackbone):
    """The published backbone: 255 px to 31 x 31 cells of 1024 channels."""

    channels = 1024

    def __init__(self) -> None:
        super().__init__(OceanResNetBody())


@BACKBONES.register("ocean_resnet50_online")
class OceanResNet50Online(OceanBackbone):
    """As ``ocean_resnet50``, with the branch of TracKit's checkpoints that an online classifier looks at."""

    channels = 1024

    def __init__(self) -> None:
        super().__init__(OceanResNetBody(online=True))

    def online_features(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``[B, 3, n, n]`` to what the online classifier sees, ``[B, 1024, (m - 1) // 2, (m - 1) // 2]``."""
        body: Any = self.features
        return body.layeronline(body.shared(images))


class _TinyBody(nn.Module):
    """The strides and borders of ``OceanResNetBody`` with one convolution in the place of each stage."""

    def __init__(self, stem: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1 = nn.Conv2d(3, stem, 7, 2, bias=False)
        # as in ltr.models.backbone.small: template and search crops differ in their batch statistics
        self.norm1 = nn.GroupNorm(8, stem)
        self.layer1 = _normed(nn.Conv2d(stem, first, 3, padding=1, bias=False))
        self.layer2 = _normed(nn.Conv2d(first, second, 3, 2, bias=False))
        self.layer3 = _normed(nn.Conv2d(second, third, 3, padding=2, dilation=2, bias=False))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``[B, 3, n, n]`` to ``[B, widths[2], m, m]``."""
        x = F.relu(self.norm1(self.conv1(images)), inplace=True)
        return self.layer3(self.layer2(self.layer1(F.max_pool2d(x, 3, 2, 1))))


def _normed(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.GroupNorm(8, convolution.out_channels), nn.ReLU(inplace=True))


@BACKBONES.register("ocean_tiny")
class OceanTiny(OceanBackbone):
    """Four convolutions, for tests, the demo and measurements of the method on a CPU."""

    channels = 96

    def __init__(self) -> None:
        super().__init__(_TinyBody(32, (48, 64, 96)))
