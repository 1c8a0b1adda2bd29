"""Protocol ``pysot-ope``: one-pass evaluation as in pysot's toolkit, frame by frame the same numbers.

Success: Wu, Lim, Yang, Object Tracking Benchmark, TPAMI 2015. Normalised precision: Mueller et al.,
TrackingNet, ECCV 2018. Absence: Fan et al., LaSOT, CVPR 2019. What the toolkit does beyond the
papers is kept, because published tables were made with it: an invalid ground truth is a failure for
success but a hit for both precisions, and the first frame counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pysot_toolkit.evaluation.protocol import (
    PROTOCOLS,
    Column,
    Curve,
    Protocol,
    Runs,
    Scores,
    Truth,
    mean_curves,
    mean_speed,
    share_above,
    share_within,
    speed,
)

SUCCESS_THRESHOLDS = np.arange(
    0, 1.05, 0.05
)  # 0.15, 0.30, ... are not the shortest decimals, as in the toolkit
PRECISION_THRESHOLDS = np.arange(0, 51)  # px
NORM_PRECISION_THRESHOLDS = np.arange(0, 51) / 100  # of the target size

_INVALID_OVERLAP = -1.0  # never above a threshold
_INVALID_ERROR = -1.0  # always within a threshold


def overlaps(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Intersection over union of matching boxes ``[N, 4]`` (x, y, w, h): ``[N]`` in [0, 1], -1 where
    the truth has no size or is NaN, NaN where the prediction is.
    """
    left_top = np.maximum(truth[:, :2], prediction[:, :2])
    right_bottom = np.minimum(truth[:, :2] + truth[:, 2:], prediction[:, :2] + prediction[:, 2:])
    intersection = np.prod(np.maximum(right_bottom - left_top, 0), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        union = truth[:, 2] * truth[:, 3] + prediction[:, 2] * prediction[:, 3] - intersection
        overlap = np.clip(intersection / union, 0, 1)
    valid = (truth[:, 2] > 0) & (truth[:, 3] > 0)
    return np.where(valid, overlap, _INVALID_OVERLAP)


def centre_errors(truth: np.ndarray, prediction: np.ndarray, normalised: bool = False) -> np.ndarray:
    """Distance of the centres of matching boxes ``[N, 4]``: ``[N]`` in px, or in units of the true
    width and height if ``normalised``; -1 where a coordinate of the true centre is not above 0.
    """
    unit = truth[:, 2:] + 1e-16 if normalised else 1.0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        true_centre = _centres(truth) / unit
        difference = true_centre - _centres(prediction) / unit
        distance = np.sqrt(np.sum(difference**2, axis=1))
    valid = (true_centre > 0).all(axis=1)
    return np.where(valid, distance, _INVALID_ERROR)


def _centres(bbox: np.ndarray) -> np.ndarray:
    return bbox[:, :2] + (bbox[:, 2:] - 1) / 2


@PROTOCOLS.register("pysot-ope")
class OnePassEvaluation(Protocol):
    """Success, precision and normalised precision; every sequence has the same weight."""

    name = "pysot-ope"
    version = 1
    source = "pysot toolkit"
    columns = (
        Column("auc", "AUC"),
        Column("precision", "P@20px"),
        Column("norm_precision", "NP@0.2"),
        Column("fps", "fps"),
    )
    curves = (
        Curve("success", SUCCESS_THRESHOLDS, "Success", "overlap threshold", "auc", "AUC"),
        Curve("precision", PRECISION_THRESHOLDS, "Precision", "centre error (px)", "precision", "at 20 px"),
        Curve(
            "norm_precision",
            NORM_PRECISION_THRESHOLDS,
            "Normalised precision",
            "centre error (target sizes)",
            "norm_precision",
            "at 0.2",
        ),
    )

    def score(self, truth: Truth, runs: Runs) -> Scores:
        """The first repetition; frames that LaSOT calls absent are failures in all three curves."""
        total = len(truth.bbox)
        shown = slice(0, min(total, len(runs.boxes[0])))
        target, prediction = truth.bbox[shown], runs.boxes[0][shown]
        if truth.present is not None:
            present = truth.present[shown]
            target, prediction = target[present], prediction[present]
        curves = {
            "success": share_above(overlaps(target, prediction), SUCCESS_THRESHOLDS, total),
            "precision": share_within(centre_errors(target, prediction), PRECISION_THRESHOLDS, total),
            "norm_precision": share_within(
                centre_errors(target, prediction, normalised=True), NORM_PRECISION_THRESHOLDS, total
            ),
        }
        fps, timed = speed(runs.seconds)
        return Scores(_values(curves, fps), curves, total, timed)

    def summarise(self, scores: Sequence[Scores]) -> Scores:
        curves = mean_curves(scores)
        frames, timed = sum(score.frames for score in scores), sum(score.timed for score in scores)
        return Scores(_values(curves, mean_speed(scores, pooled=False)), curves, frames, timed)


def _values(curves: dict[str, np.ndarray], fps: float) -> dict[str, float]:
    return {
        "auc": float(curves["success"].mean()),
        "precision": float(curves["precision"][20]),
        "norm_precision": float(curves["norm_precision"][20]),
        "norm_precision_50": float(curves["norm_precision"][50]),
        "precision_mean": float(curves["precision"].mean()),  # what pysot prints per video
        "fps": fps,
    }
