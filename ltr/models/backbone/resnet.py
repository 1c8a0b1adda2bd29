"""Residual backbone. He et al., Deep Residual Learning for Image Recognition, CVPR 2016."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ltr.models.backbone.registry import BACKBONES


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut; the stride is on the 3x3 convolution.

    Parameter names are torchvision's, so that ImageNet weights load.
    """

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, inputs, H, W]`` to ``[B, 4 * planes, H / stride, W / stride]``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        x = self.bn3(self.conv3(x))
        return F.relu(x.add_(shortcut), inplace=True)


class ResNetBody(nn.Module):
    """The stem and layers 1 to 3 at output stride 8.

    Layer 3 keeps its resolution; as in TransT only the 3x3 convolution of its first block is dilated.

    Args:
        blocks: number of bottlenecks in layer 1, 2 and 3.
    """

    def __init__(self, blocks: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, blocks[0])
        self.layer2 = _stage(256, 128, blocks[1], stride=2)
        self.layer3 = _stage(512, 256, blocks[2], dilation=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``[B, 3, H, W]`` to ``[B, 1024, H / 8, W / 8]``."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = F.max_pool2d(x, 3, 2, 1)
        return self.layer3(self.layer2(self.layer1(x)))


def _stage(inputs: int, planes: int, blocks: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    rest = [Bottleneck(planes * Bottleneck.expansion, planes) for _ in range(blocks - 1)]
    return nn.Sequential(Bottleneck(inputs, planes, stride, dilation), *rest)


@BACKBONES.register("resnet50")
class ResNet50(nn.Module):
    """ResNet-50 up to layer 3, stride 8, 1024 channels, as TransT uses it."""

    channels = 1024
    stride = 8
    imagenet = "https://download.pytorch.org/models/resnet50-0676ba61.pth"

    def __init__(self) -> None:
        super().__init__()
        self.body = ResNetBody((3, 4, 6))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images ``[B, 3, H, W]`` to features ``[B, 1024, H / 8, W / 8]``."""
        return self.body(images)
