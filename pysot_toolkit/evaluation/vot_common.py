"""What the protocols for experiments with resets share: repetitions side by side, and expected average overlap.

Accuracy, robustness: Cehovin, Leonardis, Kristan, Visual object tracking performance measures revisited, TIP
2016. Expected average overlap: Kristan et al., The Visual Object Tracking VOT2015 challenge results.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pysot_toolkit.evaluation.protocol import Regions, Runs, SupervisedRun, Truth
from pysot_toolkit.evaluation.regions import regions_of
from pysot_toolkit.evaluation.vot_results import INITIALISED, REGION, SKIPPED, hollow

BURN_IN = 10  # frames from an initialisation that do not count for accuracy: they are biased towards it
SENSITIVITY = 30  # frames over which reliability is the chance to go on without a failure

_BEYOND = -1  # where a run has ended


class Repetitions(NamedTuple):
    """R distinct runs on a sequence of N annotated frames."""

    code: np.ndarray  # int8 [R, N], as in SupervisedRun; -1 beyond the end of a run
    regions: list[Regions]  # of each run, at most N
    times: np.ndarray  # float64 [R]: how many repetitions are equal to this one

    @property
    def length(self) -> np.ndarray:
        """Lines of each run, at most N: int ``[R]``."""
        return np.array([len(regions.length) for regions in self.regions])

    @property
    def burnt_in(self) -> np.ndarray:
        """Frames that are not within ``BURN_IN`` of an initialisation, bool ``[R, N]``."""
        started = np.cumsum(self.code == INITIALISED, axis=1)
        before = np.zeros_like(started)
        before[:, BURN_IN:] = started[:, :-BURN_IN]
        return started == before

    def table(self, overlaps: Sequence[np.ndarray]) -> np.ndarray:
        """Overlaps of each run as ``[R, N]``, NaN where a run has no region."""
        rows = np.full(self.code.shape, np.nan)
        for row, overlap in zip(rows, overlaps):
            row[: len(overlap)] = overlap
        rows[self.code != REGION] = np.nan
        return rows


def side_by_side(runs: Sequence[SupervisedRun], frames: int, nan_is_nothing: bool = False) -> Repetitions:
    """The distinct runs, each counted as often as the same object occurs.

    Args:
        runs: of one sequence.
        frames: annotated ones, to which runs are cut.
        nan_is_nothing: a region that holds a NaN is taken for nothing reported.
    """
    distinct = {id(run): run for run in runs}
    times = {key: 0.0 for key in distinct}
    for run in runs:
        times[id(run)] += 1
    code = np.full((len(distinct), frames), _BEYOND, np.int8)
    regions = []
    for row, run in zip(code, distinct.values()):
        shown = without_nan(run) if nan_is_nothing else run
        row[: len(run.code)] = shown.code[:frames]
        regions.append(Regions(*(field[:frames] for field in shown.regions)))
    return Repetitions(code, regions, np.array(list(times.values())))


def without_nan(run: SupervisedRun) -> SupervisedRun:
    """The same with nothing reported where a region holds a NaN, as the VOT toolkit reads it."""
    nothing = hollow(run.regions)
    code, length = run.code.copy(), run.regions.length.copy()
    code[nothing], length[nothing] = SKIPPED, 0
    return SupervisedRun(code, run.regions._replace(length=length))


def supervised_runs(truth: Truth, runs: Runs) -> list[SupervisedRun]:
    """The repetitions; ``ValueError`` where a reader left none, which no reader of these layouts does."""
    if not runs.supervised:
        raise ValueError(f"sequence '{truth.name}': no repetitions, which this protocol scores")
    return runs.supervised


def image_size(truth: Truth) -> tuple[int, int]:
    """Width and height in px; ``ValueError`` where the caller gave none although the protocol asks for it."""
    if truth.image_size is None:
        raise ValueError(f"sequence '{truth.name}': no image size, which this protocol needs")
    return truth.image_size


def true_regions(truth: Truth) -> Regions:
    """The polygons where there are any, else the boxes."""
    return regions_of(truth.bbox if truth.polygon is None else truth.polygon)


def take(regions: Regions, rows: np.ndarray) -> Regions:
    """Regions ``rows`` (indices or a mask)."""
    return Regions(regions.values[rows], regions.length[rows])


def tag_table(truth: Truth, tags: Sequence[str]) -> np.ndarray:
    """Which frames carry which tag, bool ``[tags, N]``."""
    given = truth.tags or {}
    table = np.zeros((len(tags), len(truth.bbox)), bool)
    for row, tag in zip(table, tags):
        if tag in given:
            row[:] = np.asarray(given[tag]) > 0
    return table


def reliability(failures: float, frames: float) -> float:
    """exp(-30 * failures per frame): the horizontal axis of VOT's accuracy-robustness plot, 1 without failures."""
    return math.exp(-SENSITIVITY * failures / frames) if frames else math.nan


class Fragments(NamedTuple):
    """F stretches between a start and the next failure or the end of a run."""

    run: np.ndarray  # int [F]
    start: np.ndarray  # int [F], frame
    stop: np.ndarray  # int [F], the frame behind the last
    failed: np.ndarray  # bool [F]: counts with overlap 0 for ever after; else it is undefined from its end on


def expected_overlap_sums(
    overlap: np.ndarray, fragments: Fragments, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """What a sequence adds to the expected-average-overlap curve under T different weightings.

    The curve at i is the weighted mean, over the fragments that are defined there, of their mean overlap over the
    frames 1 to i behind the start.

    Args:
        overlap: ``[R, N]``; NaN makes the curve NaN from there on.
        fragments: F of them.
        weights: ``[T, F]``.

    Returns:
        ``overlap`` and ``weight`` ``[T, L]``, the weighted sum and the sum of weights at each i of the longest
        fragment; ``after`` ``[2, T]``: beyond it, they are ``after[0] / i`` and ``after[1]``.
    """
    span = fragments.stop - fragments.start
    length = max(int(span.max(initial=1)), 1)
    index = np.arange(length)
    inside = index < span[:, None]
    frame = np.minimum(fragments.start[:, None] + index, overlap.shape[1] - 1)
    values = np.where(inside, overlap[fragments.run[:, None], frame], 0.0)
    values[:, 0] = 0
    total = np.cumsum(values, axis=1)
    defined = inside | fragments.failed[:, None]
    lost = weights[:, fragments.failed]
    return {
        "overlap": (weights @ np.where(defined, total, 0.0)) / np.maximum(index, 1),
        "weight": weights @ defined,
        "after": np.stack([lost @ total[fragments.failed, -1], lost.sum(axis=1)]),
    }


def widened(parts: Mapping[str, np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
    """``overlap`` and ``weight`` of ``expected_overlap_sums`` as ``[T, length]`` each."""
    own = min(parts["overlap"].shape[1], length)
    overlap, weight = (np.empty((parts["after"].shape[1], length)) for _ in range(2))
    overlap[:, :own], weight[:, :own] = parts["overlap"][:, :own], parts["weight"][:, :own]
    overlap[:, own:] = parts["after"][0][:, None] / np.arange(own, length)
    weight[:, own:] = parts["after"][1][:, None]
    return overlap, weight


def summed(parts: Sequence[Mapping[str, np.ndarray]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """The sums of ``widened`` over sequences."""
    overlap, weight = (np.zeros((parts[0]["after"].shape[1], length)) for _ in range(2))
    for part in parts:
        more, weights = widened(part, length)
        overlap += more
        weight += weights
    return overlap, weight


def resampled_overlap(
    parts: Sequence[Mapping[str, np.ndarray]], counts: np.ndarray, lengths: np.ndarray, low: int, high: int
) -> np.ndarray:
    """Mean of the curve (first weighting) over ``low <= i < high`` if sequence s occurred ``counts[b, s]`` times.

    Args:
        parts: of S sequences.
        counts: ``[B, S]``.
        lengths: ``[S]``, how far a sequence makes the curve reach.
        low, high: of i, from 0.

    Returns:
        ``[B]``, NaN where no curve of the draw reaches ``low``.
    """
    high = min(high, int(lengths.max()))
    if high <= low:
        return np.full(len(counts), np.nan)
    rows = [widened(part, high) for part in parts]
    overlap = np.array([row[0][0, low:] for row in rows])
    weight = np.array([row[1][0, low:] for row in rows])
    broken = np.isnan(overlap)
    with np.errstate(divide="ignore", invalid="ignore"):
        sums, weights = counts @ np.where(broken, 0.0, overlap), counts @ weight
        curve = np.where(weights > 0, sums / weights, 0.0)
    if broken.any():
        curve[counts @ broken > 0] = np.nan
    reach = np.where(counts > 0, lengths, 0).max(axis=1)
    curve[np.arange(low, high) >= reach[:, None]] = np.nan
    known = np.count_nonzero(~np.isnan(curve), axis=1)
    return np.where(known > 0, np.nansum(curve, axis=1) / np.maximum(known, 1), np.nan)
