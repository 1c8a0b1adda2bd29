"""Geometry of matching boxes ``[N, 4]`` (x, y, w, h) px that the one-pass protocols share.

Everything goes column by column in double precision: numpy is slow on rows of two or four numbers
(and fastest where the columns are contiguous), and the order of the operations decides exact ties
with a threshold.
"""

from __future__ import annotations

import numpy as np

Points = tuple[np.ndarray, np.ndarray]  # x [N], y [N]


def intersections(
    truth: np.ndarray, prediction: np.ndarray, last_pixel: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Areas of intersection and union of matching boxes, ``[N]`` each; NaN where a box is.

    Args:
        truth: ``[N, 4]``.
        prediction: ``[N, 4]``.
        last_pixel: a box ends with the pixel x + w - 1 instead of at x + w. This is the same extent,
            but its last bits may differ.
    """
    x, y, w, h = truth.T
    px, py, pw, ph = prediction.T
    pixel = 1.0 if last_pixel else 0.0
    width = np.maximum(np.minimum(x + w - pixel, px + pw - pixel) - np.maximum(x, px) + pixel, 0)
    height = np.maximum(np.minimum(y + h - pixel, py + ph - pixel) - np.maximum(y, py) + pixel, 0)
    intersection = width * height
    return intersection, w * h + pw * ph - intersection


def centres(bbox: np.ndarray) -> Points:
    """Centres of boxes whose pixels are counted from their middle: (x + (w - 1) / 2, y + (h - 1) / 2)."""
    x, y, w, h = bbox.T
    return x + (w - 1) / 2, y + (h - 1) / 2


def in_units(points: Points, unit: Points) -> Points:
    """Both coordinates divided by their unit; infinite or NaN where that is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return points[0] / unit[0], points[1] / unit[1]


def distances(a: Points, b: Points) -> np.ndarray:
    """Euclidean distance of matching points: ``[N]``; NaN where both are infinite or one is NaN."""
    with np.errstate(invalid="ignore"):
        return lengths((a[0] - b[0], a[1] - b[1]))


def lengths(vectors: Points) -> np.ndarray:
    """Euclidean length: ``[N]``."""
    x, y = vectors
    return np.sqrt(x * x + y * y)


def repeat_previous(bbox: np.ndarray, broken: np.ndarray) -> np.ndarray:
    """Boxes with each broken one (bool ``[N]``) replaced by the last that is not; the first one stays."""
    source = np.where(broken, 0, np.arange(len(bbox)))
    return bbox[np.maximum.accumulate(source)]
