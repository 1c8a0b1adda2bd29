"""Tracking with resets, as the VOT challenges until 2019 have it (Kristan et al., A Novel Performance Evaluation
Methodology for Single-Target Trackers, PAMI 2016).
"""

from __future__ import annotations

import numpy as np

from config.errors import UserError
from pysot_toolkit.evaluation.protocol import Regions
from pysot_toolkit.evaluation.regions import regions_of, vot_overlaps
from pysot_toolkit.evaluation.vot_results import FAILED, INITIALISED, REGION, SKIPPED
from pysot_toolkit.testing.one_pass import Clip, Course, Follow, Start

GAP = 5  # frames from a failure to the next start


def supervised(sequence: Clip) -> Course:
    """Start on the first frame, and again on the true box of the 5th frame after each failure.

    The tracker has failed where its box and the true region have no pixel of the image in common, by the raster
    overlap with which VOT's results are scored. A failure within the last 5 frames is followed by no other start.

    Args:
        sequence: with the true boxes, and the polygons where there are any, of all frames.

    Raises:
        UserError: frames are not annotated.
    """
    count, boxes = len(sequence.frames), sequence.bbox
    if boxes is None or len(boxes) < count:
        raise UserError(
            f"sequence '{sequence.name}': tracking with resets needs the true region of each of its "
            f"{count} frames; mend its annotation"
        )
    truth = regions_of(boxes if sequence.polygon is None else sequence.polygon)
    code = np.full(count, SKIPPED, np.int8)
    start, bounds = 0, (0, 0)
    for i in range(count):
        if i == start:
            bounds = (yield Start(i, boxes[i])).size
            code[i] = INITIALISED
        elif i > start:
            seen = yield Follow(i)
            true = Regions(truth.values[i : i + 1], truth.length[i : i + 1])
            failed = vot_overlaps(regions_of(seen.bbox[None]), true, bounds)[0] == 0
            code[i] = FAILED if failed else REGION
            start = i + GAP if failed else start
    return code
