"""The worst moments of each tracker, as a few frames with all boxes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from config.errors import UserError
from pysot_toolkit.datasets.base import Sequence as BenchmarkSequence
from pysot_toolkit.visualization.overlay import draw_frame

LOST = 0.2  # overlap below which a tracker shows something else than the target
STRIPS = 24  # in one report, of all trackers together: about 1 MB
_PER_TRACKER = 6
_FRAMES = 6  # in a strip
_TILE = 240  # width of a frame in a strip, px
_QUALITY = 72  # of its JPEG
_ENLARGED = 2.0  # at most


class Segment(NamedTuple):
    """A span of frames in which a tracker has lost its target."""

    tracker: str
    video: str
    first: int  # 0-based
    last: int  # included
    visible: int  # frames of it in which the target can be seen
    lost: float  # sum of 1 - overlap over those frames
    shown: tuple[int, ...]  # frames for a strip: from the one before to the one after, target visible


class Strip(NamedTuple):
    """A segment to look at: one JPEG per frame of ``segment.shown``."""

    segment: Segment
    jpegs: list[bytes]
    size: tuple[int, int]  # width, height in px


def worst_segments(
    overlaps: Mapping[str, Mapping[str, np.ndarray]], trackers: Sequence[str]
) -> dict[str, list[Segment]]:
    """Tracker to its worst segments, the most lost overlap first; each video counts once per tracker.

    Args:
        overlaps: tracker -> video -> overlap per frame, ``[N]``, NaN where the target is absent.
        trackers: whose; no more than ``STRIPS`` segments are found for all together.
    """
    each = min(_PER_TRACKER, max(1, STRIPS // max(len(trackers), 1)))
    table = {}
    for tracker in trackers[:STRIPS]:
        found = [
            segment
            for video, overlap in overlaps.get(tracker, {}).items()
            if (segment := worst_segment(tracker, video, overlap)) is not None
        ]
        table[tracker] = sorted(found, key=lambda segment: (-segment.lost, segment.video))[:each]
    return table


def worst_segment(tracker: str, video: str, overlap: np.ndarray) -> Segment | None:
    """The span of frames with overlap below ``LOST`` that loses most; None where there is none.

    Frames without a target neither end a span nor add to it: who lost the target before it hid and does not find
    it again is lost once.
    """
    visible = np.flatnonzero(~np.isnan(overlap))
    values = overlap[visible].astype(np.float64)
    edges = np.diff(np.concatenate([[False], values < LOST, [False]]).astype(np.int8))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if not starts.size:
        return None
    summed = np.concatenate([[0.0], np.cumsum(1 - values)])
    lost = summed[stops] - summed[starts]
    worst = int(lost.argmax())
    start, stop = int(starts[worst]), int(stops[worst])
    around = np.linspace(max(start - 1, 0), min(stop, len(visible) - 1), _FRAMES).round().astype(int)
    return Segment(
        tracker,
        video,
        int(visible[start]),
        int(visible[stop - 1]),
        stop - start,
        float(lost[worst]),
        tuple(visible[np.unique(around)].tolist()),
    )


def draw_strip(
    sequence: BenchmarkSequence,
    segment: Segment,
    predictions: Mapping[str, np.ndarray],
) -> Strip:
    """Draw a segment; all frames show the same part of the image, which holds the target and what was predicted.

    Args:
        sequence: of ``segment.video``.
        segment: what to draw.
        predictions: tracker to boxes (x, y, w, h) in px, ``[n, 4]``.

    Raises:
        UserError: a frame is missing or no image.
    """
    shown = list(segment.shown)
    for index in shown:
        if not os.path.isfile(sequence.frames[index]):  # OpenCV would complain on the terminal
            raise UserError(f"{sequence.frames[index]}: is missing; restore the file")
    truth = sequence.ground_truth[shown]
    predicted = [boxes[[k for k in shown if k < len(boxes)]] for boxes in predictions.values()]
    left, top, width, height = _part(truth, np.concatenate([truth, *predicted]), sequence.image_size)
    scale = _TILE / width
    size = (_TILE, max(1, round(height * scale)))
    jpegs = []
    for index in shown:
        image = draw_frame(sequence, index, predictions, scale, label=False)
        x, y = round(left * scale), round(top * scale)
        part = image[y : y + size[1], x : x + size[0]]
        tile = np.zeros((size[1], size[0], 3), np.uint8)  # an image may be smaller than the first one
        tile[: part.shape[0], : part.shape[1]] = part
        _, data = cv2.imencode(
            ".jpg", cv2.cvtColor(tile, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        )
        jpegs.append(data.tobytes())
    return Strip(segment, jpegs, size)


def _part(truth: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The part of an image (left, top, width, height in px) in its own aspect ratio around all ``boxes [M, 4]``
    with a margin of the target's size.
    """
    limit = np.array(size, np.float64)
    boxes = boxes[np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)]
    low = boxes[:, :2].clip(0, limit).min(axis=0)
    high = (boxes[:, :2] + boxes[:, 2:]).clip(0, limit).max(axis=0)
    margin = float(truth[:, 2:].mean())
    share = max(float(((high - low + 2 * margin) / limit).max()), _TILE / _ENLARGED / size[0])
    extent = limit * min(share, 1.0)
    corner = ((low + high - extent) / 2).clip(0, limit - extent)
    return float(corner[0]), float(corner[1]), float(extent[0]), float(extent[1])
