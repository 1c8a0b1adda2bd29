"""Precise RoI pooling. Jiang et al., Acquisition of Localization Confidence for Accurate Object Detection, ECCV 2018.

A feature map is bilinear between its pixels and falls to zero one pixel outside; a bin's value is its mean over
the bin. The integral separates: along each axis it is a matrix of integrated hat functions, so that a region is
``Wy @ features @ Wx.T / area``. All of it is differentiable any number of times, in the corners of the regions too.
"""

from __future__ import annotations

import torch

from ltr.ops import cuda


def prroi_pool2d(
    features: torch.Tensor, rois: torch.Tensor, output_size: int | tuple[int, int], spatial_scale: float
) -> torch.Tensor:
    """Pool regions that name their image.

    Where every image has the same number of regions, ``prroi_pool_grouped`` saves the copy of the map per region.

    Args:
        features: ``[B, C, H, W]``.
        rois: ``[K, 5]``: index of the image, then (x1, y1, x2, y2) in input px; K may be 0. A region without
            area gives 0 and takes no gradient.
        output_size: bins (rows, columns), or one number for both.
        spatial_scale: px of the map per px of the input; there is no half-pixel offset.

    Returns:
        ``[K, C, rows, columns]``, in the type of ``features``.

    Raises:
        ValueError: shapes that do not fit.
    """
    if features.dim() != 4 or rois.dim() != 2 or rois.shape[1] != 5:
        raise ValueError(
            f"features {tuple(features.shape)} and rois {tuple(rois.shape)}: [B, C, H, W] and [K, 5] are needed"
        )
    if cuda.usable(features):
        return cuda.prroi_pool(features, rois, *_pair(output_size), spatial_scale)
    own = features.index_select(0, rois[:, 0].long())
    return prroi_pool_plain(own, rois[:, None, 1:], output_size, spatial_scale)[:, 0]


def prroi_pool_grouped(
    features: torch.Tensor,
    boxes_xyxy: torch.Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float,
) -> torch.Tensor:
    """Pool the same number of regions of every image.

    Args:
        features: ``[B, C, H, W]``.
        boxes_xyxy: ``[B, R, 4]``, (x1, y1, x2, y2) in input px.
        output_size, spatial_scale: as for ``prroi_pool2d``.

    Returns:
        ``[B, R, C, rows, columns]``, in the type of ``features``.

    Raises:
        ValueError: shapes that do not fit.
    """
    if not cuda.usable(features):
        return prroi_pool_plain(features, boxes_xyxy, output_size, spatial_scale)
    _check(features, boxes_xyxy)
    images, regions = boxes_xyxy.shape[:2]
    kind = torch.promote_types(boxes_xyxy.dtype, torch.float32)  # sixteen bits cannot count the images
    index = torch.arange(images, device=boxes_xyxy.device, dtype=kind)
    rois = torch.cat([index[:, None, None].expand(-1, regions, -1), boxes_xyxy], 2).flatten(0, 1)
    pooled = cuda.prroi_pool(features, rois, *_pair(output_size), spatial_scale)
    return pooled.view(images, regions, *pooled.shape[1:])


def prroi_pool_plain(
    features: torch.Tensor,
    boxes_xyxy: torch.Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float,
) -> torch.Tensor:
    """``prroi_pool_grouped`` in plain torch, for any device and type, differentiable any number of times."""
    _check(features, boxes_xyxy)
    rows, columns = _pair(output_size)
    images, channels, height, width = features.shape
    regions = boxes_xyxy.shape[1]
    # Sixteen bits would lose the corners of small regions.
    kind = torch.promote_types(features.dtype, torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        x1, y1, x2, y2 = (boxes_xyxy.to(kind) * spatial_scale).unbind(-1)
        solid = (x2 > x1) & (y2 > y1)
        across = _bin_weights(torch.where(solid, x1, 0.0), torch.where(solid, x2, 1.0), columns, width)
        down = _bin_weights(torch.where(solid, y1, 0.0), torch.where(solid, y2, 1.0), rows, height)
        # One product per image serves all its regions: [B, C * H, W] @ [B, W, R * columns].
        narrow = features.to(kind).flatten(1, 2) @ across.permute(0, 3, 1, 2).flatten(2)
        narrow = narrow.view(images, channels, height, regions, columns).permute(0, 3, 2, 1, 4)
        pooled = down @ narrow.reshape(images, regions, height, channels * columns)
        pooled = pooled.view(images, regions, rows, channels, columns).transpose(2, 3)
        return torch.where(solid[:, :, None, None, None], pooled, 0.0).to(features.dtype)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _check(features: torch.Tensor, boxes_xyxy: torch.Tensor) -> None:
    if boxes_xyxy.dim() != 3 or boxes_xyxy.shape[2] != 4 or boxes_xyxy.shape[0] != features.shape[0]:
        raise ValueError(
            f"features {tuple(features.shape)} and boxes {tuple(boxes_xyxy.shape)}: [B, C, H, W] and [B, R, 4] are needed"
        )


def _bin_weights(first: torch.Tensor, last: torch.Tensor, bins: int, size: int) -> torch.Tensor:
    """Mean of the hat function of each of ``size`` pixels over each bin: ``[B, R] -> [B, R, bins, size]``."""
    share = torch.linspace(0, 1, bins + 1, dtype=first.dtype, device=first.device)
    edges = first[..., None] + (last - first)[..., None] * share
    pixel = torch.arange(size, dtype=first.dtype, device=first.device)
    offset = (edges[..., None] - pixel).clamp(-1, 1)
    integral = 0.5 + offset - 0.5 * offset * offset.abs()  # of max(0, 1 - |t|) from -1 to the offset
    return (integral[..., 1:, :] - integral[..., :-1, :]) * (bins / (last - first))[..., None, None]
