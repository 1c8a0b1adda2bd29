"""What every protocol shares: arrays in, named numbers and curves out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from config.registry import Registry

PROTOCOLS = Registry("protocol", "pysot_toolkit.evaluation")
# By ``BenchmarkFormat.results``: (tracker's folder, names of the sequence, frames, extra_frames) -> (runs, faults).
RESULT_READERS = Registry("layout of results", "pysot_toolkit.evaluation")


class Regions(NamedTuple):
    """A region per frame as VOT writes it: a rectangle, a polygon or nothing."""

    values: np.ndarray  # float64 [N, K], x, y, w, h or x1, y1, x2, y2, ... px; NaN beyond a row's length
    length: np.ndarray  # int [N], numbers in the row: 4 rectangle, 6 or more polygon, 0 no region


class SupervisedRun(NamedTuple):
    """One repetition of a VOT experiment."""

    code: np.ndarray  # int8 [n]: 1 initialised here, 2 failed here, 0 skipped or nothing reported, 3 a region
    regions: Regions  # length 0 where ``code`` is not 3


class Truth(NamedTuple):
    """What a protocol needs to know of one sequence."""

    name: str
    bbox: np.ndarray  # float64 [N, 4], (x, y, w, h) px; NaN where absent
    present: np.ndarray | None = None  # bool [N], LaSOT
    cover: np.ndarray | None = None  # int [N], 0..8, GOT-10k
    image_size: tuple[int, int] | None = None  # width, height in px
    benchmark: str = ""  # conventions of pytracking and got10k differ by benchmark
    polygon: np.ndarray | None = None  # float64 [N, 8], where the truth is no rectangle (VOT)
    tags: Mapping[str, np.ndarray] | None = None  # VOT: tag to int [N], 1 where the frame carries it
    masks: tuple[Path, ...] = ()  # VOS: the annotated mask of each frame, 8-bit indexed PNG


class Runs(NamedTuple):
    """What a tracker wrote for one sequence: one array per repetition."""

    # float64 [n, 4] each, (x, y, w, h) px; n may differ from N. VOT: rectangles around the regions of the first
    # repetition; VOS: none.
    boxes: list[np.ndarray]
    seconds: np.ndarray | None = None  # float64 [n, repetitions], per frame; 0 or NaN where not measured
    presence: list[np.ndarray] | None = None  # float64 [n] each: confidence that the target is there
    supervised: list[SupervisedRun] | None = None  # VOT with resets, and VOT long-term
    masks: tuple[Path, ...] = ()  # VOS: predicted masks, in the order of the frames

    @property
    def repetitions(self) -> int:
        """How often the tracker ran on the sequence."""
        return max(len(self.boxes), len(self.supervised or ()))

    def repetition(self, number: int) -> Runs:
        """Run ``number`` (0-based) alone."""
        seconds = self.seconds
        if seconds is not None and seconds.shape[1] > 1:
            seconds = seconds[:, number : number + 1] if number < seconds.shape[1] else None
        return self._replace(
            boxes=self.boxes[number : number + 1],
            seconds=seconds,
            presence=None if self.presence is None else self.presence[number : number + 1],
            supervised=None if self.supervised is None else self.supervised[number : number + 1],
        )


class Scores(NamedTuple):
    """Numbers (0..1, speed in frames per second, NaN where there is none) and curves, by name."""

    values: dict[str, float]
    curves: dict[str, np.ndarray]
    frames: int = 0  # frames behind the values, all repetitions
    timed: int = 0  # frames behind the speed
    parts: dict[
        str, np.ndarray
    ] = {}  # what ``summarise`` needs of a sequence beyond that; never written to files


class Column(NamedTuple):
    """One score as a table shows it."""

    key: str
    title: str
    better: str = "higher"  # "higher", "lower", or "" for what is not ranked, such as speed
    digits: int = 4


FPS = Column("fps", "fps", better="", digits=1)


class Curve(NamedTuple):
    """One curve as a plot shows it."""

    key: str
    thresholds: np.ndarray | None  # None: every score has its own, under ``curves[x_key]``
    title: str
    x_label: str
    score: str  # the value that sorts the legend
    score_title: str  # what that value is
    x_key: str = ""
    y_label: str = "share of frames"


def success_plot(thresholds: np.ndarray, score: str = "auc", score_title: str = "AUC") -> Curve:
    """The curve ``success``: share of frames above each overlap."""
    return Curve("success", thresholds, "Success", "overlap threshold", score, score_title)


def precision_plot(thresholds: np.ndarray, score_title: str = "at 20 px") -> Curve:
    """The curve ``precision``: share of frames within each centre error in px."""
    return Curve("precision", thresholds, "Precision", "centre error (px)", "precision", score_title)


def norm_precision_plot(thresholds: np.ndarray, score_title: str = "at 0.2") -> Curve:
    """The curve ``norm_precision``: share of frames within each centre error in target sizes."""
    title, label = "Normalised precision", "centre error (target sizes)"
    return Curve("norm_precision", thresholds, title, label, "norm_precision", score_title)


class Unscorable(Exception):
    """A protocol leaves out a sequence; the message says why.

    Args:
        reason: what is wrong.
        kind: of the ``Fault``: "refused", where the reference program refuses such a result; "broken", where it
            does not fit the annotation.
    """

    def __init__(self, reason: str, kind: str = "refused") -> None:
        super().__init__(reason)
        self.kind = kind


class Protocol(ABC):
    """One way to turn boxes, regions or masks into numbers; stateless.

    ``version`` counts up when a change of the code changes a score.
    """

    name: str
    version: int
    source: str  # the program whose numbers it reproduces
    columns: tuple[Column, ...]  # the first one ranks
    curves: tuple[Curve, ...]
    pictures: frozenset[str] = frozenset()  # "ar", "eao": drawn beside the curves
    results: frozenset[str] = frozenset({"boxes", "repeated"})  # ``BenchmarkFormat.results`` it can score
    missing_is_zero = False  # a missing result counts as all-zero boxes instead of being left out
    needs_image_size = False
    needs_cover = False

    @abstractmethod
    def score(self, truth: Truth, runs: Runs) -> Scores:
        """One sequence. Frames beyond the annotation are not scored, missing ones count as failures.

        Raises:
            Unscorable: the reference program refuses such a result.
        """

    @abstractmethod
    def summarise(self, scores: Sequence[Scores]) -> Scores:
        """Several sequences (at least one)."""

    def by_attribute(
        self, scores: Mapping[str, Scores], attributes: Mapping[str, Sequence[str]]
    ) -> dict[str, tuple[Scores, int]]:
        """Attribute to the summary of what carries it, and the number of sequences behind that.

        Args:
            scores: of each sequence.
            attributes: of the benchmark: the sequences that carry each.
        """
        table = {}
        for attribute, names in attributes.items():
            carried = [scores[name] for name in names if name in scores]
            if carried:
                table[attribute] = (self.summarise(carried), len(carried))
        return table

    def resampled(self, scores: Sequence[Scores], counts: np.ndarray) -> dict[str, np.ndarray]:
        """The summary's columns if sequence s occurred ``counts[b, s]`` times: ``[B, S] -> {key: [B]}``.

        This serves for all scores that are means over sequences; protocols that pool override it.
        """
        total = counts.sum(axis=1)
        return {
            column.key: counts @ np.array([score.values[column.key] for score in scores]) / total
            for column in self.columns
            if column.better
        }


def speed(seconds: np.ndarray | None) -> tuple[float, int]:
    """Mean of 1/t over all frames with a time t > 0, and their number; (NaN, 0) without times."""
    if seconds is None:
        return float("nan"), 0
    measured = seconds[seconds > 0]  # NaN compares false
    return (float(np.mean(1.0 / measured)), measured.size) if measured.size else (float("nan"), 0)


def mean_speed(scores: Sequence[Scores], pooled: bool) -> float:
    """Mean speed over the sequences that have one, each counting once, or by its frames if ``pooled``."""
    timed = [score for score in scores if score.timed]
    if not timed:
        return float("nan")
    weights = [score.timed if pooled else 1 for score in timed]
    return float(np.average([score.values["fps"] for score in timed], weights=weights))


def mean_curves(scores: Sequence[Scores], weights: Sequence[float] | None = None) -> dict[str, np.ndarray]:
    """The mean of each curve over sequences."""
    return {
        key: np.average([score.curves[key] for score in scores], axis=0, weights=weights)
        for key in scores[0].curves
    }


def share_above(values: np.ndarray, thresholds: np.ndarray, total: int) -> np.ndarray:
    """Share of ``total`` whose value is strictly above each threshold: ``[n] x [T] -> [T]``. NaN is above none."""
    comparable = values.size - np.count_nonzero(np.isnan(values))
    return (comparable - _at_most(values, thresholds)) / total


def share_within(values: np.ndarray, thresholds: np.ndarray, total: int) -> np.ndarray:
    """Share of ``total`` whose value is at most each threshold: ``[n] x [T] -> [T]``. NaN is within none."""
    return _at_most(values, thresholds) / total


def _at_most(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many values are at most each threshold; one sort serves all thresholds, NaN sorts last."""
    return np.searchsorted(np.sort(values), thresholds, side="right")
