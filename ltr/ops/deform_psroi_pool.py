"""Deformable position-sensitive RoI pooling. Dai et al., Deformable Convolutional Networks, ICCV 2017, section 2.2."""

from __future__ import annotations

import torch

from ltr.ops.deform_conv import bilinear


def deform_psroi_pool2d(
    features: torch.Tensor,
    rois: torch.Tensor,
    shift: torch.Tensor | None,
    output_size: int,
    spatial_scale: float,
    group_size: int = 1,
    part_size: int | None = None,
    samples: int = 4,
    shift_scale: float = 0.1,
) -> torch.Tensor:
    """Mean of ``samples x samples`` points in each bin, the bins moved by ``shift``.

    Args:
        features: ``[B, O * group_size ** 2, H, W]``.
        rois: ``[K, 5]``, index of the image, then (x1, y1, x2, y2) in input px, rounded to whole px.
        shift: ``[K, 2 * classes, P, P]``, how far each part moves right and down in sizes of the region before
            ``shift_scale``, the output channels being shared out among the classes; None: not at all.
        output_size: bins per side.
        spatial_scale: px of the map per px of the input.
        group_size: groups of channels per side; each bin reads the channels of its group.
        part_size: P, parts per side (default: one per bin).
        samples: points per side of a bin.
        shift_scale: of the shift.

    Returns:
        ``[K, O, output_size, output_size]``; points more than half a pixel outside the map do not count, and
        a bin without any is 0.

    Raises:
        ValueError: shapes that do not fit.
    """
    parts = output_size if part_size is None else part_size
    channels, height, width = features.shape[1:]
    outputs = channels // group_size**2
    if features.dim() != 4 or rois.dim() != 2 or rois.shape[1] != 5 or channels % group_size**2:
        raise ValueError(
            f"features {tuple(features.shape)} and rois {tuple(rois.shape)}: [B, O * {group_size**2}, H, W] and [K, 5] "
            "are needed"
        )
    if shift is not None and (
        shift.dim() != 4
        or shift.shape[0] != rois.shape[0]
        or shift.shape[1] % 2
        or shift.shape[1] == 0
        or outputs % (shift.shape[1] // 2)
        or tuple(shift.shape[2:]) != (parts, parts)
    ):
        raise ValueError(
            f"shift {tuple(shift.shape)}: ({rois.shape[0]}, 2 * classes, {parts}, {parts}) is needed for {outputs} outputs"
        )
    count, classes = rois.shape[0], 1 if shift is None else shift.shape[1] // 2
    x1, y1, x2, y2 = rois[:, 1:].round().unbind(1)
    left, top = x1 * spatial_scale - 0.5, y1 * spatial_scale - 0.5
    wide = ((x2 + 1) * spatial_scale - 0.5 - left).clamp(min=0.1)
    high = ((y2 + 1) * spatial_scale - 0.5 - top).clamp(min=0.1)

    bins = torch.arange(output_size, device=rois.device)
    part = bins * parts // output_size
    if shift is None:
        moves = rois.new_zeros(count, 1, 2, output_size, output_size)
    else:
        moves = shift.view(count, classes, 2, parts, parts)[..., part[:, None], part] * shift_scale

    def points(start: torch.Tensor, size: torch.Tensor, move: torch.Tensor, axis: int) -> torch.Tensor:
        """Places along one axis: ``[K, classes, bins, bins, samples]``."""
        index = bins[:, None] if axis == 0 else bins
        first = start[:, None, None, None] + size[:, None, None, None] * (
            index.to(size.dtype) / output_size + move
        )
        step = size / (output_size * samples)
        return first[..., None] + step[:, None, None, None, None] * torch.arange(samples, device=rois.device)

    y = points(top, high, moves[:, :, 1], 0)[..., :, None].expand(*[-1] * 5, samples)
    x = points(left, wide, moves[:, :, 0], 1)[..., None, :].expand(*[-1] * 4, samples, -1)
    inside = (y >= -0.5) & (y <= height - 0.5) & (x >= -0.5) & (x <= width - 0.5)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)

    # Each bin reads the channels of its own group.
    group = bins * group_size // output_size
    own = features.view(features.shape[0], outputs, group_size, group_size, height, width)
    own = own.index_select(0, rois[:, 0].long())[:, :, group[:, None], group]  # [K, O, bins, bins, H, W]
    own = own.view(count, classes, outputs // classes, output_size**2, height, width)
    maps = own.permute(0, 1, 3, 2, 4, 5).flatten(1, 2)  # [K, classes * bins ** 2, O / classes, H, W]
    values = bilinear(maps, y.flatten(4).flatten(1, 3), x.flatten(4).flatten(1, 3))
    counted = inside.flatten(4).flatten(1, 3)[:, :, None]
    total = torch.where(counted, values, 0.0).sum(3) / counted.sum(3).clamp(min=1)
    total = total.view(count, classes, output_size, output_size, outputs // classes)
    return total.permute(0, 1, 4, 2, 3).reshape(count, outputs, output_size, output_size)
