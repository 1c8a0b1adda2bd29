"""Protocols ``pysot-votlt`` and ``votlt``: VOT's long-term experiment, where a tracker says how sure it is.

A tracker claims to see the target where its confidence reaches a threshold. Precision is the mean overlap of the
claimed frames, recall the overlap per visible frame, F their harmonic mean, at the threshold where that is best
(Lukezic et al., Performance evaluation methodology for long-term single-object tracking, IEEE Trans. Cybernetics
2021). Thresholds are quantiles of all confidences of a tracker, so they belong to a set of sequences.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from pysot_toolkit.evaluation.protocol import (
    FPS,
    PROTOCOLS,
    Column,
    Curve,
    Protocol,
    Regions,
    Runs,
    Scores,
    SupervisedRun,
    Truth,
    Unscorable,
    mean_speed,
    speed,
)
from pysot_toolkit.evaluation.regions import official_overlaps, regions_of, vot_overlaps
from pysot_toolkit.evaluation.vot_common import image_size, supervised_runs, take, without_nan
from pysot_toolkit.evaluation.vot_results import REGION

RESOLUTION = 100  # thresholds, the infinite ones at both ends included

COUNTS = ("tracked", "failed", "missed")  # visible frames: target met, missed by a region, nothing reported


class LongTerm(Protocol):
    """F, precision and recall at the best threshold."""

    version = 1
    columns = (Column("f1", "F1"), Column("precision", "Precision"), Column("recall", "Recall"), FPS)
    curves = (
        Curve("precision", None, "Precision and recall", "recall", "f1", "F1", "recall", "precision"),
        Curve("f1", None, "F1", "confidence threshold", "f1", "F1", "threshold", "F1"),
    )
    results = frozenset({"votlt"})
    needs_image_size = True

    @abstractmethod
    def thresholds(self, scores: Sequence[Scores]) -> np.ndarray:
        """Descending from inf to -inf, from the confidences of all the sequences; ``[100]``, or all if fewer."""

    @abstractmethod
    def claims(self, confidence: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Frames by falling confidence, and how many of them are claimed at each threshold, int ``[T]``."""

    def sequence_curves(self, scores: Scores, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Precision and recall of one sequence at each threshold, float64 ``[T]``: the mean over its repetitions."""
        visible = max(int(scores.parts["visible"]), 1)
        precision, recall = np.zeros(len(thresholds)), np.zeros(len(thresholds))
        for overlap, confidence in zip(scores.parts["overlap"], scores.parts["confidence"]):
            falling, claimed = self.claims(confidence, thresholds)
            total = np.concatenate([[0.0], np.cumsum(overlap[falling])])
            precision += np.where(claimed > 0, total[claimed] / np.maximum(claimed, 1), 1.0)
            recall += total[claimed] / visible
        runs = len(scores.parts["overlap"])
        return precision / runs, recall / runs

    def summarise(self, scores: Sequence[Scores]) -> Scores:
        """Several sequences; one alone is judged at the quantiles of its own confidences."""
        thresholds = self.thresholds(scores)
        precision, recall = np.mean([self.sequence_curves(score, thresholds) for score in scores], axis=0)
        f1 = harmonic_mean(precision, recall)
        best = int(np.argmax(f1))
        values = {
            "f1": float(f1[best]),
            "precision": float(precision[best]),
            "recall": float(recall[best]),
            "threshold": float(thresholds[best]),
            **{
                name: float(sum(score.parts["counts"][k] for score in scores))
                for k, name in enumerate(COUNTS)
            },
            "fps": mean_speed(scores, pooled=False),
        }
        finite = thresholds[1:-1]
        ends = (finite[-1], finite[0]) if finite.size else (0.0, 0.0)  # where the infinite ones are drawn
        curves = {
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "threshold": np.clip(thresholds, *ends),
        }
        frames, timed = sum(score.frames for score in scores), sum(score.timed for score in scores)
        return Scores(values, curves, frames, timed)

    def resampled(self, scores: Sequence[Scores], counts: np.ndarray) -> dict[str, np.ndarray]:
        """The thresholds stay those of all the sequences."""
        thresholds = self.thresholds(scores)
        curves = np.array([self.sequence_curves(score, thresholds) for score in scores])
        precision, recall = (counts @ curves[:, k] / counts.sum(axis=1, keepdims=True) for k in range(2))
        f1 = harmonic_mean(precision, recall)
        best = np.argmax(f1, axis=1)[:, None]
        drawn = {"f1": f1, "precision": precision, "recall": recall}
        return {key: np.take_along_axis(values, best, axis=1)[:, 0] for key, values in drawn.items()}

    def _scores(
        self,
        truth: Truth,
        runs: Runs,
        overlap: list[np.ndarray],
        confidence: list[np.ndarray],
        counts: np.ndarray,
    ) -> Scores:
        fps, timed = speed(runs.seconds)
        parts = {
            "overlap": np.array(overlap),
            "confidence": np.array(confidence),
            "visible": np.array(np.count_nonzero(visible_frames(truth))),
            "counts": counts,
        }
        alone = Scores({"fps": fps}, {}, len(truth.bbox) * len(overlap), timed, parts)
        return self.summarise([alone])._replace(parts=parts)


@PROTOCOLS.register("pysot-votlt")
class PysotLongTerm(LongTerm):
    """The first repetition; an absent target, or nothing reported, has overlap 0.

    Where the toolkit finds no number (F of a tracker that never meets the target), F is 0. Fewer than 98
    confidences, with which it ends in an error, are all thresholds.
    """

    name = "pysot-votlt"
    source = "pysot toolkit"

    def score(self, truth: Truth, runs: Runs) -> Scores:
        run = _fitted(supervised_runs(truth, runs)[0], len(truth.bbox))
        confidence = _confidences(truth, runs)[0]
        confidence[:1] = np.nan  # the toolkit throws the first line away, whatever it says
        rows = np.flatnonzero(run.code == REGION)
        overlap = np.zeros(len(truth.bbox))
        found = vot_overlaps(regions_of(truth.bbox[rows]), take(run.regions, rows), image_size(truth))
        overlap[rows] = np.nan_to_num(found, nan=0.0)
        overlap[~visible_frames(truth)] = 0
        return self._scores(truth, runs, [overlap], [confidence], _counts(truth, [run], [overlap]))

    def thresholds(self, scores: Sequence[Scores]) -> np.ndarray:
        rising = np.sort(_known(scores))
        count, wanted = len(rising), RESOLUTION - 2
        if count >= wanted:
            step = count // wanted
            rising = rising[np.floor(np.linspace(step - 1, count - step, wanted) + 0.5).astype(np.int64)]
        return np.concatenate([[np.inf], rising[::-1], [-np.inf]])

    def claims(self, confidence: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """NaN is a confidence of 0; at -inf only what is above 0 is claimed."""
        given = np.nan_to_num(confidence, nan=0.0)
        falling, claimed = _claims(given, thresholds)
        claimed[np.isneginf(thresholds)] = np.count_nonzero(given > 0)
        return falling, claimed


@PROTOCOLS.register("votlt")
class OfficialLongTerm(LongTerm):
    """All repetitions; an absent target and nothing reported overlap by 1. Counts are means over repetitions."""

    name = "votlt"
    source = "vot-toolkit"

    def score(self, truth: Truth, runs: Runs) -> Scores:
        frames, given = len(truth.bbox), supervised_runs(truth, runs)
        for run in given:
            if len(run.code) != frames:
                raise Unscorable(f"{len(run.code)} lines for {frames} frames")
        size, visible = image_size(truth), visible_frames(truth)
        fitted = [_fitted(run, frames) for run in given]
        overlap = []
        for run in fitted:
            reported = run.regions.length > 0
            both = np.flatnonzero(reported & visible)
            overlap.append((~reported & ~visible).astype(np.float64))
            overlap[-1][both] = official_overlaps(regions_of(truth.bbox[both]), take(run.regions, both), size)
        return self._scores(truth, runs, overlap, _confidences(truth, runs), _counts(truth, fitted, overlap))

    def thresholds(self, scores: Sequence[Scores]) -> np.ndarray:
        falling = np.sort(_known(scores))[::-1]
        count, wanted = len(falling), RESOLUTION - 2
        if count > wanted:
            step = count // wanted
            falling = falling[np.round(np.linspace(step, count - step, wanted)).astype(np.int64)]
        return np.concatenate([[np.inf], falling, [-np.inf]])

    def claims(self, confidence: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """NaN is never claimed."""
        given = np.flatnonzero(~np.isnan(confidence))
        falling, claimed = _claims(confidence[given], thresholds)
        return given[falling], claimed


def _claims(confidence: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rising = np.argsort(confidence)
    return rising[::-1], len(rising) - np.searchsorted(confidence[rising], thresholds, side="left")


def harmonic_mean(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """F of precision and recall; 0 where both are."""
    total = precision + recall
    return 2 * precision * recall / np.where(total > 0, total, 1.0)


def visible_frames(truth: Truth) -> np.ndarray:
    """Frames with a target, bool ``[N]``."""
    return ~np.isnan(truth.bbox).any(axis=1)


def _known(scores: Sequence[Scores]) -> np.ndarray:
    pooled = np.concatenate([score.parts["confidence"].reshape(-1) for score in scores])
    return pooled[~np.isnan(pooled)]


def _confidences(truth: Truth, runs: Runs) -> list[np.ndarray]:
    """A copy per repetition, cut or filled with NaN to the number of frames."""
    if runs.presence is None:
        raise Unscorable("no confidences")
    frames = len(truth.bbox)
    return [
        np.concatenate([given[:frames], np.full(max(frames - len(given), 0), np.nan)])
        for given in runs.presence
    ]


def _fitted(run: SupervisedRun, frames: int) -> SupervisedRun:
    """Cut or filled with nothing reported to ``frames``; regions that hold a NaN are nothing reported."""
    run = without_nan(run)
    values = np.full((frames, run.regions.values.shape[1]), np.nan)
    length, code = np.zeros(frames, np.int64), np.zeros(frames, np.int8)
    shown = min(frames, len(run.code))
    values[:shown], length[:shown] = run.regions.values[:shown], run.regions.length[:shown]
    code[:shown] = run.code[:shown]
    return SupervisedRun(code, Regions(values, length))


def _counts(truth: Truth, runs: Sequence[SupervisedRun], overlap: Sequence[np.ndarray]) -> np.ndarray:
    """Frames by ``COUNTS``, mean over repetitions."""
    visible = visible_frames(truth)
    table = []
    for run, overlaps in zip(runs, overlap):
        reported, met = run.regions.length > 0, overlaps > 0
        cases = (visible & met, visible & ~met & reported, visible & ~met & ~reported)
        table.append([np.count_nonzero(case) for case in cases])
    return np.mean(table, axis=0)
