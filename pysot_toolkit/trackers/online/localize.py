"""Where the target is in a score map, and how far that is to be believed.

The highest score is the target's, unless it is too low, or a second peak outside the target's neighbourhood is nearly
as high: then the one near the last position is the target and the other one a distractor to learn from, or, where
that does not decide, nothing is learned (Danelljan et al., ATOM, CVPR 2019, 4.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from config.errors import UserError

Preprocess = Literal["none", "softmax", "exp"]
PREPROCESS: tuple[Preprocess, ...] = ("none", "softmax", "exp")


class Flag(IntEnum):
    """What is known of the target after a frame."""

    NOT_FOUND = 0
    UNCERTAIN = 1
    HARD_NEGATIVE = 2
    NORMAL = 3


@dataclass(frozen=True, kw_only=True)
class LocalizationRules:
    """When a peak is believed."""

    not_found: float = 0.25  # a lower peak is no target
    uncertain: float = -np.inf  # a lower peak is not learned from
    hard_sample: float = -np.inf  # a lower one is learned from as a hard one
    distractor: float = 0.8  # a second peak over this share of the first may be the target
    hard_negative: float = 0.5  # one over this share, and found, is learned from as a hard one
    neighbourhood: float = 2.2  # of the target, in target sizes: no second peak is sought in it
    displacement: float = 0.8  # a peak is near within this share of half the map's side


class Localization(NamedTuple):
    """The answer for one frame."""

    displacement: np.ndarray  # float64 [2], of the target from the map's middle, cells (rows, columns)
    scale: int  # index of the map with the highest peak
    flag: Flag
    cell: tuple[int, int]  # of the target, row and column


def localize(
    scores: np.ndarray,
    rules: LocalizationRules,
    middle: np.ndarray,
    target: np.ndarray,
    previous: np.ndarray,
    window: np.ndarray | None = None,
) -> Localization:
    """Find the target in score maps, one per scale.

    Args:
        scores: ``[S, h, w]``.
        rules: thresholds.
        middle: ``[2]`` (row, column) of the cell that displacements are counted from.
        target: ``[S, 2]``, size of the target in cells of each map.
        previous: ``[S, 2]``, where the target was last, cells from the middle of each map.
        window: ``[h, w]``, factors of the first peak; the second is sought without it. None: no window.

    Raises:
        UserError: scores that are not finite.
    """
    if not np.isfinite(scores).all():
        raise UserError(
            "the network answers with numbers that are not finite; take another checkpoint or precision"
        )
    seen = scores if window is None else scores * window
    scale, *place = (int(i) for i in np.unravel_index(seen.argmax(), seen.shape))
    first, peak = float(seen[scale, place[0], place[1]]), np.array(place)

    def answer(flag: Flag, cell: np.ndarray = peak) -> Localization:
        return Localization(cell - middle, scale, flag, (int(cell[0]), int(cell[1])))

    if first < rules.not_found:
        return answer(Flag.NOT_FOUND)
    if first < rules.uncertain:
        return answer(Flag.UNCERTAIN)
    if first < rules.hard_sample:
        return answer(Flag.HARD_NEGATIVE)

    rest = scores[scale].copy()
    reach = rules.neighbourhood * np.asarray(target[scale], np.float64) / 2
    top, left = np.maximum(np.rint(peak - reach), 0).astype(int)
    bottom, right = np.maximum(np.rint(peak + reach + 1), 0).astype(int)
    rest[top:bottom, left:right] = 0
    other = np.array(np.unravel_index(rest.argmax(), rest.shape))
    second = float(rest[other[0], other[1]])
    if second > rules.distractor * first:
        limit = rules.displacement * np.sqrt(rest.size) / 2
        far = [float(np.linalg.norm(cell - middle - previous[scale])) for cell in (peak, other)]
        if far[0] < limit < far[1]:
            return answer(Flag.HARD_NEGATIVE)
        if far[1] < limit < far[0]:
            return answer(Flag.HARD_NEGATIVE, other)
        return answer(Flag.UNCERTAIN)
    if second > rules.hard_negative * first and second > rules.not_found:
        return answer(Flag.HARD_NEGATIVE)
    return answer(Flag.NORMAL)


def prepared(scores: torch.Tensor, preprocess: Preprocess = "none", summed: int = 1) -> torch.Tensor:
    """Score maps ``[S, h, w]`` as they are searched for peaks.

    Args:
        preprocess: "softmax" over each map, "exp", or "none".
        summed: side of the square of cells whose scores are then added to one, odd.
    """
    if preprocess == "softmax":
        scores = scores.flatten(1).softmax(1).view_as(scores)
    elif preprocess == "exp":
        scores = scores.exp()
    if summed > 1:
        scores = F.avg_pool2d(scores[None], summed, 1, summed // 2, divisor_override=1)[0]
    return scores


def hann(size: tuple[int, int]) -> np.ndarray:
    """Hann window ``[h, w]`` without the zeros at its ends, float32."""
    rows, columns = (np.hanning(length + 2)[1:-1] for length in size)
    return np.outer(rows, columns).astype(np.float32)
