"""Protocols ``pytracking`` and ``pytracking-valid``: pytracking's analysis, without and with ``exclude_invalid_frames``.

Danelljan, Bhat: PyTracking (2019); curves after Wu, Lim, Yang, TPAMI 2015, Mueller et al., ECCV 2018;
F1 after Lukezic et al., "Now you see me", 2018. A frame is valid where all four numbers of the true box are above
0 and LaSOT calls the target visible. Invalid frames are failures for success, and for precision except
on UAV benchmarks; for normalised precision they are hits, except where LaSOT's target cannot be seen.
``pytracking-valid`` divides by the number of valid frames without leaving those hits out, so that its
normalised precision can exceed 1.

The program keeps curves in single precision; these here are double, so they agree to about seven digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pysot_toolkit.evaluation.boxes import centres, distances, in_units, intersections, repeat_previous
from pysot_toolkit.evaluation.protocol import (
    PROTOCOLS,
    Column,
    Protocol,
    Runs,
    Scores,
    Truth,
    Unscorable,
    mean_curves,
    norm_precision_plot,
    precision_plot,
    share_above,
    share_within,
    success_plot,
)

# Made four at a time by the program's vector routine: some differ from 0.05 * k in the last bit.
SUCCESS_THRESHOLDS = (np.arange(0, 24, 4)[:, None] * 0.05 + np.arange(4) * 0.05).ravel()[:21]
PRECISION_THRESHOLDS = np.arange(0, 51)  # px
NORM_PRECISION_THRESHOLDS = np.arange(0, 51) / 100  # of the target size
_POSITIONS = 1000  # at which a resampled F1 looks for its maximum


class FrameErrors(NamedTuple):
    """Each frame of a sequence, as the curves count it."""

    overlap: np.ndarray  # float64 [N]; -1 in invalid frames
    centre: np.ndarray  # float64 [N], px; infinite in invalid frames, -1 on UAV benchmarks
    norm_centre: (
        np.ndarray
    )  # float64 [N], true sizes; -1 in invalid frames, infinite in LaSOT's invisible ones
    valid: np.ndarray  # bool [N]


def overlaps(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Intersection over union of matching boxes ``[N, 4]``: ``[N]``; NaN for 0/0 or NaN boxes."""
    intersection, union = intersections(truth, prediction, last_pixel=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return intersection / union


def frame_errors(truth: Truth, prediction: np.ndarray) -> FrameErrors:
    """Errors of a prediction float64 ``[n, 4]``, the first box replaced by the truth.

    Raises:
        Unscorable: as pytracking raises an error: NaN or a negative size in the prediction, NaN in the
            truth (which only UAV benchmarks may have), or a prediction that is too short for LaSOT.
    """
    boxes = _repaired(truth, prediction)
    boxes[0] = truth.bbox[0]
    valid = valid_frames(truth)
    overlap = np.where(valid, overlaps(truth.bbox, boxes), -1.0)
    if np.isnan(overlap).any():
        raise Unscorable("an overlap that is not a number")
    true_centres, found = centres(truth.bbox), centres(boxes)
    sizes = truth.bbox[:, 2], truth.bbox[:, 3]
    centre = np.where(valid, distances(true_centres, found), -1.0 if _is_uav(truth) else np.inf)
    norm_centre = np.where(valid, distances(in_units(true_centres, sizes), in_units(found, sizes)), -1.0)
    if _is_lasot(truth) and truth.present is not None:
        norm_centre[~truth.present] = np.inf
    return FrameErrors(overlap, centre, norm_centre, valid)


def valid_frames(truth: Truth) -> np.ndarray:
    """Frames with a true box inside the image that can be seen: bool ``[N]``."""
    valid = np.all(truth.bbox > 0, axis=1)
    return valid if truth.present is None else valid & truth.present


def _repaired(truth: Truth, prediction: np.ndarray) -> np.ndarray:
    """The prediction for the N frames of the truth: boxes without size repeat the one before, missing
    ones are all 0, as pytracking does; see ``frame_errors`` for what it refuses.
    """
    broken = np.isnan(prediction).any(axis=1) | (prediction[:, 2:] < 0).any(axis=1)
    if broken.any():
        raise Unscorable(f"line {np.argmax(broken) + 1} is NaN or of negative size")
    unknown = np.isnan(truth.bbox).any(axis=1)
    if unknown.any() and not _is_uav(truth):
        raise Unscorable(f"the true box of frame {np.argmax(unknown) + 1} is NaN")
    total = len(truth.bbox)
    if len(prediction) < total and _is_lasot(truth):
        raise Unscorable(f"{len(prediction)} lines for {total} frames")
    given = prediction[:total]
    boxes = np.zeros((total, 4))
    boxes[: len(given)] = repeat_previous(given, (given[:, 2:] == 0).any(axis=1) & ~unknown[: len(given)])
    return boxes


def _is_uav(truth: Truth) -> bool:
    return truth.benchmark.startswith("UAV")


def _is_lasot(truth: Truth) -> bool:
    return truth.benchmark == "LaSOT"  # its extension goes by the general rules


@PROTOCOLS.register("pytracking")
class PyTracking(Protocol):
    """AUC, OP50, OP75, precision and normalised precision; F1 of the presence scores where it can be had.

    F1 needs visibility flags (LaSOT) and presence scores of every sequence. It pools all frames: with the
    k most confident frames of all sequences reported, precision is the sum of their overlaps over k and recall
    that sum over all valid frames; F1 is the best over k.
    """

    name = "pytracking"
    version = 1
    source = "pytracking analysis"
    columns: tuple[Column, ...] = (
        Column("auc", "AUC"),
        Column("op50", "OP50"),
        Column("op75", "OP75"),
        Column("precision", "P@20px"),
        Column("norm_precision", "NP@0.2"),
        Column("f1", "F1"),
    )
    curves = (
        success_plot(SUCCESS_THRESHOLDS),
        precision_plot(PRECISION_THRESHOLDS),
        norm_precision_plot(NORM_PRECISION_THRESHOLDS),
    )

    def score(self, truth: Truth, runs: Runs) -> Scores:
        """The first repetition.

        Raises:
            Unscorable: see ``frame_errors``.
        """
        errors = frame_errors(truth, runs.boxes[0])
        total = self.frames_counted(errors)
        curves = {
            "success": share_above(errors.overlap, SUCCESS_THRESHOLDS, total),
            "precision": share_within(errors.centre, PRECISION_THRESHOLDS, total),
            "norm_precision": share_within(errors.norm_centre, NORM_PRECISION_THRESHOLDS, total),
        }
        known = errors.overlap[errors.valid]
        values = {
            **_values(curves),
            "f1": float("nan"),
            "mean_overlap": float(known.mean()) if known.size else float("nan"),
        }
        return Scores(values, curves, total, parts=_presence_parts(truth, runs, errors))

    def frames_counted(self, errors: FrameErrors) -> int:
        """The number that the curves divide by."""
        return len(errors.valid)

    def summarise(self, scores: Sequence[Scores]) -> Scores:
        curves = mean_curves(scores)
        values = {
            **_values(curves),
            "f1": float("nan"),
            "mean_overlap": float(np.mean([score.values["mean_overlap"] for score in scores])),
        }
        pool = _pool(scores)
        if pool is not None:
            f1, precision, recall = pool.best()
            values |= {"f1": f1, "presence_precision": precision, "presence_recall": recall}
        return Scores(values, curves, sum(score.frames for score in scores))

    def resampled(self, scores: Sequence[Scores], counts: np.ndarray) -> dict[str, np.ndarray]:
        drawn = super().resampled(scores, counts)
        pool = _pool(scores) if "f1" in drawn else None
        if pool is not None:
            drawn["f1"] = pool.resampled(counts)
        return drawn


@PROTOCOLS.register("pytracking-valid")
class PyTrackingValid(PyTracking):
    """As ``pytracking``, divided by the number of valid frames (``exclude_invalid_frames``)."""

    name = "pytracking-valid"
    source = "pytracking analysis, exclude_invalid_frames"
    columns = PyTracking.columns[:-1]  # F1 knows no such setting

    def frames_counted(self, errors: FrameErrors) -> int:
        """The number of valid frames.

        Raises:
            Unscorable: there is none.
        """
        valid = int(np.count_nonzero(errors.valid))
        if valid == 0:
            raise Unscorable("no frame is valid")
        return valid


def _values(curves: dict[str, np.ndarray]) -> dict[str, float]:
    return {
        "auc": float(curves["success"].mean()),
        "op50": float(curves["success"][10]),
        "op75": float(curves["success"][15]),
        "precision": float(curves["precision"][20]),
        "norm_precision": float(curves["norm_precision"][20]),
        "norm_precision_50": float(curves["norm_precision"][50]),
    }


def _presence_parts(truth: Truth, runs: Runs, errors: FrameErrors) -> dict[str, np.ndarray]:
    """What F1 needs of a sequence; nothing where the benchmark or the tracker does not have it."""
    total = len(truth.bbox)
    if truth.present is None or not runs.presence or len(runs.presence[0]) < total:
        return {}
    # F1 replaces the first box of the first sequence only: a first overlap each, with and without.
    first = overlaps(truth.bbox[:1], _repaired(truth, runs.boxes[0])[:1])
    overlap = np.where(errors.valid, errors.overlap, 0.0)
    return {
        "overlap": overlap,
        "first": np.where(errors.valid[:1], first, 0.0),
        "presence": np.asarray(runs.presence[0][:total], np.float64),
        "valid": np.array(np.count_nonzero(errors.valid)),
    }


class _Pool(NamedTuple):
    """The frames of several sequences, by descending presence score."""

    overlap: np.ndarray  # float64 [n], 0 in invalid frames
    sequence: np.ndarray  # int [n], whose frame it is
    valid: np.ndarray  # int [S], valid frames of each sequence

    def best(self) -> tuple[float, float, float]:
        """The best F1, and the precision and recall behind it."""
        k, f1 = self._best()
        hits = float(self.overlap[: k + 1].sum())
        return f1, hits / (k + 1), hits / max(int(self.valid.sum()), 1)

    def resampled(self, counts: np.ndarray) -> np.ndarray:
        """The best F1 if sequence s occurred ``counts[b, s]`` times: ``[B, S] -> [B]``.

        The maximum is looked for at ``_POSITIONS`` positions and at the best one of all frames as they are.
        """
        n, sequences = len(self.overlap), len(self.valid)
        last = np.unique([*np.linspace(0, n - 1, _POSITIONS).astype(np.int64), self._best()[0]])
        cell = self.sequence * len(last) + np.searchsorted(last, np.arange(n))
        shape = sequences, len(last)
        reported = np.bincount(cell, minlength=sequences * len(last)).reshape(shape).cumsum(axis=1)
        hits = np.bincount(cell, self.overlap, sequences * len(last)).reshape(shape).cumsum(axis=1)
        frames = counts @ reported + (counts @ self.valid)[:, None]
        return (2 * (counts @ hits) / np.maximum(frames, 1)).max(axis=1)

    def _best(self) -> tuple[int, float]:
        """Position and value of the best F1 = 2 PR / (P + R) = 2 (sum of overlaps) / (k + valid frames)."""
        f1 = 2 * self.overlap.cumsum() / (np.arange(1, len(self.overlap) + 1) + self.valid.sum())
        k = int(np.argmax(f1))
        return k, float(f1[k])


def _pool(scores: Sequence[Scores]) -> _Pool | None:
    """All frames of all sequences; None where a sequence has no presence scores."""
    if not all(score.parts for score in scores):
        return None
    parts = [score.parts for score in scores]
    overlap = [part["overlap"] for part in parts]
    overlap[1:] = [np.concatenate([part["first"], part["overlap"][1:]]) for part in parts[1:]]
    order = np.argsort(-np.concatenate([part["presence"] for part in parts]), kind="stable")
    sequence = np.repeat(np.arange(len(parts)), [len(part["overlap"]) for part in parts])
    return _Pool(
        np.concatenate(overlap)[order], sequence[order], np.array([int(part["valid"]) for part in parts])
    )
