"""Boxes that climb to where a network scores them highest.

ATOM's way moves corner and size in the image, scaled by the box's own size (Danelljan et al., CVPR 2019, 4.3);
PrDiMP's moves the centre in units of one size and the logarithm of the size (Danelljan et al., CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

Scorer = Callable[[torch.Tensor], torch.Tensor]
Space = Literal["default", "relative"]
SPACES: tuple[Space, ...] = ("default", "relative")


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How boxes are refined and one is made of them."""

    iterations: int = 5
    step: tuple[float, float] = (1.0, 1.0)  # of centre (corner) and size
    decay: float = 1.0  # of the step, per iteration
    space: Space = "default"
    random_boxes: int = 9  # beside the one where the classifier sees the target
    position_jitter: float = 0.1  # of these, in sides of a square of the box's area
    size_jitter: float = 0.5
    best: int = 3  # so many are averaged
    max_aspect: float = 6.0  # longer boxes are dropped


def climb(score: Scorer, boxes: torch.Tensor, rules: Refinement) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient ascent of scores.

    Args:
        score: boxes ``[1, P, 4]`` (x, y, w, h) to scores ``[1, P]``, each differentiable in its box.
        boxes: where to begin, ``[1, P, 4]``.

    Returns:
        the boxes after the last step and their scores before it.
    """
    relative = rules.space == "relative"
    unit = boxes[:, :1, 2:].clone()
    x = _to_relative(boxes, unit) if relative else boxes
    step = boxes.new_tensor([rules.step[0], rules.step[0], rules.step[1], rules.step[1]])
    scores = boxes.new_zeros(boxes.shape[:2])
    for _ in range(rules.iterations):
        with torch.inference_mode(False), torch.enable_grad():
            at = x.detach().clone().requires_grad_()
            found = score(_to_boxes(at, unit) if relative else at)
            (gradient,) = torch.autograd.grad(found.sum(), at)
        scores = found.detach()
        x = x + step * (gradient if relative else gradient * x[..., 2:].repeat(1, 1, 2))
        step = step * rules.decay
    return _to_boxes(x, unit) if relative else x, scores


def starting_boxes(box: torch.Tensor, rules: Refinement, generator: torch.Generator) -> torch.Tensor:
    """The box ``[4]`` (x, y, w, h) and random ones about it, ``[1, 1 + random_boxes, 4]``."""
    side = box[2:].prod().sqrt()
    draws = (torch.rand(rules.random_boxes, 4, generator=generator, dtype=box.dtype) - 0.5) * side
    size = (box[2:] + draws[:, 2:] * rules.size_jitter).clamp(min=float(box[2:].min()) / 3)
    centre = box[:2] + box[2:] / 2 + draws[:, :2] * rules.position_jitter
    return torch.cat([box[None], torch.cat([centre - size / 2, size], 1)])[None]


def consensus(
    boxes: torch.Tensor, scores: torch.Tensor, rules: Refinement
) -> tuple[torch.Tensor, float] | None:
    """The mean of the best boxes, and of their scores; None where none has a sensible shape.

    Args:
        boxes: ``[P, 4]`` (x, y, w, h), on the host.
        scores: ``[P]``.
    """
    boxes = torch.cat([boxes[:, :2], boxes[:, 2:].clamp(min=1)], 1)
    aspect = boxes[:, 2] / boxes[:, 3]
    sensible = (aspect < rules.max_aspect) & (aspect > 1 / rules.max_aspect)
    boxes, scores = boxes[sensible], scores[sensible]
    if not len(boxes):
        return None
    best = scores.topk(min(rules.best, len(boxes)))
    return boxes[best.indices].mean(0), float(best.values.mean())


def _to_relative(boxes: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    """``(x, y, w, h)`` to (centre in ``unit``, logarithm of the size)."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:] / 2) / unit, boxes[..., 2:].log()], -1)


def _to_boxes(relative: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    size = relative[..., 2:].exp()
    return torch.cat([relative[..., :2] * unit - size / 2, size], -1)
