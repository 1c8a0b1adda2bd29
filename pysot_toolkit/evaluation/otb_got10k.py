"""Protocol ``otb-got10k``: the one-pass experiments of the got10k toolkit on OTB, LaSOT, UAV, NfS and TrackingNet.

Huang, Zhao, Huang: GOT-10k, TPAMI 2021; curves after Wu, Lim, Yang, TPAMI 2015. The first prediction
is replaced by the truth, truth and prediction are cut to the shorter of the two, and every frame
that remains counts: no ground truth is invalid, LaSOT's absent frames included. Only frames without
a box (NaN) in LaSOT and the UAV benchmarks are left out.

The toolkit counts success at 21 thresholds; older versions of it took 101, which gives another mean.
Both are given.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pysot_toolkit.evaluation.boxes import Points, centres, distances, in_units, lengths
from pysot_toolkit.evaluation.got10k import overlaps
from pysot_toolkit.evaluation.protocol import (
    FPS,
    PROTOCOLS,
    Column,
    Curve,
    Protocol,
    Runs,
    Scores,
    Truth,
    Unscorable,
    mean_curves,
    mean_speed,
    norm_precision_plot,
    precision_plot,
    share_above,
    share_within,
    speed,
    success_plot,
)

SUCCESS_THRESHOLDS = np.linspace(0, 1, 21)
SUCCESS_THRESHOLDS_101 = np.linspace(0, 1, 101)
PRECISION_THRESHOLDS = np.arange(0, 51)  # px
NORM_PRECISION_THRESHOLDS = np.linspace(0, 0.5, 51)  # of the target size
_GAPS_LEFT_OUT = ("LaSOT", "UAV")  # benchmarks whose frames without a true box do not count, by prefix


def norm_centre_errors(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Distance of the centres of matching boxes ``[N, 4]`` in true widths and heights, which count as at
    least 1 px: ``[N]``; NaN where a box is.
    """
    true_centres, found = centres(truth), centres(prediction)
    sizes: Points = np.maximum(truth[:, 2], 1), np.maximum(truth[:, 3], 1)
    return lengths(in_units((found[0] - true_centres[0], found[1] - true_centres[1]), sizes))


@PROTOCOLS.register("otb-got10k")
class OtbGot10k(Protocol):
    """Success at 21 and 101 thresholds, precision, mean of the normalised precision curve, speed."""

    name = "otb-got10k"
    version = 1
    source = "got10k toolkit, OTB experiment"
    columns = (
        Column("auc", "AUC (21 bins)"),
        Column("auc_101", "AUC (101 bins)"),
        Column("precision", "P@20px"),
        Column("norm_precision", "mean NP"),
        Column("sr50", "SR@0.5"),
        FPS,
    )
    curves = (
        success_plot(SUCCESS_THRESHOLDS),
        Curve(
            "success_101", SUCCESS_THRESHOLDS_101, "Success, 101 bins", "overlap threshold", "auc_101", "AUC"
        ),
        precision_plot(PRECISION_THRESHOLDS),
        norm_precision_plot(NORM_PRECISION_THRESHOLDS, "mean"),
    )

    def score(self, truth: Truth, runs: Runs) -> Scores:
        """The first repetition.

        Raises:
            Unscorable: no frame has a true box.
        """
        shown = min(len(truth.bbox), len(runs.boxes[0]))
        target, prediction = truth.bbox[:shown], runs.boxes[0][:shown].copy()
        prediction[:1] = target[:1]
        if truth.benchmark.startswith(_GAPS_LEFT_OUT):
            annotated = ~np.isnan(target).any(axis=1)
            target, prediction = target[annotated], prediction[annotated]
        total = len(target)
        if total == 0:
            raise Unscorable("no frame has a true box")
        overlap = overlaps(target, prediction)
        errors = distances(centres(target), centres(prediction))
        curves = {
            "success": share_above(overlap, SUCCESS_THRESHOLDS, total),
            "success_101": share_above(overlap, SUCCESS_THRESHOLDS_101, total),
            "precision": share_within(errors, PRECISION_THRESHOLDS, total),
            "norm_precision": share_within(
                norm_centre_errors(target, prediction), NORM_PRECISION_THRESHOLDS, total
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
        "auc_101": float(curves["success_101"].mean()),
        "precision": float(curves["precision"][20]),
        "norm_precision": float(curves["norm_precision"].mean()),
        "sr50": float(curves["success"][10]),
        "fps": fps,
    }
