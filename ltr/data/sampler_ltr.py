"""Which frames make up a sample of the DiMP family: train frames to learn a target from, test frames to find it in.

As in ``ltr.data.sampler``, a sample depends on (seed, epoch, index, attempt) alone, and no pixels are read here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from config.errors import UserError, nearest
from ltr.data.sampler import FrameBox

if TYPE_CHECKING:
    from ltr.dataset.base import VideoDataset

CAUSAL, INTERVAL = "causal", "interval"
MODES = (CAUSAL, INTERVAL)

_STREAM = 4  # of random numbers; ltr.data.sampler uses 1 to 3
_MAX_VIDEOS = 1000
_SHORTEST = 20  # frames of a video
_WIDENING = 5  # frames by which the gap grows until it reaches a visible frame


class SequenceFrames(NamedTuple):
    """The frames of one sample; a frame may come more than once."""

    train: list[FrameBox]
    test: list[FrameBox]


class TrackingSequences:
    """Train and test frames of one target (Danelljan et al., ATOM, CVPR 2019; Bhat et al., DiMP, ICCV 2019).

    A data set is drawn by its weight, then one of its videos uniformly that is long enough and shows the target
    in more than ``2 * (train + test)`` frames, then frames as in ``causal_frames`` or ``interval_frames``.
    A video of one frame is an image: all frames of the sample are this one, and differ by their crops.
    Annotations are read when they are drawn.

    Args:
        datasets: where frames and boxes lie.
        seed: of the run.
        weights: how often each data set is drawn, in proportion; None: by its number of videos.
        train_frames, test_frames: frames per sample.
        max_gap: frames between the first train frame and any other at most, where that reaches a visible one.
        mode: ``causal`` or ``interval``.
    """

    def __init__(
        self,
        datasets: Sequence[VideoDataset],
        seed: int,
        *,
        weights: Sequence[float] | None = None,
        train_frames: int = 1,
        test_frames: int = 1,
        max_gap: int,
        mode: str = CAUSAL,
    ) -> None:
        if mode not in MODES:
            raise UserError(f"frame sampling '{mode}': {nearest(mode, MODES)}")
        if train_frames < 1 or test_frames < 1 or max_gap < 1:
            raise UserError(
                f"{train_frames} train frames, {test_frames} test frames, gap {max_gap}: must be at least 1"
            )
        shares = [len(dataset) for dataset in datasets] if weights is None else weights
        if len(shares) != len(datasets) or min(shares) < 0 or not 0 < sum(shares) < math.inf:
            raise UserError(
                f"weights {list(shares)} of {len(datasets)} data sets: one number each is needed, not all 0"
            )
        self._datasets = list(datasets)
        self._ends = np.cumsum(shares) / math.fsum(shares)
        self._seed, self._counts, self._gap = seed, (train_frames, test_frames), max_gap
        self._choose = causal_frames if mode == CAUSAL else interval_frames

    def draw(self, epoch: int, index: int, attempt: int = 0) -> SequenceFrames:
        """The sample ``index`` of ``epoch``.

        Raises:
            UserError: an annotation file is broken, or no video shows its target often enough.
        """
        rng = np.random.default_rng([self._seed, epoch, index, attempt, _STREAM])
        which = int(np.searchsorted(self._ends, rng.random(), "right"))
        dataset = self._datasets[min(which, len(self._ends) - 1)]
        for _ in range(_MAX_VIDEOS):
            video = int(rng.integers(len(dataset)))
            annotation = dataset.annotation(video)
            sized = (annotation.bbox[:, 2:] > 0).all(1) & np.isfinite(annotation.bbox).all(1)
            visible = np.flatnonzero(annotation.visible & sized)
            frames = self._frames(visible, dataset.num_frames(video), rng)
            if frames is not None:
                train, test = (
                    [
                        FrameBox(
                            dataset.frame_path(video, frame), np.array(annotation.bbox[frame], np.float64)
                        )
                        for frame in part.tolist()
                    ]
                    for part in frames
                )
                return SequenceFrames(train, test)
        raise UserError(
            f"{dataset.name}:{dataset.split}: {_MAX_VIDEOS} videos drawn, none shows its target in more than "
            f"{2 * sum(self._counts)} of at least {_SHORTEST} frames; check the annotations"
        )

    def _frames(
        self, visible: np.ndarray, length: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Train and test frames of a video of ``length`` frames, or None where it shows too little."""
        if length == 1 and len(visible):
            train, test = (np.zeros(count, np.int64) for count in self._counts)
            return train, test
        if length < _SHORTEST or len(visible) <= 2 * sum(self._counts):
            return None
        return self._choose(visible, *self._counts, self._gap, rng)


def causal_frames(
    visible: np.ndarray, train: int, test: int, gap: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Test frames that come after all train frames.

    The first train frame is uniform over those that have a visible frame on the needed sides; the others are
    uniform over the ``gap`` frames before it and the test frames over the ``gap`` frames after it, each with
    replacement. On a side where none of these is visible, the gap grows in steps of five until one is.

    Args:
        visible: sorted numbers ``[n]`` of the frames that show the target, n >= 3.
        train, test: how many to draw, at least 1.

    Returns:
        frame numbers ``[train]`` and ``[test]``.
    """
    at = int(rng.integers(1 if train > 1 else 0, len(visible) - 1))
    base = int(visible[at])
    after = _within(visible, base + 1, base + _reach(int(visible[at + 1]) - base, gap))
    before = visible[:0]
    if train > 1:
        before = _within(visible, base - _reach(base - int(visible[at - 1]), gap), base - 1)
    return np.append(base, _drawn(before, train - 1, rng)), _drawn(after, test, rng)


def interval_frames(
    visible: np.ndarray, train: int, test: int, gap: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """All frames around the first train frame, in any order: uniform over those at most ``gap`` away from it.

    Arguments and result are those of ``causal_frames``.
    """
    base = int(visible[rng.integers(len(visible))])
    around = _within(visible, base - gap, base + gap)
    return np.append(base, _drawn(around, train - 1, rng)), _drawn(around, test, rng)


def _reach(distance: int, gap: int) -> int:
    """The gap, widened until it covers a distance."""
    return gap + _WIDENING * max(0, math.ceil((distance - gap) / _WIDENING))


def _within(frames: np.ndarray, first: int, last: int) -> np.ndarray:
    """The frames from ``first`` to ``last``, both included."""
    return frames[slice(*np.searchsorted(frames, (first, last + 1)))]


def _drawn(frames: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return frames[rng.integers(len(frames), size=count)] if count else frames[:0]
