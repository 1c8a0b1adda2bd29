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
    FPS,
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
)  # as the toolkit makes them: some differ from k/20 in the last bit
PRECISION_THRESHOLDS = np.arange(0, 51)  # px
NORM_PRECISION_THRESHOLDS = np.arange(0, 51) / 100  # of the target size


def overlaps(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Intersection over union of matching boxes ``[N, 4]`` (x, y, w, h): ``[N]`` in [0, 1], NaN where a box is."""
    # Column by column: numpy is slow on rows of two or four numbers.
    x, y, w, h = truth.T
    px, py, pw, ph = prediction.T
    width = np.maximum(np.minimum(x + w, px + pw) - np.maximum(x, px), 0)
    height = np.maximum(np.minimum(y + h, py + ph) - np.maximum(y, py), 0)
    intersection = width * height
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(intersection / (w * h + pw * ph - intersection), 0, 1)


def centre_errors(truth: np.ndarray, prediction: np.ndarray, normalised: bool = False) -> np.ndarray:
    """Distance of the centres of matching boxes ``[N, 4]``: ``[N]`` in px, or in units of the true
    width and height if ``normalised``; NaN where a box is.
    """
    return _distances(_centres(truth, truth, normalised), _centres(prediction, truth, normalised))


def success_curve(truth: np.ndarray, prediction: np.ndarray, total: int) -> np.ndarray:
    """Share of ``total`` frames whose overlap is above each threshold: ``[21]``.

    A true box without size, or NaN, is a failure.
    """
    valid = (truth[:, 2] > 0) & (truth[:, 3] > 0)
    return share_above(np.where(valid, overlaps(truth, prediction), -1.0), SUCCESS_THRESHOLDS, total)


def precision_curve(
    truth: np.ndarray, prediction: np.ndarray, total: int, normalised: bool = False
) -> np.ndarray:
    """Share of ``total`` frames whose centre error is within each threshold: ``[51]``.

    A true centre that is not above 0 in both coordinates, or NaN, is a hit.
    """
    centres = _centres(truth, truth, normalised)
    valid = (centres[0] > 0) & (centres[1] > 0)
    errors = np.where(valid, _distances(centres, _centres(prediction, truth, normalised)), -1.0)
    return share_within(errors, NORM_PRECISION_THRESHOLDS if normalised else PRECISION_THRESHOLDS, total)


def _distances(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return np.sqrt((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2)


def _centres(bbox: np.ndarray, truth: np.ndarray, normalised: bool) -> tuple[np.ndarray, np.ndarray]:
    """Centres of boxes in px, or in units of the true width and height."""
    x, y, w, h = bbox.T
    unit_x, unit_y = (truth[:, 2] + 1e-16, truth[:, 3] + 1e-16) if normalised else (1.0, 1.0)
    return (x + (w - 1) / 2) / unit_x, (y + (h - 1) / 2) / unit_y


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
        FPS,
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
            "success": success_curve(target, prediction, total),
            "precision": precision_curve(target, prediction, total),
            "norm_precision": precision_curve(target, prediction, total, normalised=True),
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
