"""Tracking with resets, as the VOT challenges until 2019 have it (Kristan et al., A Novel Performance Evaluation
Methodology for Single-Target Trackers, PAMI 2016).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from config.errors import UserError
from pysot_toolkit.evaluation.protocol import Regions
from pysot_toolkit.evaluation.regions import regions_of, vot_overlaps
from pysot_toolkit.evaluation.vot_results import FAILED, INITIALISED, REGION, SKIPPED
from pysot_toolkit.testing.one_pass import Clip, OnePassTracker, Recorder, TrackResult, read_images

GAP = 5  # frames from a failure to the next start


def run_supervised(
    tracker: OnePassTracker,
    sequence: Clip,
    on_frame: Callable[[], None] | None = None,
) -> TrackResult:
    """Start ``tracker`` on the first frame, and again on the true box of the 5th frame after each failure.

    It has failed where its box and the true region have no pixel of the image in common, by the raster overlap
    with which VOT's results are scored. A failure within the last 5 frames is followed by no other start.

    Args:
        sequence: with the true boxes, and the polygons where there are any, of all frames.
        on_frame: called after each frame, for a progress line.

    Raises:
        BadImage: a frame on which the tracker must start cannot be read.
        UserError: frames are not annotated, or one on which the tracker must start has no usable box.
        ValueError: the tracker answered with a box that is not four finite numbers.
    """
    boxes = sequence.bbox
    if boxes is None or len(boxes) < len(sequence.frames):
        raise UserError(
            f"sequence '{sequence.name}': tracking with resets needs the true region of each of its "
            f"{len(sequence.frames)} frames; mend its annotation"
        )
    truth = regions_of(boxes if sequence.polygon is None else sequence.polygon)
    recorder = Recorder(tracker, sequence)
    code = np.full(len(sequence.frames), SKIPPED, np.int8)
    start, bounds = 0, (0, 0)
    for i, image in enumerate(read_images(sequence.frames)):
        if i == start:
            recorder.start(i, image, boxes[i])
            code[i] = INITIALISED
            bounds = (image.shape[1], image.shape[0])  # type: ignore[union-attr]  # start refuses a BadImage
        elif i > start:
            recorder.follow(i, image)
            true = Regions(truth.values[i : i + 1], truth.length[i : i + 1])
            failed = vot_overlaps(regions_of(recorder.bboxes[i : i + 1]), true, bounds)[0] == 0
            code[i] = FAILED if failed else REGION
            start = i + GAP if failed else start
        if on_frame is not None:
            on_frame()
    return recorder.result(code)
