"""Protocol ``got10k-vot``: VOT's experiment with resets as the got10k toolkit reports it.

Exact overlap within the image, averaged over repetitions frame by frame; then a mean per tag (``empty`` is the
frames without any), and a mean over tags weighted by their frames. There is no expected average overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pysot_toolkit.datasets.vot import VOT_TAGS
from pysot_toolkit.evaluation.protocol import (
    FPS,
    PROTOCOLS,
    Column,
    Protocol,
    Runs,
    Scores,
    Truth,
    Unscorable,
    mean_speed,
    speed,
)
from pysot_toolkit.evaluation.regions import exact_overlaps
from pysot_toolkit.evaluation.vot_common import (
    image_size,
    side_by_side,
    supervised_runs,
    tag_table,
    take,
    true_regions,
)
from pysot_toolkit.evaluation.vot_results import FAILED, REGION

TAGS = (*VOT_TAGS, "empty")


@PROTOCOLS.register("got10k-vot")
class Got10kVot(Protocol):
    """Accuracy and robustness (failures), each weighted by tag."""

    name = "got10k-vot"
    version = 1
    source = "got10k toolkit"
    columns = (Column("accuracy", "Accuracy"), Column("robustness", "Failures", "lower", 3), FPS)
    curves = ()
    results = frozenset({"vot"})
    needs_image_size = True

    def score(self, truth: Truth, runs: Runs) -> Scores:
        given, frames = supervised_runs(truth, runs), len(truth.bbox)
        for run in given:
            if len(run.code) != frames:
                raise Unscorable(f"{len(run.code)} lines for {frames} frames")
        repetitions = side_by_side(given, frames)
        target, size = true_regions(truth), image_size(truth)
        counted = repetitions.burnt_in & (repetitions.code == REGION)
        table = np.full(counted.shape, np.nan)
        for row, mask, regions in zip(table, counted, repetitions.regions):
            row[mask] = exact_overlaps(take(target, mask), take(regions, mask), size)
        known = ~np.isnan(table)
        weight = repetitions.times @ known
        mean = (repetitions.times @ np.where(known, table, 0.0)) / np.maximum(weight, 1)
        failures = repetitions.times @ (repetitions.code == FAILED) / repetitions.times.sum()
        tags = tag_table(truth, VOT_TAGS)
        tags = np.concatenate([tags, ~tags.any(axis=0, keepdims=True)]).astype(np.float64)
        fps, timed = speed(runs.seconds)
        parts = {"tags": np.stack([tags @ mean, tags @ (weight > 0), tags @ failures, tags.sum(axis=1)])}
        alone = Scores({"fps": fps}, {}, frames * len(given), timed, parts)
        return self.summarise([alone])._replace(parts=parts)

    def summarise(self, scores: Sequence[Scores]) -> Scores:
        accuracy, robustness = _weighted(np.sum([score.parts["tags"] for score in scores], axis=0)[None])
        return _scores(scores, float(accuracy[0]), float(robustness[0]))

    def by_attribute(
        self, scores: Mapping[str, Scores], attributes: Mapping[str, Sequence[str]]
    ) -> dict[str, tuple[Scores, int]]:
        """VOT's tags of frames, and ``empty``: mean overlap and failures in the frames that carry each.

        The number is that of the sequences in which the tag occurs.
        """
        every = list(scores.values())
        parts = np.array([score.parts["tags"] for score in every])
        accuracy, failures = _by_tag(parts.sum(axis=0))
        occurs = np.count_nonzero(parts[:, 3] > 0, axis=0).tolist()
        return {
            tag: (_scores(every, float(accuracy[k]), float(failures[k])), occurs[k])
            for k, tag in enumerate(TAGS)
            if occurs[k]
        }

    def resampled(self, scores: Sequence[Scores], counts: np.ndarray) -> dict[str, np.ndarray]:
        parts = np.array([score.parts["tags"] for score in scores])
        accuracy, robustness = _weighted(np.einsum("bs,spt->bpt", counts, parts))
        return {"accuracy": accuracy, "robustness": robustness}


def _by_tag(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean overlap (0 where there is none) and failures of each tag: ``[..., 4, tags] -> 2 x [..., tags]``."""
    overlap, counted, failures = (parts[..., k, :] for k in range(3))
    return overlap / np.maximum(counted, 1), failures


def _weighted(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over tags weighted by their frames: ``[B, 4, tags] -> 2 x [B]``."""
    accuracy, failures = _by_tag(parts)
    weights = parts[:, 3] / parts[:, 3].sum(axis=1, keepdims=True)
    return (accuracy * weights).sum(axis=1), (failures * weights).sum(axis=1)


def _scores(scores: Sequence[Scores], accuracy: float, robustness: float) -> Scores:
    values = {"accuracy": accuracy, "robustness": robustness, "fps": mean_speed(scores, pooled=True)}
    frames, timed = sum(score.frames for score in scores), sum(score.timed for score in scores)
    return Scores(values, {}, frames, timed)
