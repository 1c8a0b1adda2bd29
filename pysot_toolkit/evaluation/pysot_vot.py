"""Protocols ``pysot-vot2016`` to ``pysot-vot2019``: VOT's experiment with resets as pysot's toolkit scores it.

Published tables were made with it, so what it does beyond VOT's definition is kept: overlap is measured on pixel
rasters whose edges belong to the region, a fragment of the expected average overlap starts five frames behind a
failure, a failure in the last four frames is forgotten, and tags weigh fragments instead of selecting frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pysot_toolkit.datasets.vot import VOT_TAGS
from pysot_toolkit.evaluation.protocol import (
    FPS,
    PROTOCOLS,
    Column,
    Curve,
    Protocol,
    Regions,
    Runs,
    Scores,
    Truth,
    mean_speed,
    speed,
)
from pysot_toolkit.evaluation.regions import VotRaster
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
    tag_table,
    take,
    true_regions,
)
from pysot_toolkit.evaluation.vot_results import FAILED, bounding_boxes

REPETITIONS = 15  # all repetitions are used if there are exactly that many, else the first alone
SKIPPED_FRAMES = 5  # from a failure to the restart
TAGS = ("all", *VOT_TAGS, "empty")


def overlaps(truth: Truth, repetitions: Repetitions) -> tuple[np.ndarray, np.ndarray]:
    """Overlap of each prediction within the image, and within an image one pixel narrower and lower.

    Returns:
        Two float64 ``[R, N]``, NaN where a run has no region: for accuracy, and for expected average overlap.
    """
    width, height = image_size(truth)
    target = true_regions(truth)
    whole = repetitions.table(VotRaster(target, (width, height)).overlaps_many(repetitions.regions))
    # Only what reaches into the last column or row can differ; one more, since overlaps are measured in 32 bits.
    reaches = _reach(target, width - 2, height - 2)
    for regions in repetitions.regions:
        reaches[: len(regions.length)] |= _reach(regions, width - 2, height - 2)
    again = np.flatnonzero(reaches)
    narrow = whole.copy()
    if again.size:
        raster = VotRaster(take(target, again), (width - 1, height - 1))
        some = [take(regions, again[again < len(regions.length)]) for regions in repetitions.regions]
        for row, overlap in zip(narrow, raster.overlaps_many(some)):
            row[again[: len(overlap)]] = overlap
        narrow[np.isnan(whole)] = np.nan
    return whole, narrow


def _reach(regions: Regions, right: float, bottom: float) -> np.ndarray:
    """Which regions reach beyond ``right`` or ``bottom``, bool ``[N]``."""
    x, y, width, height = bounding_boxes(regions).T
    return (x + width > right) | (y + height > bottom)


def burnt_in_overlaps(whole: np.ndarray, repetitions: Repetitions) -> np.ndarray:
    """Mean over the repetitions in each frame, ``[R, N] -> [n]`` for the n frames that any run reaches.

    The ten frames from each initialisation are left out; NaN where nothing is left.
    """
    counted = repetitions.burnt_in & ~np.isnan(whole)
    weight = repetitions.times @ counted
    total = repetitions.times @ np.where(counted, whole, 0.0)
    mean = np.divide(total, weight, out=np.full(len(weight), np.nan), where=weight > 0)
    return mean[: repetitions.length.max()]


def fragments_of(repetitions: Repetitions) -> Fragments:
    """From the start or five frames behind a failure to five frames behind the next one, that frame included."""
    run, start, stop, failed = [], [], [], []
    for number, (code, length) in enumerate(zip(repetitions.code, repetitions.length.tolist())):
        points = np.flatnonzero(code == FAILED) + SKIPPED_FRAMES
        points = np.concatenate([[0], points[points <= length]])
        run.append(np.full(len(points), number))
        start.append(points)
        stop.append(np.append(points[1:] + 1, length))
        failed.append(np.arange(len(points)) < len(points) - 1)
    return Fragments(*(np.concatenate(column) for column in (run, start, stop, failed)))


def fragment_weights(tags: np.ndarray, repetitions: Repetitions, fragments: Fragments) -> np.ndarray:
    """How much each fragment counts for each of ``TAGS``: ``[5, N]`` frames with a tag to ``[7, F]``.

    The share of its frames that carry the tag. For ``empty`` the toolkit takes, instead of the frames without any
    tag, the number of tags that never occur in the sequence.
    """
    frames = tags.shape[1]
    carried = np.zeros((1 + len(tags), frames + 1))
    carried[:, 1:] = np.cumsum(np.concatenate([np.ones((1, frames)), tags]), axis=1)
    whole = ~(repetitions.code == FAILED).any(axis=1)[
        fragments.run
    ]  # weighed by the annotation, however short
    stop = np.where(whole, frames, fragments.stop)
    sums = carried[:, np.minimum(stop, frames)] - carried[:, fragments.start]
    never = np.full((1, len(stop)), np.count_nonzero(~tags.any(axis=1)))
    weights = np.concatenate([sums, never]) / np.maximum(stop - fragments.start, 1)
    return repetitions.times[fragments.run] * weights


class PysotVot(Protocol):
    """Expected average overlap between two lengths, accuracy, robustness (failures per 100 frames), lost number."""

    version = 1
    source = "pysot toolkit"
    columns = (
        Column("eao", "EAO"),
        Column("accuracy", "Accuracy"),
        Column("robustness", "Failures/100", "lower"),
        Column("lost", "Lost", "lower", 1),
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
    low: int  # the sequence lengths over which the curve is averaged, from 1, both included
    high: int

    def score(self, truth: Truth, runs: Runs) -> Scores:
        given = supervised_runs(truth, runs)
        used = given if len(given) == REPETITIONS else given[:1]
        repetitions = side_by_side(used, len(truth.bbox))
        whole, narrow = overlaps(truth, repetitions)
        mean = burnt_in_overlaps(whole, repetitions)
        failures = np.count_nonzero(repetitions.code == FAILED, axis=1)
        failed = failures > 0
        narrow[failed] = np.nan_to_num(narrow[failed], nan=0.0)
        fragments = fragments_of(repetitions)
        tags = tag_table(truth, VOT_TAGS)
        untagged = truth.tags is not None and not tags.any(axis=0).all()
        fps, timed = speed(runs.seconds)
        parts = {
            # a fragment may end one frame behind the last
            **expected_overlap_sums(
                np.pad(narrow, ((0, 0), (0, 1))), fragments, fragment_weights(tags, repetitions, fragments)
            ),
            "accuracy": np.array([np.nansum(mean), np.count_nonzero(~np.isnan(mean))]),
            "lost": failures @ repetitions.times / repetitions.times.sum(),
            "frames": np.array(len(mean)),
            "tags": np.append(tags.any(axis=1), [untagged]),
        }
        alone = Scores({"fps": fps}, {}, int(repetitions.length @ repetitions.times), timed, parts)
        return self.summarise([alone])._replace(parts=parts)

    def summarise(self, scores: Sequence[Scores]) -> Scores:
        return self._summary(scores, self._curves(scores)[0])

    def by_attribute(
        self, scores: Mapping[str, Scores], attributes: Mapping[str, Sequence[str]]
    ) -> dict[str, tuple[Scores, int]]:
        """VOT's tags of frames, and ``empty``: expected average overlap alone, which is all that pysot weighs by tag.

        The number is that of the sequences in which the tag occurs.
        """
        every = list(scores.values())
        occurs = np.sum([score.parts["tags"] for score in every], axis=0)
        table = {}
        for tag, curve, count in zip(TAGS[1:], self._curves(every)[1:], occurs.tolist()):
            if count:
                summary = self._summary(every, curve)
                values = {key: np.nan for key in summary.values} | {"eao": summary.values["eao"]}
                table[tag] = (summary._replace(values=values), count)
        return table

    def resampled(self, scores: Sequence[Scores], counts: np.ndarray) -> dict[str, np.ndarray]:
        parts = [score.parts for score in scores]
        lengths = np.array([part["frames"] for part in parts])
        overlap, frames = (counts @ np.array([part["accuracy"] for part in parts])).T
        lost = counts @ np.array([part["lost"] for part in parts])
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "eao": resampled_overlap(parts, counts, lengths, self.low - 1, self.high),
                "accuracy": overlap / frames,
                "robustness": 100 * lost / (counts @ lengths),
                "lost": lost,
            }

    def _curves(self, scores: Sequence[Scores]) -> np.ndarray:
        """Expected average overlap per tag and length, ``[7, M]``; NaN where no fragment carries the tag."""
        parts = [score.parts for score in scores]
        overlap, weight = summed(parts, max(int(part["frames"]) for part in parts))
        with np.errstate(divide="ignore", invalid="ignore"):
            curves = np.where(weight[0] > 0, overlap / weight, 0.0)
        curves[:, 0] = 1
        return curves.astype(np.float32)  # as the toolkit keeps them

    def _summary(self, scores: Sequence[Scores], curve: np.ndarray) -> Scores:
        parts = [score.parts for score in scores]
        overlap, counted = np.sum([part["accuracy"] for part in parts], axis=0)
        lost, frames = (float(sum(part[key] for part in parts)) for key in ("lost", "frames"))
        interval = curve[self.low - 1 : self.high].astype(np.float64)
        interval = interval[~np.isnan(interval)]
        values = {
            "eao": float(interval.mean()) if interval.size else np.nan,
            "accuracy": float(overlap / counted) if counted else np.nan,
            "robustness": 100 * lost / frames,
            "lost": lost,
            "reliability": reliability(lost, frames),
            "fps": mean_speed(scores, pooled=False),
        }
        curves = {"eao": curve, "eao_x": np.arange(1, len(curve) + 1)}
        return Scores(
            values,
            curves,
            sum(score.frames for score in scores),
            sum(score.timed for score in scores),
        )


@PROTOCOLS.register("pysot-vot2016")
class PysotVot2016(PysotVot):
    """VOT2016."""

    name = "pysot-vot2016"
    low, high = 108, 371


@PROTOCOLS.register("pysot-vot2017")
class PysotVot2017(PysotVot):
    """VOT2017."""

    name = "pysot-vot2017"
    low, high = 100, 356


@PROTOCOLS.register("pysot-vot2018")
class PysotVot2018(PysotVot):
    """VOT2018."""

    name = "pysot-vot2018"
    low, high = 100, 356


@PROTOCOLS.register("pysot-vot2019")
class PysotVot2019(PysotVot):
    """VOT2019."""

    name = "pysot-vot2019"
    low, high = 46, 291
