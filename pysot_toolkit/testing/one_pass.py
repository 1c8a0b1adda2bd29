"""What a tracker is asked for along a sequence, and one pass, as most benchmarks have it (Wu et al., OTB, CVPR 2013).

A course is a generator: it yields what it asks for, is sent what the tracker said, and ends with the codes of the
frames, if it has any. It knows no tracker and reads no image, so that one loop serves many courses at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple, Protocol

import numpy as np


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
    # float64 [N], the tracker without reading the image; 0 where it did not run. Of frames that several sequences
    # were advanced by together, each counts an equal share of the time.
    seconds: np.ndarray
    unreadable: list[str]  # one message per frame that could not be read
    code: np.ndarray | None = None  # int8 [N] with resets: 1 started, 2 failed, 0 skipped, 3 a box


class OnePassTracker(Protocol):
    """What testing needs of a tracker; see ``pysot_toolkit.trackers.base.Tracker``."""

    def initialize(self, image: np.ndarray, bbox: np.ndarray) -> None: ...

    def track(self, image: np.ndarray) -> tuple[Any, ...]: ...


class Start(NamedTuple):
    """The tracker is given its target."""

    frame: int  # counted from 0
    bbox: np.ndarray  # [4], xywh px


class Follow(NamedTuple):
    """The tracker finds its target."""

    frame: int  # counted from 0, the one after that asked for before


class Seen(NamedTuple):
    """What came of it."""

    bbox: np.ndarray  # float64 [4], xywh px; the last one where the frame could not be read
    size: tuple[int, int]  # width and height of the last image that could be read, px


Course = Generator["Start | Follow", Seen, "np.ndarray | None"]
MakeCourse = Callable[[Clip], Course]


def one_pass(sequence: Clip) -> Course:
    """Start on the first frame's given box and follow the target to the end."""
    yield Start(0, sequence.init_bbox)
    for index in range(1, len(sequence.frames)):
        yield Follow(index)
    return None
