"""Which frames make up a training sample; no pixels are read here.

A sample depends on (seed, epoch, index, attempt) and on the sampler state of the epoch alone, never on
the process or the order in which samples are asked for. ``attempt`` counts how often a sample has been replaced
because one of its images cannot be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from config.errors import UserError
from ltr.data.frame_choice import choose, coarse_box, nearest
from ltr.data.sampler_state import SamplerState

if TYPE_CHECKING:
    from ltr.dataset.base import VideoDataset

# One stream of random numbers for each kind of sample.
_LABELLED, _ANNOTATED, _SPARSE = 1, 2, 3
_MAX_EMPTY_VIDEOS = 1000


class FrameBox(NamedTuple):
    """An image and where the target is in it, or roughly is."""

    path: str
    bbox: np.ndarray
    """float64 ``[4]``: x, y, w, h in pixels of the image."""


class LabelledPair(NamedTuple):
    """Two labelled frames of one target; they may be the same frame."""

    template: FrameBox
    search: FrameBox


class SparseInstance(NamedTuple):
    """An unlabelled frame with what teacher and student need to learn from it."""

    key: FrameBox
    """the labelled frame nearest to the unlabelled one: the teacher's template"""
    unlabeled: FrameBox
    """the frame to locate, with a coarse box: the teacher's and the student's search"""
    relay: FrameBox
    """a recorded frame: the student's template"""
    row: int
    """of the sampler state"""
    frame: int
    """number of the unlabelled frame in its video"""
    mode: str
    """``reviewing`` or ``propagating``"""


class LabelledPairs:
    """Pairs of key frames.

    A data set is drawn with equal weights, a video uniformly among those with key frames, one of
    its trajectories uniformly, and template and search independently from its key frames.

    Args:
        datasets: where the frames lie.
        state: which frames are labelled; its labels never change, so it needs no refresh.
        seed: of the run.

    Raises:
        UserError: a data set has no video with key frames, or a key frame lies beyond its video's end.
    """

    def __init__(self, datasets: Sequence[VideoDataset], state: SamplerState, seed: int) -> None:
        self._videos = _LabelledVideos(datasets, state)
        self._state = state
        self._seed = seed

    def draw(self, epoch: int, index: int, attempt: int = 0) -> LabelledPair:
        """The sample ``index`` of ``epoch``."""
        draws = _draws(5, self._seed, epoch, index, attempt, _LABELLED)
        dataset, video, row = self._videos.pick(draws)
        frames, bboxes = self._state.key_frames(row), self._state.key_boxes(row)
        at = (draws[3:] * len(frames)).astype(int).tolist()
        return LabelledPair(
            *(FrameBox(dataset.frame_path(video, int(frames[i])), bboxes[i].copy()) for i in at)
        )


class AnnotatedPairs:
    """Pairs of any two visible frames: full supervision, the baseline.

    A data set is drawn with equal weights, then a video and a template frame uniformly; the search frame
    is uniform over the visible frames at most ``max_gap`` away. Annotations are read when they are drawn.

    Args:
        datasets: where frames and boxes lie.
        seed: of the run.
        max_gap: frames between template and search at most; None: any.
    """

    def __init__(self, datasets: Sequence[VideoDataset], seed: int, max_gap: int | None) -> None:
        self._datasets = list(datasets)
        self._seed = seed
        self._max_gap = max_gap

    def draw(self, epoch: int, index: int, attempt: int = 0) -> LabelledPair:
        """The sample ``index`` of ``epoch``.

        Raises:
            UserError: an annotation file is broken, or no video has a visible frame.
        """
        rng = _generator(self._seed, epoch, index, attempt, _ANNOTATED)
        for _ in range(_MAX_EMPTY_VIDEOS):
            draws = rng.random(4)
            dataset = self._datasets[int(draws[0] * len(self._datasets))]
            video = int(draws[1] * len(dataset))
            annotation = dataset.annotation(video)
            sized = (annotation.bbox[:, 2:] > 0).all(1) & np.isfinite(annotation.bbox).all(1)
            frames = np.flatnonzero(annotation.visible & sized)
            if len(frames):
                template = int(frames[int(draws[2] * len(frames))])
                if self._max_gap is not None:
                    reach = (template - self._max_gap, template + self._max_gap + 1)
                    frames = frames[slice(*np.searchsorted(frames, reach))]
                search = int(frames[int(draws[3] * len(frames))])
                return LabelledPair(
                    *(
                        FrameBox(
                            dataset.frame_path(video, frame), np.array(annotation.bbox[frame], np.float64)
                        )
                        for frame in (template, search)
                    )
                )
        names = ", ".join(f"{dataset.name}:{dataset.split}" for dataset in self._datasets)
        raise UserError(
            f"{names}: {_MAX_EMPTY_VIDEOS} videos drawn, none with a visible frame; check the annotations"
        )


class SparseInstances:
    """Unlabelled frames for the teacher to locate (Zheng et al., SPOT, IEEE TIP 2024).

    Data set, video and trajectory are drawn as in ``LabelledPairs``; frames as in ``frame_choice.choose``.
    The first draw of another epoch looks for what has been merged into the state.

    Args:
        datasets: where the frames lie.
        state: what has been located so far.
        seed: of the run.
        propagating_step: how far from the recorded frames a new one may lie.
        interpolation_limit: frames between which a coarse box is interpolated.

    Raises:
        UserError: as for ``LabelledPairs``, or a recorded frame lies beyond its video's end.
    """

    def __init__(
        self,
        datasets: Sequence[VideoDataset],
        state: SamplerState,
        seed: int,
        propagating_step: int,
        interpolation_limit: int,
    ) -> None:
        if propagating_step < 1:
            raise UserError(f"setting sparse.propagating_step {propagating_step}: must be at least 1")
        self._videos = _LabelledVideos(datasets, state)
        self._state = state
        self._seed = seed
        self._step = propagating_step
        self._limit = interpolation_limit
        self._epoch: int | None = None

    def draw(self, epoch: int, index: int, attempt: int = 0) -> SparseInstance:
        """The sample ``index`` of ``epoch``.

        Raises:
            InterruptedMerge: the sampler state is being merged into, or a merge was cut off.
        """
        if epoch != self._epoch:
            self._state.refresh()
            self._epoch = epoch
        draws = _draws(7, self._seed, epoch, index, attempt, _SPARSE)
        dataset, video, row = self._videos.pick(draws)
        recorded, bboxes, _ = self._state.recorded(row)
        choice = choose(draws[3:], recorded, dataset.num_frames(video), self._step)
        keys = self._state.key_frames(row)
        key = int(keys[nearest(keys, choice.unlabeled)])

        def located(frame: int) -> FrameBox:
            box = coarse_box(recorded, bboxes, frame, self._limit)
            np.maximum(box[2:], 1.0, out=box[2:])  # states of the published system hold boxes without area
            return FrameBox(dataset.frame_path(video, frame), box)

        return SparseInstance(
            located(key), located(choice.unlabeled), located(choice.relay), row, choice.unlabeled, choice.mode
        )


class _LabelledVideos:
    """The videos with key frames of each data set, and the rows of their trajectories in the state."""

    def __init__(self, datasets: Sequence[VideoDataset], state: SamplerState) -> None:
        rows_of: dict[str, list[int]] = {}
        labelled = (state.key_counts() > 0).tolist()
        for row, (key, _) in enumerate(state.sequences):
            if labelled[row]:
                rows_of.setdefault(key, []).append(row)
        self._datasets = list(datasets)
        self._tables = [_table(dataset, rows_of, state) for dataset in self._datasets]

    def pick(self, draws: np.ndarray) -> tuple[VideoDataset, int, int]:
        """(data set, video, row) for three uniform draws in [0, 1)."""
        which, video_draw, row_draw = draws[:3].tolist()
        number = int(which * len(self._datasets))
        videos, first, rows = self._tables[number]
        at = int(video_draw * len(videos))
        begin, end = int(first[at]), int(first[at + 1])
        return self._datasets[number], int(videos[at]), int(rows[begin + int(row_draw * (end - begin))])


def _table(
    dataset: VideoDataset, rows_of: dict[str, list[int]], state: SamplerState
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Videos ``[v]``, where the rows of each begin ``[v + 1]``, and the rows: arrays, small to hand to workers."""
    name = f"{dataset.name}:{dataset.split}"
    videos: list[int] = []
    first, rows = [0], []
    for video, key in enumerate(dataset.keys):
        own = rows_of.get(key)
        if not own:
            continue
        length = dataset.num_frames(video)
        for row in own:
            last = int(state.recorded(row)[0][-1])
            if last >= length:
                raise UserError(
                    f"{name}: frame {last} of {key} is recorded, but the video has {length} frames; "
                    "use the key frames and the sampler state of this data set, or restore its frames"
                )
        videos.append(video)
        rows.extend(own)
        first.append(len(rows))
    if not videos:
        raise UserError(f"{name}: no video has key frames; sample them with key_frame_sampling.py")
    return np.array(videos, np.int64), np.array(first, np.int64), np.array(rows, np.int64)


def _generator(seed: int, epoch: int, index: int, attempt: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, index, attempt, stream])))


def _draws(count: int, seed: int, epoch: int, index: int, attempt: int, stream: int) -> np.ndarray:
    return _generator(seed, epoch, index, attempt, stream).random(count)
