"""Batch norms folded into the convolutions before them, for inference."""

from __future__ import annotations

import itertools

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_PAIRS = [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")]


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Fold, in place, every batch norm that directly follows a convolution; returns ``network``.

    Pairs are ``conv1`` and ``bn1`` (2, 3) of one module, and neighbours in an ``nn.Sequential``.
    The network must be in evaluation mode and stay there: its outputs are the same up to rounding.
    """
    for module in network.modules():
        children = dict(module.named_children())
        pairs = [(a, b) for a, b in _PAIRS if a in children and b in children]
        if isinstance(module, nn.Sequential):
            pairs = list(itertools.pairwise(children))
        for conv_name, norm_name in pairs:
            conv, norm = children[conv_name], children[norm_name]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    return network
