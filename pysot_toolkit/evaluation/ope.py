"""Protocols ``pysot-ope`` and ``pysot-strict``: one-pass evaluation as in pysot's toolkit, frame by frame.

Success: Wu, Lim, Yang, Object Tracking Benchmark, TPAMI 2015. Normalised precision: Mueller et al.,
TrackingNet, ECCV 2018. Absence: Fan et al., LaSOT, CVPR 2019. What the toolkit does beyond the
papers is kept, because published tables were made with it: an invalid ground truth is a failure for
success but a hit for both precisions, and the first frame counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pysot_toolkit.evaluation.boxes import Points, centres, distances, in_units, intersections
from pysot_toolkit.evaluation.protocol import (
    FPS,
    PROTOCOLS,
    Column,
    Protocol,
    Runs,
    Scores,
    Truth,
    mean_curves,
    mean_speed,
    norm_precision_plot,
    precision_plot,
    share_above,
    share_within,
    speed,
    success_plot,
)

SUCCESS_THRESHOLDS = np.arange(
    0, 1.05, 0.05
)  # as the toolkit makes them: some differ from k/20 in the last bit
PRECISION_THRESHOLDS = np.arange(0, 51)  # px
NORM_PRECISION_THRESHOLDS = np.arange(0, 51) / 100  # of the target size


def overlaps(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Intersection over union of matching boxes ``[N, 4]`` (x, y, w, h): ``[N]`` in [0, 1], NaN where a box is."""
    intersection, union = intersections(truth, prediction)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(intersection / union, 0, 1)


def centre_errors(truth: np.ndarray, prediction: np.ndarray, normalised: bool = False) -> np.ndarray:
    """Distance of the centres of matching boxes ``[N, 4]``: ``[N]`` in px, or in units of the true
    width and height if ``normalised``; NaN where a box is.
    """
    true_centres, found = centres(truth), centres(prediction)
    if normalised:
        true_centres, found = in_units(true_centres, _sizes(truth)), in_units(found, _sizes(truth))
    return distances(true_centres, found)


def _sizes(truth: np.ndarray) -> Points:
    """Widths and heights, never 0."""
    return truth[:, 2] + 1e-16, truth[:, 3] + 1e-16


def _errors_of_valid(true_centres: Points, found: Points) -> np.ndarray:
    """Distances ``[N]``; -1, a hit at every threshold, where a true coordinate is not above 0."""
    valid = (true_centres[0] > 0) & (true_centres[1] > 0)
    return np.where(valid, distances(true_centres, found), -1.0)


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
        success_plot(SUCCESS_THRESHOLDS),
        precision_plot(PRECISION_THRESHOLDS),
        norm_precision_plot(NORM_PRECISION_THRESHOLDS),
    )

    def can_succeed(self, truth: np.ndarray) -> np.ndarray:
        """Frames with a true box ``[N, 4]`` that an overlap counts for: bool ``[N]``, others are failures."""
        return (truth[:, 2] > 0) & (truth[:, 3] > 0)

    def score(self, truth: Truth, runs: Runs) -> Scores:
        """The first repetition; frames that LaSOT calls absent are failures in all three curves."""
        total = len(truth.bbox)
        shown = min(total, len(runs.boxes[0]))
        target, prediction = truth.bbox[:shown].T, runs.boxes[0][:shown].T
        if truth.present is not None:
            present = truth.present[:shown]
            target, prediction = target[:, present], prediction[:, present]
        target, prediction = np.ascontiguousarray(target).T, np.ascontiguousarray(prediction).T
        overlap = np.where(self.can_succeed(target), overlaps(target, prediction), -1.0)
        true_centres, found, sizes = centres(target), centres(prediction), _sizes(target)
        errors = _errors_of_valid(true_centres, found)
        norm_errors = _errors_of_valid(in_units(true_centres, sizes), in_units(found, sizes))
        curves = {
            "success": share_above(overlap, SUCCESS_THRESHOLDS, total),
            "precision": share_within(errors, PRECISION_THRESHOLDS, total),
            "norm_precision": share_within(norm_errors, NORM_PRECISION_THRESHOLDS, total),
        }
        fps, timed = speed(runs.seconds)
        return Scores(_values(curves, fps), curves, total, timed)

    def summarise(self, scores: Sequence[Scores]) -> Scores:
        curves = mean_curves(scores)
        frames, timed = sum(score.frames for score in scores), sum(score.timed for score in scores)
        return Scores(_values(curves, mean_speed(scores, pooled=False)), curves, frames, timed)


@PROTOCOLS.register("pysot-strict")
class StrictOnePassEvaluation(OnePassEvaluation):
    """As ``pysot-ope``, but a true box that begins at or beyond the image's left or upper edge is a
    failure for success, as in the pysot-toolkit that pysot's was made from.
    """

    name = "pysot-strict"
    source = "pysot-toolkit (numba)"

    def can_succeed(self, truth: np.ndarray) -> np.ndarray:
        return np.all(truth.T > 0, axis=0)


def _values(curves: dict[str, np.ndarray], fps: float) -> dict[str, float]:
    return {
        "auc": float(curves["success"].mean()),
        "precision": float(curves["precision"][20]),
        "norm_precision": float(curves["norm_precision"][20]),
        "norm_precision_50": float(curves["norm_precision"][50]),
        "precision_mean": float(curves["precision"].mean()),  # what pysot prints per video
        "fps": fps,
    }
