"""Where a score map sees the target, and boxes that climb from there to where a network scores them highest.

For whole batches, on the device, without waiting for it. ATOM's way moves corner and size in the image, scaled by the
box's own size (Danelljan et al., ATOM, CVPR 2019, section 4.3); PrDiMP's moves the centre in units of one size and the
logarithm of the size (Danelljan et al., PrDiMP, CVPR 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from ltr.data.bbox import cxcywh_to_xywh, xywh_to_cxcywh
from ltr.models.layers.window import hann_window
from ltr.ops.constant import constant

Slope = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Boxes ``[B, P, 4]`` (x, y, w, h) to scores ``[B, P]`` and the derivative of each by its box ``[B, P, 4]``."""


class Climb(NamedTuple):
    """The way of every box."""

    boxes: torch.Tensor  # [iterations + 1, B, P, 4] (x, y, w, h), at the beginning and after each step
    scores: torch.Tensor  # [iterations, B, P], before each step


def peaks(scores: torch.Tensor, stride: float, size: int, window_penalty: float) -> torch.Tensor:
    """The centres of the highest cells.

    Args:
        scores: square maps ``[B, n, n]``, whose middle is that of the image.
        stride: px from cell to cell.
        size: side of the image, px.
        window_penalty: weight of a Hann window that prefers the middle, in [0, 1].

    Returns:
        x and y ``[B, 2]``, px of the image.
    """
    side = scores.shape[-1]
    window = hann_window(side, scores.device)
    best = (scores.flatten(1) * (1 - window_penalty) + window * window_penalty).argmax(1)
    cell = torch.stack([best % side, best // side], 1)
    return size / 2 + (cell - (side - 1) / 2) * stride


def starting_boxes(centre: torch.Tensor, size: torch.Tensor, ratios: tuple[float, ...]) -> torch.Tensor:
    """Boxes about centres ``[B, 2]``: width and height ``size [B, 2]`` times every pair of ratios, ``[B, R * R, 4]``."""
    ratio = constant(ratios, size.dtype, size.device)
    sizes = size[:, None] * torch.cartesian_prod(ratio, ratio)
    return cxcywh_to_xywh(torch.cat([centre[:, None].expand_as(sizes), sizes], -1))


def by_autograd(score: Callable[[torch.Tensor], torch.Tensor]) -> Slope:
    """The slope of scores that are each differentiable in their box, whether or not the caller records gradients."""

    def slope(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            at = boxes.detach().clone().requires_grad_()
            found = score(at)
            (gradient,) = torch.autograd.grad(found.sum(), at)
        return found.detach(), gradient

    return slope


def climb(
    slope: Slope,
    boxes: torch.Tensor,
    iterations: int,
    step: tuple[float, float],
    *,
    decay: float = 1.0,
    relative: bool = False,
    most: float = math.inf,
) -> Climb:
    """Gradient ascent of scores.

    Args:
        slope: scores of boxes and their derivatives.
        boxes: where to begin, ``[B, P, 4]``.
        iterations: steps, each of which asks ``slope`` once.
        step: factors of the steps of corner (centre) and size.
        decay: of these, per iteration.
        relative: PrDiMP's way, in units of the first box of each image; else ATOM's.
        most: factor by which a side changes in a step at most, about the centre to which it moved.
    """
    unit = boxes[:, :1, 2:]
    way, scores = [boxes], []
    for _ in range(iterations):
        found, gradient = slope(boxes)
        scores.append(found)
        if relative:
            moved = _relative_step(boxes, gradient, unit, step)
        else:
            corner, size = gradient.split(2, -1)
            scaled = torch.cat([step[0] * corner, step[1] * size], -1)
            moved = boxes + scaled * boxes[..., 2:].repeat(1, 1, 2)
        boxes = moved if most == math.inf else _limited(moved, boxes, most)
        way.append(boxes)
        step = (step[0] * decay, step[1] * decay)
    return Climb(torch.stack(way), torch.stack(scores))


def highest(way: Climb) -> tuple[torch.Tensor, torch.Tensor]:
    """Each box where its score was highest, ``[B, P, 4]``, and that score ``[B, P]``; where the last step led to was
    not scored."""
    scores, at = way.scores.nan_to_num(nan=-math.inf).max(
        0
    )  # a diverged network's boxes stay where they began
    return way.boxes[:-1].gather(0, at[None, ..., None].expand(1, *at.shape, 4))[0], scores


def _relative_step(
    boxes: torch.Tensor, gradient: torch.Tensor, unit: torch.Tensor, step: tuple[float, float]
) -> torch.Tensor:
    """A step of (centre / unit, logarithm of the size), whose derivatives follow from those by (x, y, w, h)."""
    corner, size = boxes.split(2, -1)
    by_corner, by_size = gradient.split(2, -1)
    centre = corner + size / 2 + unit.square() * by_corner * step[0]
    size = size * (step[1] * size * (by_size - by_corner / 2)).exp()
    return cxcywh_to_xywh(torch.cat([centre, size], -1))


def _limited(moved: torch.Tensor, before: torch.Tensor, most: float) -> torch.Tensor:
    """Boxes whose sides change by a factor of ``most`` at most, about their centres."""
    centre, size = xywh_to_cxcywh(moved).split(2, -1)
    limited = torch.minimum(torch.maximum(size, before[..., 2:] / most), before[..., 2:] * most)
    return cxcywh_to_xywh(torch.cat([centre, limited], -1))
