"""Which frames of a video may be located next, and where the target roughly is in them.

``recorded`` is always the sorted frame numbers ``[n]`` (n >= 1) whose boxes are known. All functions cost a
binary search or a few vector operations over ``recorded``, never over the video.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

import numpy as np

REVIEWING = "reviewing"
PROPAGATING = "propagating"


class Choice(NamedTuple):
    """The frames of one unsupervised instance; both are frame numbers."""

    unlabeled: int
    relay: int
    mode: str


def neighbours(recorded: np.ndarray, frame: int) -> tuple[int, int]:
    """Positions in ``recorded`` of the nearest frame and of the one on the other side.

    In a tie the later frame is nearest. Before the first and after the last both are that frame. A
    recorded frame is its own nearest; the other is the next one, for the last frame the one before.
    """
    above = bisect_left(recorded, frame)  # numpy's search would convert all of ``recorded`` first
    last = len(recorded) - 1
    if above > last:
        return last, last
    if recorded[above] == frame:
        return above, (above + 1 if above < last else max(last - 1, 0))
    if above == 0:
        return 0, 0
    below = above - 1
    if int(recorded[above]) - frame <= frame - int(recorded[below]):
        return above, below
    return below, above


def nearest(recorded: np.ndarray, frame: int) -> int:
    """Position in ``recorded`` of the frame nearest to ``frame``; the later one in a tie."""
    return neighbours(recorded, frame)[0]


def coarse_box(recorded: np.ndarray, bboxes: np.ndarray, frame: int, limit: int) -> np.ndarray:
    """A guess of the target's box in ``frame``.

    The linear interpolation between the two neighbours when they are at most ``limit`` frames apart, else
    the nearest one's box. ``bboxes`` is ``[n, 4]`` (x, y, w, h) in pixels; returns a new float64 ``[4]``.
    """
    near, far = neighbours(recorded, frame)
    gap = int(recorded[far]) - int(recorded[near])
    box = np.array(bboxes[near], np.float64)
    if gap == 0 or abs(gap) > limit:
        return box
    return box + (bboxes[far] - box) * ((frame - int(recorded[near])) / gap)


def frontier(recorded: np.ndarray, length: int, radius: int, inner: int = 0) -> np.ndarray:
    """The frames of a video of ``length`` frames whose distance to the nearest recorded one is in
    ``(inner, radius]``, ascending: int64 ``[m]``.

    Published as ``propagating_step``: with step s, ``inner = max(0, min(s // 2, s - 1))`` and the radius
    is drawn from ``inner + 1 .. s``.
    """
    border = _Frontier(recorded, length, radius, inner)
    return np.array([border.frame(rank) for rank in range(border.total)], np.int64)


def choose(draws: np.ndarray, recorded: np.ndarray, length: int, step: int) -> Choice:
    """The unlabelled frame and the relay frame of one instance.

    With probability n / ``length`` (*reviewing*) the unlabelled frame is uniform over the recorded frames,
    otherwise (*propagating*) over the frontier; with an empty frontier the video is reviewed. The relay
    frame is uniform over the recorded frames other than the unlabelled one, and equals it only when no
    other is recorded.

    Args:
        draws: float64 ``[4]``, uniform in [0, 1): mode, radius, unlabelled frame, relay frame.
        length: frames of the video.
        step: ``propagating_step``, at least 1.
    """
    count = len(recorded)
    mode, radius_draw, unlabeled_draw, relay_draw = draws.tolist()
    if mode * length >= count:
        inner = max(0, min(step // 2, step - 1))
        radius = inner + 1 + int(radius_draw * (step - inner))
        border = _Frontier(recorded, length, radius, inner)
        if border.total:
            unlabeled = border.frame(int(unlabeled_draw * border.total))
            return Choice(unlabeled, int(recorded[int(relay_draw * count)]), PROPAGATING)
    at = int(unlabeled_draw * count)
    other = (at + 1 + int(relay_draw * (count - 1))) % count
    return Choice(int(recorded[at]), int(recorded[other]), REVIEWING)


class _Frontier:
    """The frontier as counts per gap, so that its k-th frame is found without listing it.

    Gap i is the run of unrecorded frames before recorded frame i, gap n the one after the last. Within
    distance m of a recorded frame lie ``min(gap, 2 m)`` frames of an inner gap and ``min(gap, m)`` of an
    outer one, which has a recorded frame on one side only.
    """

    def __init__(self, recorded: np.ndarray, length: int, radius: int, inner: int) -> None:
        self._recorded, self._radius, self._inner = recorded, radius, inner
        bounds = np.empty(len(recorded) + 2, np.int64)
        bounds[0], bounds[1:-1], bounds[-1] = -1, recorded, max(length, int(recorded[-1]) + 1)
        self._gaps = bounds[1:] - bounds[:-1] - 1
        sides = np.full(len(self._gaps), 2)
        sides[0] = sides[-1] = 1
        counts = np.minimum(self._gaps, sides * radius)
        if inner:
            counts -= np.minimum(self._gaps, sides * inner)
        self._ends = counts.cumsum()
        self.total = int(self._ends[-1])

    def frame(self, rank: int) -> int:
        """The ``rank``-th frame of the frontier, in ascending order."""
        gap = bisect_right(self._ends, rank)
        offset = rank - (int(self._ends[gap - 1]) if gap else 0)
        size = int(self._gaps[gap])
        if gap == 0:
            after_left = 0
        elif gap == len(self._recorded):
            after_left = size
        else:
            after_left = min(self._radius, size - self._inner) - self._inner
        if offset < after_left:
            return int(self._recorded[gap - 1]) + 1 + self._inner + offset
        return int(self._recorded[gap]) - self._inner - (int(self._ends[gap]) - rank)
