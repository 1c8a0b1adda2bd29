"""Box conversions. A box is ``(x, y, w, h)`` in pixels, top-left corner first, unless its name says otherwise.

Every function takes arrays or tensors ``[..., 4]`` (numpy or torch) and returns the same kind.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch

Array = TypeVar("Array", np.ndarray, torch.Tensor)


def join(first: Array, second: Array) -> Array:
    """``[..., n]`` and ``[..., m]`` beside each other: ``[..., n + m]``."""
    if isinstance(first, torch.Tensor):
        return torch.cat([first, second], -1)
    return np.concatenate([first, second], -1)


def _stack(parts: list, like):
    return torch.stack(parts, -1) if isinstance(like, torch.Tensor) else np.stack(parts, -1)


def _columns(box):
    return box[..., 0], box[..., 1], box[..., 2], box[..., 3]


def xywh_to_cxcywh(bbox: Array) -> Array:
    """``(x, y, w, h)`` to ``(centre x, centre y, w, h)``."""
    corner, sides = bbox[..., :2], bbox[..., 2:]
    return join(corner + sides / 2, sides)


def cxcywh_to_xywh(bbox_cxcywh: Array) -> Array:
    """``(centre x, centre y, w, h)`` to ``(x, y, w, h)``."""
    centre, sides = bbox_cxcywh[..., :2], bbox_cxcywh[..., 2:]
    return join(centre - sides / 2, sides)


def xywh_to_xyxy(bbox: Array) -> Array:
    """``(x, y, w, h)`` to ``(left, top, right, bottom)``."""
    corner = bbox[..., :2]
    return join(corner, corner + bbox[..., 2:])


def cxcywh_to_xyxy(bbox_cxcywh: Array) -> Array:
    """``(centre x, centre y, w, h)`` to ``(left, top, right, bottom)``."""
    centre, half = bbox_cxcywh[..., :2], bbox_cxcywh[..., 2:] / 2
    return join(centre - half, centre + half)


def clip_xywh(bbox: Array, width, height, min_size: float = 1.0) -> Array:
    """The part of each box inside ``[0, width] x [0, height]``, at least ``min_size`` wide and high.

    A box outside becomes a sliver of ``min_size`` at the border it lies beyond. ``width`` and
    ``height`` are numbers or arrays that broadcast with ``bbox[..., 0]``.
    """
    left, top, right, bottom = _columns(xywh_to_xyxy(bbox))
    if isinstance(bbox, torch.Tensor):
        width, height = (_like(value, bbox) for value in (width, height))
        low, high = torch.minimum, torch.maximum
        zero = torch.zeros((), dtype=bbox.dtype, device=bbox.device)
    else:
        low, high, zero = np.minimum, np.maximum, 0.0
    left = low(high(left, zero), width - min_size)
    top = low(high(top, zero), height - min_size)
    right = high(low(right, width), left + min_size)
    bottom = high(low(bottom, height), top + min_size)
    return _stack([left, top, right - left, bottom - top], bbox)


def _like(value, bbox: torch.Tensor) -> torch.Tensor:
    """A number or array beside boxes; a number is filled in on their device, where a copy would wait for it."""
    if isinstance(value, (int, float)):
        return torch.full((), value, dtype=bbox.dtype, device=bbox.device)
    return torch.as_tensor(value, dtype=bbox.dtype, device=bbox.device)


def iou_xyxy(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """IoU and GIoU of matching boxes ``[..., 4]`` (left, top, right, bottom): two tensors ``[...]``.

    GIoU: Rezatofighi et al., Generalized Intersection over Union, CVPR 2019.
    """
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0)
    intersection = inner[..., 0] * inner[..., 1]
    area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    union = area_a + area_b - intersection
    hull_area = hull[..., 0] * hull[..., 1]
    iou = intersection / union.clamp(min=1e-12)
    return iou, iou - (hull_area - union) / hull_area.clamp(min=1e-12)
