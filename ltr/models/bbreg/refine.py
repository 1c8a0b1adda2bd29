"""Where a score map sees the target, and boxes that climb from there to where a network scores them highest.

For whole batches, on the device, without waiting for it. Danelljan et al., ATOM, CVPR 2019, section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ltr.data.bbox import cxcywh_to_xywh, xywh_to_cxcywh
from ltr.models.layers.window import hann_window

Scorer = Callable[[torch.Tensor], torch.Tensor]


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
    ratio = size.new_tensor(ratios)
    sizes = size[:, None] * torch.cartesian_prod(ratio, ratio)
    return cxcywh_to_xywh(torch.cat([centre[:, None].expand_as(sizes), sizes], -1))


def climb(
    score: Scorer, boxes: torch.Tensor, iterations: int, step: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient ascent of scores; a step is scaled by the box's own size.

    Args:
        score: boxes ``[B, P, 4]`` (x, y, w, h) to scores ``[B, P]``, each differentiable in its box.
        boxes: where to begin, ``[B, P, 4]``.
        iterations: steps.
        step: their factor.

    Returns:
        each box where its score was highest on the way, and that score.
    """
    best, highest = boxes, boxes.new_full(boxes.shape[:2], -torch.inf)
    for iteration in range(iterations + 1):
        with torch.enable_grad():
            at = boxes.detach().requires_grad_()
            found = score(at)
            (slope,) = torch.autograd.grad(found.sum(), at)
        better = found.detach() > highest
        best = torch.where(better[..., None], at.detach(), best)
        highest = torch.where(better, found.detach(), highest)
        if iteration < iterations:
            boxes = _sensible(at.detach() + step * slope * at.detach()[..., 2:].repeat(1, 1, 2), at.detach())
    return best, highest


def _sensible(moved: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Boxes whose sides change by a factor of two at most in a step, about the centres to which they moved."""
    centre, size = xywh_to_cxcywh(moved).split(2, -1)
    limited = torch.minimum(torch.maximum(size, before[..., 2:] / 2), before[..., 2:] * 2)
    return cxcywh_to_xywh(torch.cat([centre, limited], -1))
