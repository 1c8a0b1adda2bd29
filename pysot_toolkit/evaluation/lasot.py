"""Protocol ``lasot``: LaSOT's official Matlab toolkit.

Fan et al., LaSOT, CVPR 2019, and IJCV 2021: success is ranked by the area under its curve, precision at
20 px, normalised precision (Mueller et al., TrackingNet, ECCV 2018) by the area between 0 and 0.5.
The following is what the program itself (github.com/HengLan/LaSOT_Evaluation_Toolkit) does; the
papers do not say it:

- a result that is longer than the annotation is cut; a shorter one ends the program with an error;
- a predicted box that is NaN or without size repeats the one before it where the true box is known; then
  the first box is replaced by the true one;
- frames without the target (full occlusion, out of view) are removed, but shares are of all frames;
- centres are x + (w - 1) / 2, both divided by the true size before they are subtracted if normalised;
- a true box is valid where all four numbers are above 0; an invalid one is a failure for success and a
  hit for both precisions;
- success is strictly above 0:0.05:1, both precisions at most 0:50 px and 0:0.01:0.5;
- every threshold score is read at position 21: 20 px, but 0.2 for normalised precision;
- a sequence whose whole curve is 0 is left out of the mean of that curve.

No published numbers are attached to it here: both ways to sum up normalised precision are given.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pysot_toolkit.evaluation.boxes import centres, distances, in_units, repeat_previous
from pysot_toolkit.evaluation.protocol import (
    PROTOCOLS,
    Column,
    Protocol,
    Runs,
    Scores,
    Truth,
    Unscorable,
    norm_precision_plot,
    precision_plot,
    share_above,
    share_within,
    success_plot,
)
from pysot_toolkit.evaluation.pytracking import overlaps

# Matlab's colon counts the first half up from 0 and the second half down from 1.
SUCCESS_THRESHOLDS = np.concatenate([np.arange(11) * 0.05, 1 - np.arange(9, -1, -1) * 0.05])
PRECISION_THRESHOLDS = np.arange(0, 51)  # px
NORM_PRECISION_THRESHOLDS = np.arange(0, 51) / 100  # of the target size


@PROTOCOLS.register("lasot")
class LasotToolkit(Protocol):
    """Success, precision and normalised precision, absent frames as failures."""

    name = "lasot"
    version = 1
    source = "LaSOT evaluation toolkit"
    columns = (
        Column("auc", "AUC"),
        Column("precision", "P@20px"),
        Column("norm_precision", "NP@0.2"),
        Column("norm_precision_auc", "NP area"),
    )
    curves = (
        success_plot(SUCCESS_THRESHOLDS),
        precision_plot(PRECISION_THRESHOLDS),
        norm_precision_plot(NORM_PRECISION_THRESHOLDS),
    )

    def score(self, truth: Truth, runs: Runs) -> Scores:
        """The first repetition.

        Raises:
            Unscorable: it is shorter than the annotation.
        """
        total = len(truth.bbox)
        if len(runs.boxes[0]) < total:
            raise Unscorable(f"{len(runs.boxes[0])} lines for {total} frames")
        target, prediction = truth.bbox, runs.boxes[0][:total]
        broken = np.isnan(prediction).any(axis=1) | (prediction[:, 2:] <= 0).any(axis=1)
        prediction = repeat_previous(prediction, broken & ~np.isnan(target).any(axis=1))
        prediction[0] = target[0]
        if truth.present is not None:
            target, prediction = target[truth.present], prediction[truth.present]
        valid = (target > 0).all(axis=1)
        true_centres, found, sizes = centres(target), centres(prediction), (target[:, 2], target[:, 3])
        norm_errors = distances(in_units(true_centres, sizes), in_units(found, sizes))
        curves = {
            "success": share_above(
                np.where(valid, overlaps(target, prediction), -1.0), SUCCESS_THRESHOLDS, total
            ),
            "precision": share_within(
                np.where(valid, distances(true_centres, found), -1.0), PRECISION_THRESHOLDS, total
            ),
            "norm_precision": share_within(
                np.where(valid, norm_errors, -1.0), NORM_PRECISION_THRESHOLDS, total
            ),
        }
        return Scores(_values(curves), curves, total)

    def summarise(self, scores: Sequence[Scores]) -> Scores:
        curves = {key: curve[0] for key, curve in _mean_curves(scores, np.ones((1, len(scores)))).items()}
        return Scores(_values(curves), curves, sum(score.frames for score in scores))

    def resampled(self, scores: Sequence[Scores], counts: np.ndarray) -> dict[str, np.ndarray]:
        curves = _mean_curves(scores, counts)
        return {
            "auc": curves["success"].mean(axis=1),
            "precision": curves["precision"][:, 20],
            "norm_precision": curves["norm_precision"][:, 20],
            "norm_precision_auc": curves["norm_precision"].mean(axis=1),
        }


def _mean_curves(scores: Sequence[Scores], counts: np.ndarray) -> dict[str, np.ndarray]:
    """Each curve averaged over the sequences that have any of it, sequence s ``counts[b, s]`` times:
    ``[B, S] -> [B, thresholds]``; 0 where none has.
    """
    means = {}
    for key in scores[0].curves:
        curves = np.array([score.curves[key] for score in scores])
        weights = counts * (curves.sum(axis=1) > np.finfo(np.float64).eps)
        means[key] = weights @ curves / np.maximum(weights.sum(axis=1, keepdims=True), 1)
    return means


def _values(curves: dict[str, np.ndarray]) -> dict[str, float]:
    return {
        "auc": float(curves["success"].mean()),
        "precision": float(curves["precision"][20]),
        "norm_precision": float(curves["norm_precision"][20]),
        "norm_precision_auc": float(curves["norm_precision"].mean()),
    }
