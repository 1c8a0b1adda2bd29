"""Protocols ``vot2015`` to ``vot2019``: the experiment with resets as the VOT toolkit (Python) scores it.

Accuracy is a mean over runs, then over sequences weighted by their length; expected average overlap counts a
fragment from its own initialisation to the frame before the failure, and its curve ends with the longest fragment.
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
    Unscorable,
    mean_speed,
    speed,
)
from pysot_toolkit.evaluation.regions import OfficialRaster
from pysot_toolkit.evaluation.vot_common import (
    Fragments,
    Repetitions,
    expected_overlap_sums,
    image_size,
    reliability,
    resampled_overlap,
    side_by_side,
    summed,
    supervised_runs,
    true_regions,
)
from pysot_toolkit.evaluation.vot_results import FAILED, INITIALISED


def overlaps(truth: Truth, repetitions: Repetitions) -> np.ndarray:
    """Overlap of each prediction within the image, float64 ``[R, N]``; NaN where a run has no region."""
    raster = OfficialRaster(true_regions(truth), image_size(truth))
    return repetitions.table(raster.overlaps_many(repetitions.regions))


def fragments_of(repetitions: Repetitions) -> Fragments:
    """From each initialisation to the frame before the failure, or to the end of the run."""
    run, start, stop, failed = [], [], [], []
    for number, (code, length) in enumerate(zip(repetitions.code, repetitions.length.tolist())):
        starts, ends = np.flatnonzero(code == INITIALISED), np.flatnonzero(code == FAILED)
        survived = len(starts) > len(ends)
        if not len(ends):
            starts = starts[:1]  # the whole run
        elif survived:
            starts = np.append(starts[: len(ends)], starts[-1])
        run.append(np.full(len(starts), number))
        start.append(starts)
        stop.append(np.append(ends, length)[: len(starts)])
        failed.append(np.arange(len(starts)) < len(ends))
    return Fragments(*(np.concatenate(column) for column in (run, start, stop, failed)))


class Vot(Protocol):
    """Expected average overlap between two lengths, accuracy, failures per sequence."""

    version = 1
    source = "vot-toolkit"
    columns: tuple[Column, ...] = (
        Column("eao", "EAO"),
        Column("accuracy", "Accuracy"),
        Column("failures", "Failures", "lower", 3),
        FPS,
    )
    curves = (
        Curve(
            "eao", None, "Expected average overlap", "sequence length", "eao", "EAO", "eao_x", "mean overlap"
        ),
    )
    pictures = frozenset({"ar", "eao"})
    results = frozenset({"vot"})
    needs_image_size = True
    low: int  # the lengths over which the curve is averaged, from 0, both included
    high: int

    def score(self, truth: Truth, runs: Runs) -> Scores:
        given, frames = supervised_runs(truth, runs), len(truth.bbox)
        for run in given:
            if len(run.code) != frames:
                raise Unscorable(f"{len(run.code)} lines for {frames} frames")
        repetitions = side_by_side(given, frames, nan_is_nothing=True)
        overlap = overlaps(truth, repetitions)
        counted = repetitions.burnt_in & ~np.isnan(overlap)
        known = np.count_nonzero(counted, axis=1)
        accuracy = np.where(counted, overlap, 0.0).sum(axis=1) / np.maximum(known, 1)
        failures = np.count_nonzero(repetitions.code == FAILED, axis=1)
        fragments = fragments_of(repetitions)
        weights = repetitions.times[fragments.run][None]
        total = repetitions.times.sum()
        fps, timed = speed(runs.seconds)
        parts = {
            **expected_overlap_sums(np.nan_to_num(overlap, nan=0.0), fragments, weights),
            "accuracy": accuracy @ repetitions.times / total,
            "failures": failures @ repetitions.times / total,
            "frames": np.array(frames),
        }
        alone = Scores({"fps": fps}, {}, int(frames * total), timed, parts)
        return self.summarise([alone])._replace(parts=parts)

    def summarise(self, scores: Sequence[Scores]) -> Scores:
        parts = [score.parts for score in scores]
        frames = np.array([part["frames"] for part in parts])
        accuracy, failures = (np.array([part[key] for part in parts]) for key in ("accuracy", "failures"))
        overlap, weight = summed(parts, max(part["overlap"].shape[1] for part in parts))
        curve = overlap[0] / weight[0]
        interval = curve[self.low : self.high + 1]
        weighted = float(failures @ frames / frames.sum())
        values = {
            "eao": float(interval.mean()) if interval.size else np.nan,
            "accuracy": float(accuracy @ frames / frames.sum()),
            "failures": weighted,
            "failures_sum": float(failures.sum()),
            "reliability": reliability(weighted, float(frames.mean())),
            "fps": mean_speed(scores, pooled=False),
        }
        curves = {"eao": curve, "eao_x": np.arange(len(curve))}
        return Scores(
            values,
            curves,
            sum(score.frames for score in scores),
            sum(score.timed for score in scores),
        )

    def resampled(self, scores: Sequence[Scores], counts: np.ndarray) -> dict[str, np.ndarray]:
        parts = [score.parts for score in scores]
        frames = np.array([part["frames"] for part in parts])
        accuracy, failures = (np.array([part[key] for part in parts]) for key in ("accuracy", "failures"))
        reach = np.array([part["overlap"].shape[1] for part in parts])
        total = counts @ frames
        drawn = {
            "eao": resampled_overlap(parts, counts, reach, self.low, self.high + 1),
            "accuracy": counts @ (accuracy * frames) / total,
            "failures": counts @ (failures * frames) / total,
            "failures_sum": counts @ failures,
        }
        return {column.key: drawn[column.key] for column in self.columns if column.better}


class _WithSum(Vot):
    """Adds the plain sum of failures, as the toolkit's description of the earlier years does."""

    columns = (*Vot.columns[:-1], Column("failures_sum", "Failures, sum", "lower", 1), FPS)


@PROTOCOLS.register("vot2015")
class Vot2015(Vot):
    """VOT2015."""

    name = "vot2015"
    low, high = 108, 371


@PROTOCOLS.register("vot2016")
class Vot2016(_WithSum):
    """VOT2016."""

    name = "vot2016"
    low, high = 108, 371


@PROTOCOLS.register("vot2017")
class Vot2017(_WithSum):
    """VOT2017."""

    name = "vot2017"
    low, high = 100, 356


@PROTOCOLS.register("vot2018")
class Vot2018(Vot):
    """VOT2018."""

    name = "vot2018"
    low, high = 100, 356


@PROTOCOLS.register("vot2019")
class Vot2019(Vot):
    """VOT2019."""

    name = "vot2019"
    low, high = 46, 291
