"""One pass of a tracker over one sequence, as all one-pass benchmarks have it (Wu et al., OTB, CVPR 2013)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np

from config.errors import UserError
from pysot_toolkit.testing.results import TrackResult
from pysot_toolkit.trackers.images import BadImage, read_image


class Clip(NamedTuple):
    """What testing needs of a benchmark's sequence; small enough to send to other processes."""

    name: str
    frames: list[str]  # paths of the N images
    init_bbox: np.ndarray  # float64 [4], xywh px


class OnePassTracker(Protocol):
    """What testing needs of a tracker; see ``pysot_toolkit.trackers.base.Tracker``."""

    def initialize(self, image: np.ndarray, bbox: np.ndarray) -> None: ...

    def track(self, image: np.ndarray) -> tuple[np.ndarray, float]: ...


def run_sequence(
    tracker: OnePassTracker,
    sequence: Clip,
    on_frame: Callable[[], None] | None = None,
) -> TrackResult:
    """Start ``tracker`` on the first frame's given box and let it follow the target to the end.

    A frame that cannot be read keeps the last box, with score 0, and is named in the result.

    Args:
        on_frame: called after each frame, for a progress line.

    Raises:
        BadImage: the first frame cannot be read.
        UserError: the sequence has no usable first box.
        ValueError: the tracker answered with a box that is not four finite numbers.
    """
    first = np.asarray(sequence.init_bbox, dtype=np.float64)
    if first.shape != (4,) or not np.isfinite(first).all() or (first[2:] <= 0).any():
        raise UserError(
            f"sequence '{sequence.name}': its first box {first.tolist()} is no visible (x, y, w, h); mend its annotation"
        )
    count = len(sequence.frames)
    bboxes, scores, seconds = np.empty((count, 4)), np.zeros(count), np.zeros(count)
    bboxes[0], scores[0] = first, 1.0
    unreadable: list[str] = []
    for i, image in enumerate(_images(sequence.frames)):
        start = time.perf_counter()
        if i == 0:
            if isinstance(image, BadImage):
                raise image
            tracker.initialize(image, first.copy())
        elif isinstance(image, BadImage):
            bboxes[i] = bboxes[i - 1]
            unreadable.append(str(image))
        else:
            bbox, score = tracker.track(image)
            bboxes[i], scores[i] = bbox, score
            if not np.isfinite(bboxes[i]).all():
                raise ValueError(f"the tracker's box of frame {i + 1} is {bboxes[i].tolist()}")
        seconds[i] = time.perf_counter() - start
        if on_frame is not None:
            on_frame()
    return TrackResult(bboxes, scores, seconds, unreadable)


def _images(paths: list[str]) -> Iterator[np.ndarray | BadImage]:
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
