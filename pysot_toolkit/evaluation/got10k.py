"""Protocol ``got10k``: average overlap and success rates of GOT-10k (Huang, Zhao, Huang, TPAMI 2021).

The first frame is left out, boxes are clipped to the image, fully covered frames do not count, and
all frames of all sequences and repetitions are pooled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from config.errors import UserError
from pysot_toolkit.evaluation.boxes import intersections
from pysot_toolkit.evaluation.protocol import (
    FPS,
    PROTOCOLS,
    Column,
    Curve,
    Protocol,
    Runs,
    Scores,
    Truth,
    mean_speed,
    share_above,
    speed,
)

THRESHOLDS = np.linspace(0, 1, 101)


def clip_to_image(bbox: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Boxes ``[N, 4]`` with the corner moved into the image and the size cut to what remains."""
    size = np.asarray(image_size, np.float64)
    corner = np.clip(bbox[:, :2], 0, size)
    return np.concatenate([corner, np.clip(bbox[:, 2:], 0, size - corner)], axis=1)


def overlaps(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Intersection over union of matching boxes ``[N, 4]``: ``[N]`` in [0, 1]; 0 where the prediction is NaN."""
    intersection, union = intersections(truth, prediction)
    return np.nan_to_num(np.clip(intersection / (union + np.finfo(np.float64).eps), 0, 1), nan=0.0)


@PROTOCOLS.register("got10k")
class Got10k(Protocol):
    """AO, SR at 0.5 and 0.75, success curve at 101 thresholds, speed."""

    name = "got10k"
    version = 1
    source = "got10k toolkit"
    needs_image_size = True
    needs_cover = True
    columns = (Column("ao", "AO"), Column("sr50", "SR@0.5"), Column("sr75", "SR@0.75"), FPS)
    curves = (Curve("success", THRESHOLDS, "Success", "overlap threshold", "ao", "AO"),)

    def score(self, truth: Truth, runs: Runs) -> Scores:
        if truth.cover is None or truth.image_size is None:
            raise UserError(
                f"sequence '{truth.name}': protocol got10k needs its cover.label and meta_info.ini; restore them"
            )
        counted = np.flatnonzero(truth.cover[1:] > 0) + 1
        target = clip_to_image(truth.bbox[counted], truth.image_size)
        overlap = np.concatenate(
            [overlaps(target, clip_to_image(_rows(boxes, counted), truth.image_size)) for boxes in runs.boxes]
        )
        fps, timed = speed(runs.seconds)
        return _scores(
            share_above(overlap, THRESHOLDS, max(overlap.size, 1)), _mean(overlap), overlap.size, fps, timed
        )

    def summarise(self, scores: Sequence[Scores]) -> Scores:
        frames, timed = sum(score.frames for score in scores), sum(score.timed for score in scores)
        weights = [score.frames / max(frames, 1) for score in scores]
        curve = np.sum([weight * score.curves["success"] for weight, score in zip(weights, scores)], axis=0)
        mean = sum(weight * score.values["ao"] for weight, score in zip(weights, scores))
        return _scores(curve, mean, frames, mean_speed(scores, pooled=True), timed)

    def resampled(self, scores: Sequence[Scores], counts: np.ndarray) -> dict[str, np.ndarray]:
        """A sequence weighs as much as it has frames."""
        return super().resampled(scores, counts * np.array([score.frames for score in scores]))


def _rows(boxes: np.ndarray, index: np.ndarray) -> np.ndarray:
    """``boxes[index]``, NaN where the result ends before."""
    rows = np.full((len(index), 4), np.nan)
    there = index < len(boxes)
    rows[there] = boxes[index[there]]
    return rows


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0


def _scores(curve: np.ndarray, ao: float, frames: int, fps: float, timed: int) -> Scores:
    values = {"ao": float(ao), "sr50": float(curve[50]), "sr75": float(curve[75]), "fps": fps}
    return Scores(values, {"success": curve}, frames, timed)
