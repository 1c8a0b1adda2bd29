"""Correlations of two feature maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def correlation(
    a: torch.Tensor, b: torch.Tensor, max_displacement: int, kernel_size: int = 1
) -> torch.Tensor:
    """Cost volume: how well each place of ``a`` fits the places of ``b`` around it.

    Fischer et al., FlowNet, ICCV 2015; as used by KYS (Bhat et al., Know Your Surroundings, ECCV 2020).

    Args:
        a: ``[B, C, H, W]``.
        b: ``[B, C, H, W]``.
        max_displacement: D; places up to D rows and columns away are compared.
        kernel_size: odd side of the window of products that are summed around a place.

    Returns:
        ``[B, (2 D + 1) ** 2, H, W]``: index ``(dy + D) * (2 D + 1) + dx + D`` is the sum over channels and window
        of ``a[p] * b[p + (dy, dx)]``, products with a place outside of either map being 0.

    Raises:
        ValueError: shapes that differ.
    """
    if a.shape != b.shape or a.dim() != 4:
        raise ValueError(
            f"maps {tuple(a.shape)} and {tuple(b.shape)}: two equal shapes [B, C, H, W] are needed"
        )
    batch, _, height, width = a.shape
    side = 2 * max_displacement + 1
    # All pairs of places are fewer numbers than the channels of the compared ones, and one matrix product.
    pairs = a.flatten(2).transpose(1, 2) @ b.flatten(2)
    pairs = pairs.view(batch, height, width, height, width)
    pairs = F.pad(pairs, (max_displacement,) * 4)
    steps = torch.arange(side, device=a.device)
    row = torch.arange(height, device=a.device)
    column = torch.arange(width, device=a.device)
    near = pairs[
        :,
        row[:, None, None, None],
        column[:, None, None],
        row[:, None, None, None] + steps[:, None],
        column[:, None, None] + steps,
    ]  # [B, H, W, side, side]
    volume = near.flatten(3).permute(0, 3, 1, 2)
    if kernel_size > 1:
        volume = F.avg_pool2d(volume, kernel_size, 1, kernel_size // 2, divisor_override=1)
    return volume


def depthwise_correlation(search: torch.Tensor, template: torch.Tensor) -> torch.Tensor:
    """Each channel of the search map filtered with the same channel of the sample's own template.

    Li et al., SiamRPN++, CVPR 2019.

    Args:
        search: ``[B, C, H, W]``.
        template: ``[B, C, h, w]``, or ``[1, C, h, w]`` for all.

    Returns:
        ``[B, C, H - h + 1, W - w + 1]``.

    Raises:
        ValueError: channels or batch sizes that differ, or a template larger than the search map.
    """
    batch, channels, height, width = search.shape
    fits = template.shape[1] == channels and template.shape[0] in (1, batch)
    if not fits or template.shape[2] > height or template.shape[3] > width:
        raise ValueError(
            f"search {tuple(search.shape)} and template {tuple(template.shape)}: equal channels, and a template of the "
            "same batch (or 1) that is not larger are needed"
        )
    # Copied in any case: a compiled graph takes maps for contiguous that come channels-last from their convolutions.
    kernel, maps = (
        values.expand(batch, -1, -1, -1).clone(memory_format=torch.contiguous_format)
        for values in (template, search)
    )
    kernel = kernel.view(batch * channels, 1, *template.shape[2:])
    out = F.conv2d(maps.view(1, batch * channels, height, width), kernel, groups=batch * channels)
    return out.view(batch, channels, *out.shape[2:])
