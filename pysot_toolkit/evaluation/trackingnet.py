"""Protocol ``trackingnet``: success, precision and normalised precision as in TrackingNet's development kit.

Mueller et al., TrackingNet, ECCV 2018. Boxes are rounded to whole pixels, the first prediction is
replaced by the truth, and every score is the area under a curve of 21 points, so that "precision"
is no value at 20 px. A sequence without a result counts as all-zero boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pysot_toolkit.evaluation.boxes import centres, in_units, intersections, lengths
from pysot_toolkit.evaluation.protocol import (
    PROTOCOLS,
    Column,
    Protocol,
    Runs,
    Scores,
    Truth,
    mean_curves,
    norm_precision_plot,
    precision_plot,
    share_within,
    success_plot,
)

SUCCESS_THRESHOLDS = np.linspace(0, 1, 21)
PRECISION_THRESHOLDS = np.linspace(0, 50, 21)  # px
NORM_PRECISION_THRESHOLDS = np.linspace(0, 0.5, 21)  # of the target size


def overlaps(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Intersection over union of whole-pixel boxes ``[N, 4]``: ``[N]``; NaN for 0/0 or NaN boxes."""
    intersection, union = intersections(truth, prediction, last_pixel=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(intersection / union, 0, 1)


def centre_errors(truth: np.ndarray, prediction: np.ndarray, normalised: bool = False) -> np.ndarray:
    """Distance of the centres of whole-pixel boxes ``[N, 4]``: ``[N]`` in px, or in true widths and heights."""
    # The kit's centres are x + (w + 1) / 2; between whole pixels the difference is the same, and exact.
    true_centres, found = centres(truth), centres(prediction)
    difference = true_centres[0] - found[0], true_centres[1] - found[1]
    return lengths(in_units(difference, (truth[:, 2], truth[:, 3])) if normalised else difference)


@PROTOCOLS.register("trackingnet")
class TrackingNetKit(Protocol):
    """Areas under the three curves, and the share of frames with a prediction."""

    name = "trackingnet"
    version = 1
    source = "TrackingNet development kit"
    missing_is_zero = True
    columns = (
        Column("success", "success"),
        Column("precision", "precision"),
        Column("norm_precision", "norm. precision"),
        Column("coverage", "coverage"),
    )
    curves = (
        success_plot(SUCCESS_THRESHOLDS, "success", "area"),
        precision_plot(PRECISION_THRESHOLDS, "area"),
        norm_precision_plot(NORM_PRECISION_THRESHOLDS, "area"),
    )

    def score(self, truth: Truth, runs: Runs) -> Scores:
        """The first repetition; frames without a line count as all-zero boxes."""
        total = len(truth.bbox)
        target = np.rint(truth.bbox)
        prediction = np.zeros((total, 4))
        given = runs.boxes[0][:total]
        prediction[: len(given)] = np.rint(given)
        prediction[0] = target[0]
        coverage = float(np.mean(prediction.sum(axis=1) > 0))
        overlap = overlaps(target, prediction)
        curves = {
            "success": np.count_nonzero(overlap >= SUCCESS_THRESHOLDS[:, None], axis=1) / total,
            "precision": share_within(centre_errors(target, prediction), PRECISION_THRESHOLDS, total),
            "norm_precision": share_within(
                centre_errors(target, prediction, normalised=True), NORM_PRECISION_THRESHOLDS, total
            ),
        }
        return Scores(_values(curves, coverage), curves, total)

    def summarise(self, scores: Sequence[Scores]) -> Scores:
        curves = mean_curves(scores)
        frames = sum(score.frames for score in scores)
        coverage = sum(score.values["coverage"] * score.frames for score in scores) / frames
        return Scores(_values(curves, coverage), curves, frames)


def _values(curves: dict[str, np.ndarray], coverage: float) -> dict[str, float]:
    areas = {key: float(np.mean((curve[1:] + curve[:-1]) / 2)) for key, curve in curves.items()}
    return {**areas, "coverage": coverage}
