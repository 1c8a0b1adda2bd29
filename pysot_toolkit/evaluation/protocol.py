"""What every protocol shares: arrays in, named numbers and curves out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from config.registry import Registry

PROTOCOLS = Registry("protocol", "pysot_toolkit.evaluation")


class Truth(NamedTuple):
    """What a protocol needs to know of one sequence."""

    name: str
    bbox: np.ndarray  # float64 [N, 4], (x, y, w, h) px; NaN where absent
    present: np.ndarray | None = None  # bool [N], LaSOT
    cover: np.ndarray | None = None  # int [N], 0..8, GOT-10k
    image_size: tuple[int, int] | None = None  # width, height in px


class Runs(NamedTuple):
    """What a tracker wrote for one sequence: one array per repetition."""

    boxes: list[np.ndarray]  # float64 [n, 4] each, (x, y, w, h) px; n may differ from N
    seconds: np.ndarray | None = None  # float64 [n, repetitions], per frame; 0 or NaN where not measured


class Scores(NamedTuple):
    """Numbers (0..1, speed in frames per second, NaN where there is none) and curves, by name."""

    values: dict[str, float]
    curves: dict[str, np.ndarray]
    frames: int = 0  # frames behind the values, all repetitions
    timed: int = 0  # frames behind the speed


class Column(NamedTuple):
    """One score as a table shows it."""

    key: str
    title: str


class Curve(NamedTuple):
    """One curve as a plot shows it."""

    key: str
    thresholds: np.ndarray
    title: str
    x_label: str
    score: str  # the value that sorts the legend
    score_title: str  # what that value is


class Protocol(ABC):
    """One way to turn boxes into numbers; stateless.

    ``version`` counts up when a change of the code changes a score.
    """

    name: str
    version: int
    source: str  # the program whose numbers it reproduces
    columns: tuple[Column, ...]  # the first one ranks
    curves: tuple[Curve, ...]
    missing_is_zero = False  # a missing result counts as all-zero boxes instead of being left out
    needs_image_size = False

    @abstractmethod
    def score(self, truth: Truth, runs: Runs) -> Scores:
        """One sequence. Frames beyond the annotation are not scored, missing ones count as failures."""

    @abstractmethod
    def summarise(self, scores: Sequence[Scores]) -> Scores:
        """Several sequences (at least one)."""


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
