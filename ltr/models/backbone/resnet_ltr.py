"""Backbones of LTR's trackers: features of several strides, by the name of the layer they come from.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import nn

from ltr.models.backbone.registry import BACKBONES
from ltr.models.backbone.resnet import Bottleneck

USED = ("stem", "layer1", "layer2", "layer3")  # stages that trackers look at; the rest of a file only loads


class LTRBackbone(nn.Module):
    """A backbone in stages, with outputs by name ("layer2": stride 8, "layer3": stride 16) and stages to freeze.

    Attributes:
        stages: the modules of each stage, by name, in the order they run.
        layer_channels: channels of each output.
    """

    stages: Mapping[str, tuple[str, ...]]
    layer_channels: Mapping[str, int]
    block: type[nn.Module]  # the residual block of this family, called with (channels in, planes)
    stride = 16  # of "layer3", as is ``channels``
    imagenet: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self._trainable = frozenset(USED) & frozenset(self.stages)

    @property
    def channels(self) -> int:
        """Channels of "layer3"."""
        return self.layer_channels["layer3"]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalised images ``[B, 3, H, W]`` to the features of "layer3", ``[B, channels, H / 16, W / 16]``."""
        return self.layers(images, ("layer3",))["layer3"]

    def layers(self, images: torch.Tensor, names: Collection[str]) -> dict[str, torch.Tensor]:
        """Features of normalised images ``[B, 3, H, W]`` by layer; nothing deeper than asked for is computed.

        Raises:
            ValueError: there is no such layer.
        """
        unknown = sorted(set(names) - set(self.layer_channels))
        if unknown:
            raise ValueError(f"no layer {', '.join(unknown)}: there are {', '.join(self.layer_channels)}")
        found: dict[str, torch.Tensor] = {}
        x = images
        for stage in self.stages:
            x = self._run(stage, x)
            if stage in names:
                found[stage] = x
            if len(found) == len(set(names)):
                break
        return found

    def _run(self, stage: str, x: torch.Tensor) -> torch.Tensor:
        for name in self.stages[stage]:
            x = getattr(self, name)(x)
        return x

    def set_trainable(self, stages: Collection[str]) -> None:
        """Train exactly these stages; the others are frozen.

        Parameters of a frozen stage need no gradient, and its batch norms keep to their running
        statistics, also after ``train()``. At first the stages of ``USED`` are trainable.

        Raises:
            ValueError: there is no such stage.
        """
        unknown = sorted(set(stages) - set(self.stages))
        if unknown:
            raise ValueError(
                f"no stage {', '.join(unknown)} in the backbone, which has {', '.join(self.stages)}"
            )
        self._trainable = frozenset(stages)
        for stage, names in self.stages.items():
            for name in names:
                getattr(self, name).requires_grad_(stage in self._trainable)
        self.train(self.training)

    def freeze(self, names: Collection[str]) -> None:
        """Freeze stages, named themselves or by one of their modules ("conv1" is in "stem").

        Raises:
            ValueError: there is no such stage or module.
        """
        stage_of = {name: stage for stage, modules in self.stages.items() for name in (stage, *modules)}
        unknown = sorted(set(names) - set(stage_of))
        if unknown:
            raise ValueError(
                f"no {', '.join(unknown)} to freeze in the backbone: there are {', '.join(stage_of)}"
            )
        self.set_trainable(self._trainable - {stage_of[name] for name in names})

    def train(self, mode: bool = True) -> LTRBackbone:
        """As ``nn.Module.train``, except that frozen stages stay in evaluation mode."""
        super().train(mode)
        for stage, names in self.stages.items():
            if stage not in self._trainable:
                for name in names:
                    getattr(self, name).eval()
        return self


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; parameter names are torchvision's."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, inputs, H, W]`` to ``[B, planes, H / stride, W / stride]``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.bn2(self.conv2(x))
        return F.relu(x.add_(shortcut), inplace=True)


class LTRResNet(LTRBackbone):
    """A ResNet with all of torchvision's names, as published files have them.

    "layer4" and "fc" are there so that files load by name: they are not run unless asked for, and frozen.
    """

    stages = {
        "stem": ("conv1", "bn1", "relu", "maxpool"),
        **{f"layer{number}": (f"layer{number}",) for number in range(1, 5)},
        "head": ("fc",),
    }

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], blocks: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.block = block
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs, widths = 64, {}
        for number, (planes, count) in enumerate(zip((64, 128, 256, 512), blocks), 1):
            outputs = planes * block.expansion
            first = block(inputs, planes, 1 if number == 1 else 2)
            rest = (block(outputs, planes) for _ in range(count - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))
            inputs = widths[f"layer{number}"] = outputs
        self.layer_channels = widths
        self.fc = nn.Linear(inputs, 1000)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.set_trainable(USED)


@BACKBONES.register("ltr_resnet18")
class LTRResNet18(LTRResNet):
    """ResNet-18: 128 channels at stride 8, 256 at stride 16."""

    imagenet = "https://download.pytorch.org/models/resnet18-f37072fd.pth"

    def __init__(self) -> None:
        super().__init__(BasicBlock, (2, 2, 2, 2))


@BACKBONES.register("ltr_resnet50")
class LTRResNet50(LTRResNet):
    """ResNet-50: 512 channels at stride 8, 1024 at stride 16."""

    imagenet = "https://download.pytorch.org/models/resnet50-0676ba61.pth"

    def __init__(self) -> None:
        super().__init__(Bottleneck, (3, 4, 6, 3))


@BACKBONES.register("ltr_tiny")
class LTRTiny(LTRBackbone):
    """Two convolutions that see one patch each, for tests: 32 channels at stride 8, 64 at stride 16."""

    stages = {"layer2": ("conv2", "relu"), "layer3": ("conv3", "relu")}
    layer_channels = {"layer2": 32, "layer3": 64}
    block = BasicBlock

    def __init__(self) -> None:
        super().__init__()
        self.conv2 = nn.Conv2d(3, 32, 8, 8)
        self.conv3 = nn.Conv2d(32, 64, 2, 2)
        self.relu = nn.ReLU()


@BACKBONES.register("ltr_small")
class LTRSmall(LTRBackbone):
    """Five convolutions that train from scratch on a CPU: 64 channels at stride 8, 96 at stride 16."""

    stages = {"layer2": ("layer2",), "layer3": ("layer3",)}
    layer_channels = {"layer2": 64, "layer3": 96}
    block = BasicBlock

    def __init__(self) -> None:
        super().__init__()
        self.layer2 = nn.Sequential(*_normed(3, 32, 2), *_normed(32, 48, 2), *_normed(48, 64, 2))
        self.layer3 = nn.Sequential(*_normed(64, 96, 2), *_normed(96, 96, 1))


def _normed(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    # as in ltr.models.backbone.small: the train and test frames of a batch differ in their statistics
    return convolution, nn.GroupNorm(8, outputs), nn.ReLU(inplace=True)
