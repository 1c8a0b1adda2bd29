"""One pass of a tracker over one sequence, as all one-pass benchmarks have it (Wu et al., OTB, CVPR 2013)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np

from config.errors import UserError
from pysot_toolkit.trackers.images import BadImage, read_image


class Clip(NamedTuple):
    """What testing needs of a benchmark's sequence; small enough to send to other processes."""

    name: str
    frames: list[str]  # paths of the N images
    init_bbox: np.ndarray  # float64 [4], xywh px
    bbox: np.ndarray | None = None  # float64 [M, 4], xywh px, of the annotated frames
    polygon: np.ndarray | None = None  # float64 [M, 8], where the truth is no rectangle


class TrackResult(NamedTuple):
    """What a tracker said about one sequence of N frames."""

    bboxes: np.ndarray  # float64 [N, 4], xywh px; given boxes where it was started, NaN where it did not run
    scores: np.ndarray  # float64 [N]; 1 for a given box, 0 where a frame could not be read
    seconds: np.ndarray  # float64 [N], the tracker alone, without reading the image; 0 where it did not run
    unreadable: list[str]  # one message per frame that could not be read
    code: np.ndarray | None = None  # int8 [N] with resets: 1 started, 2 failed, 0 skipped, 3 a box


class OnePassTracker(Protocol):
    """What testing needs of a tracker; see ``pysot_toolkit.trackers.base.Tracker``."""

    def initialize(self, image: np.ndarray, bbox: np.ndarray) -> None: ...

    def track(self, image: np.ndarray) -> tuple[Any, ...]: ...


class Recorder:
    """A tracker at work on one sequence, and what it has said so far.

    A frame that cannot be read keeps the last box, with score 0, and is named in the result.
    """

    def __init__(self, tracker: OnePassTracker, sequence: Clip) -> None:
        count = len(sequence.frames)
        self.tracker, self.name = tracker, sequence.name
        self.bboxes, self.scores, self.seconds = np.full((count, 4), np.nan), np.zeros(count), np.zeros(count)
        self.unreadable: list[str] = []

    def start(self, index: int, image: np.ndarray | BadImage, bbox: np.ndarray) -> None:
        """Give the tracker its target: ``bbox`` ``[4]`` in frame ``index``.

        Raises:
            BadImage: the frame cannot be read.
            UserError: there is no usable box.
        """
        box = np.asarray(bbox, dtype=np.float64)
        if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= 0).any():
            raise UserError(
                f"sequence '{self.name}': its box {box.tolist()} of frame {index + 1} is no visible (x, y, w, h); "
                "mend its annotation"
            )
        if isinstance(image, BadImage):
            raise image
        begin = time.perf_counter()
        self.tracker.initialize(image, box.copy())
        self.seconds[index] = time.perf_counter() - begin
        self.bboxes[index], self.scores[index] = box, 1.0

    def follow(self, index: int, image: np.ndarray | BadImage) -> None:
        """Let the tracker find its target in frame ``index``.

        Raises:
            ValueError: it answered with a box that is not four finite numbers.
        """
        if isinstance(image, BadImage):
            self.bboxes[index] = self.bboxes[index - 1]
            self.unreadable.append(str(image))
            return
        begin = time.perf_counter()
        self.bboxes[index], self.scores[index], *_ = self.tracker.track(image)
        self.seconds[index] = time.perf_counter() - begin
        if not np.isfinite(self.bboxes[index]).all():
            raise ValueError(f"the tracker's box of frame {index + 1} is {self.bboxes[index].tolist()}")

    def result(self, code: np.ndarray | None = None) -> TrackResult:
        """All of it."""
        return TrackResult(self.bboxes, self.scores, self.seconds, self.unreadable, code)


def run_sequence(
    tracker: OnePassTracker,
    sequence: Clip,
    on_frame: Callable[[], None] | None = None,
) -> TrackResult:
    """Start ``tracker`` on the first frame's given box and let it follow the target to the end.

    Args:
        on_frame: called after each frame, for a progress line.

    Raises:
        BadImage: the first frame cannot be read.
        UserError: the sequence has no usable first box.
        ValueError: the tracker answered with a box that is not four finite numbers.
    """
    recorder = Recorder(tracker, sequence)
    for i, image in enumerate(read_images(sequence.frames)):
        if i == 0:
            recorder.start(i, image, sequence.init_bbox)
        else:
            recorder.follow(i, image)
        if on_frame is not None:
            on_frame()
    return recorder.result()


def read_images(paths: list[str]) -> Iterator[np.ndarray | BadImage]:
    """The images in order; the next one is decoded while the tracker works on this one."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        following: Future[np.ndarray | BadImage] | None = None
        for i, path in enumerate(paths):
            image = following.result() if following is not None else _read(path)
            following = reader.submit(_read, paths[i + 1]) if i + 1 < len(paths) else None
            yield image


def _read(path: str) -> np.ndarray | BadImage:
    try:
        return read_image(path)
    except BadImage as error:
        return error
