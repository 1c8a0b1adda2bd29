"""Deformable convolution. Dai et al., Deformable Convolutional Networks, ICCV 2017; modulated: Zhu et al., CVPR 2019."""

from __future__ import annotations

import math

import torch
from torch import nn
from torchvision.ops import deform_conv2d as torchvision_deform_conv2d

from ltr.ops import cuda

Pair = int | tuple[int, int]


def deform_conv2d(
    features: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Convolution whose kernel points are moved by ``offset``, by what is fastest where it runs.

    Args:
        features: ``[B, C, H, W]``.
        offset: ``[B, 2 * G * kh * kw, H', W']``, for each of G groups of channels and each kernel point, row by
            row, how many px it moves down and to the right.
        weight: ``[O, C / groups, kh, kw]``.
        bias: ``[O]``.
        stride, padding, dilation: one number, or (rows, columns).
        mask: ``[B, G * kh * kw, H', W']``, factor of each point (the modulated form).

    Returns:
        ``[B, O, H', W']``. Points outside the map are 0, between pixels it is bilinear.

    Raises:
        ValueError: shapes that do not fit.
    """
    geometry = _pair(stride), _pair(padding), _pair(dilation)
    height, width, _ = _check(features, offset, weight, *geometry, mask)
    if features.device.type not in ("cpu", "cuda"):
        return deform_conv2d_plain(features, offset, weight, bias, *geometry, mask)
    with torch.autocast(features.device.type, enabled=False):
        if cuda.usable(features):
            kernel = (weight.shape[2], weight.shape[3])
            columns = cuda.deform_columns(features, offset, mask, kernel, *geometry)
            groups = features.shape[1] // weight.shape[1]
            filters = weight.to(columns.dtype).reshape(groups, weight.shape[0] // groups, -1)
            out = filters @ columns.reshape(groups, -1, columns.shape[1])
            out = out.reshape(-1, features.shape[0], height, width).transpose(0, 1).contiguous()
            return out if bias is None else out + bias.to(out.dtype)[:, None, None]
        kind = features.dtype
        # On the CPU torchvision's is slower (docs/operators.md); on CUDA it knows no bfloat16.
        if features.is_cuda and kind in (torch.float32, torch.float64):
            return torchvision_deform_conv2d(
                features,
                offset.to(kind),
                weight.to(kind),
                None if bias is None else bias.to(kind),
                *geometry,
                None if mask is None else mask.to(kind),
            )
        return deform_conv2d_plain(features, offset, weight, bias, *geometry, mask)


def deform_conv2d_plain(
    features: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The same in plain torch, for any device and type, differentiable any number of times."""
    geometry = _pair(stride), _pair(padding), _pair(dilation)
    height, width, _ = _check(features, offset, weight, *geometry, mask)
    columns = deform_columns_plain(features, offset, mask, (weight.shape[2], weight.shape[3]), *geometry)
    groups = features.shape[1] // weight.shape[1]
    taps = columns.reshape(features.shape[0], groups, -1, height * width)
    filters = weight.to(features.dtype).reshape(groups, weight.shape[0] // groups, -1)
    out = (filters @ taps).reshape(features.shape[0], -1, height, width)
    return out if bias is None else out + bias.to(out.dtype)[:, None, None]


def deform_columns_plain(
    features: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor | None,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> torch.Tensor:
    """What the filters of a deformable convolution are multiplied with: ``[B, C * kh * kw, H' * W']``."""
    batch, channels = features.shape[:2]
    height, width = offset.shape[2:]
    rows, columns = kernel
    moves = offset.shape[1] // (2 * rows * columns)
    kind = torch.promote_types(
        features.dtype, torch.float32
    )  # places need more digits than sixteen bits hold
    move = offset.to(kind).reshape(batch, moves, rows * columns, 2, height, width)

    def places(axis: int, taps: int, size: int) -> torch.Tensor:
        start = torch.arange(size, device=features.device, dtype=kind) * stride[axis] - padding[axis]
        return start + (torch.arange(taps, device=features.device, dtype=kind) * dilation[axis])[:, None]

    down = (
        places(0, rows, height)[:, None, :, None]
        .expand(-1, columns, -1, width)
        .reshape(1, 1, -1, height, width)
    )
    right = (
        places(1, columns, width)[None, :, None, :]
        .expand(rows, -1, height, -1)
        .reshape(1, 1, -1, height, width)
    )
    sampled = bilinear(
        features.reshape(batch, moves, channels // moves, *features.shape[2:]),
        (move[:, :, :, 0] + down).flatten(2),
        (move[:, :, :, 1] + right).flatten(2),
    ).reshape(batch, moves, channels // moves, rows * columns, height * width)
    if mask is not None:
        sampled = sampled * mask.to(kind).reshape(batch, moves, 1, rows * columns, height * width)
    return sampled.reshape(batch, channels * rows * columns, height * width).to(features.dtype)


def bilinear(maps: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Values between the pixels of maps that are zero outside.

    Args:
        maps: ``[B, G, C, H, W]``.
        y, x: ``[B, G, N]``, in px of the map.

    Returns:
        ``[B, G, C, N]``, in the type of ``y``.
    """
    height, width = maps.shape[3:]
    flat = maps.flatten(3).to(y.dtype)
    top, left = y.floor(), x.floor()
    out = flat.new_zeros(())
    for row, from_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, from_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = torch.where(inside, row * width + column, 0.0).long()  # NaN is outside
            corner = flat.gather(3, index[:, :, None].expand(-1, -1, maps.shape[2], -1))
            out = out + corner * torch.where(inside, from_y * from_x, 0.0)[:, :, None]
    return out


class DeformConv(nn.Module):
    """Deformable convolution with offsets from outside; its parameter is called ``weight``, as published.

    Args:
        inputs, outputs: channels.
        kernel_size, stride, padding, dilation: as of ``nn.Conv2d``.
        groups: of channels that are convolved apart.
        bias: add one per output channel.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if inputs % groups or outputs % groups:
            raise ValueError(f"{inputs} inputs and {outputs} outputs do not divide into {groups} groups")
        self.stride, self.padding, self.dilation = _pair(stride), _pair(padding), _pair(dilation)
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, *_pair(kernel_size)))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        limit = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.weight, -limit, limit)

    def forward(self, features: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """See ``deform_conv2d``."""
        return deform_conv2d(
            features, offset, self.weight, self.bias, self.stride, self.padding, self.dilation
        )


class ModulatedDeformConv(DeformConv):
    """The same with a factor for each kernel point."""

    def forward(  # type: ignore[override]
        self, features: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """See ``deform_conv2d``."""
        return deform_conv2d(
            features, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask
        )


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _check(
    features: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    mask: torch.Tensor | None,
) -> tuple[int, int, int]:
    """Rows and columns of the output, and groups of offsets.

    Raises:
        ValueError: naming the shapes that do not fit.
    """
    if features.dim() != 4 or weight.dim() != 4 or offset.dim() != 4:
        raise ValueError(
            f"features {tuple(features.shape)}, offset {tuple(offset.shape)}, weight {tuple(weight.shape)}: four axes each"
        )
    channels, taps = features.shape[1], weight.shape[2] * weight.shape[3]
    if channels % weight.shape[1] or weight.shape[0] % (channels // weight.shape[1]):
        raise ValueError(
            f"features {tuple(features.shape)} and weight {tuple(weight.shape)}: channels do not fit"
        )
    height, width = (
        (features.shape[2 + axis] + 2 * padding[axis] - dilation[axis] * (weight.shape[2 + axis] - 1) - 1)
        // stride[axis]
        + 1
        for axis in (0, 1)
    )
    moves = offset.shape[1] // (2 * taps)
    if (
        offset.shape[1] != 2 * taps * moves
        or moves == 0
        or channels % moves
        or tuple(offset.shape[2:]) != (height, width)
        or offset.shape[0] != features.shape[0]
    ):
        raise ValueError(
            f"offset {tuple(offset.shape)}: ({features.shape[0]}, {2 * taps} per group, {height}, {width}) is needed for "
            f"features {tuple(features.shape)} and weight {tuple(weight.shape)}"
        )
    if mask is not None and tuple(mask.shape) != (features.shape[0], taps * moves, height, width):
        raise ValueError(
            f"mask {tuple(mask.shape)}: ({features.shape[0]}, {taps * moves}, {height}, {width}) is needed"
        )
    return height, width, moves
