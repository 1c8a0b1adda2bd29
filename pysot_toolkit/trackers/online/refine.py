"""The boxes that climb to where a network scores them highest (``ltr.models.bbreg.refine``), and the answer they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from ltr.models.bbreg.refine import Slope, climb

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

    def climb(self, slope: Slope, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes ``[1, P, 4]`` (x, y, w, h) after the last step from ``boxes``, and their scores ``[1, P]`` before it."""
        relative = self.space == "relative"
        way = climb(slope, boxes, self.iterations, self.step, decay=self.decay, relative=relative)
        return way.boxes[-1], way.scores[-1]


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
