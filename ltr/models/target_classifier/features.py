"""The features that target filters see."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from ltr.models.layers.normalization import InstanceL2Norm


def classification_features(
    inputs: int, outputs: int, *, block: Any, blocks: int, filter_size: int
) -> nn.Sequential:
    """Residual blocks, a 3x3 convolution and a normalisation that gives filters features of their size.

    Args:
        inputs: channels of the backbone's features.
        outputs: channels of the classification features.
        block: residual block, called with (channels in, planes), with an attribute ``expansion``.
        blocks: how many of these.
        filter_size: side of the filter; a filter's window of normalised features has an L2 norm of about 1.
    """
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    network = nn.Sequential(
        *(block(inputs, inputs // block.expansion) for _ in range(blocks)),
        convolution,
        InstanceL2Norm(math.sqrt(1 / (outputs * filter_size**2))),
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
