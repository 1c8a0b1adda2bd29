"""Operators that torch lacks: precise RoI pooling, deformable convolution and pooling, correlations."""

from ltr.ops.correlation import correlation, depthwise_correlation
from ltr.ops.deform_conv import DeformConv, ModulatedDeformConv, deform_conv2d, deform_conv2d_plain
from ltr.ops.deform_psroi_pool import deform_psroi_pool2d
from ltr.ops.prroi_pool import prroi_pool2d, prroi_pool_grouped

__all__ = [
    "DeformConv",
    "ModulatedDeformConv",
    "correlation",
    "deform_conv2d",
    "deform_conv2d_plain",
    "deform_psroi_pool2d",
    "depthwise_correlation",
    "prroi_pool2d",
    "prroi_pool_grouped",
]
