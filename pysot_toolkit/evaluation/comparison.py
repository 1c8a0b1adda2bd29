"""How sure a score is, and how much two trackers differ: intervals by drawing the videos anew.

Bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, percentile method. What is drawn are
videos, because the frames of one video are not independent; two trackers are always compared on the same
draws (paired), which removes what both find hard.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from config.errors import UserError, nearest
from config.files import write_json
from pysot_toolkit.evaluation.protocol import Column, Protocol, Scores
from pysot_toolkit.evaluation.report import Report

DRAWS = 2000
_SEED = 20211  # of the draws: the same results give the same intervals on every machine
_RUN = re.compile(r"(.+)_(\d{3})")  # pytracking numbers the runs of a tracker so


class Interval(NamedTuple):
    """A score and where 95 % of the draws put it."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """One tracker against another on the videos that both have, for one score."""

    tracker: str
    against: str
    column: Column
    difference: Interval  # tracker minus against
    better: int  # videos on which the tracker is the better one
    worse: int
    videos: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.difference.low > 0 or self.difference.high < 0


class Gap(NamedTuple):
    """One video on which two trackers differ."""

    video: str
    value: float
    against: float


class Spread(NamedTuple):
    """Several runs of one tracker under one protocol."""

    name: str
    runs: int
    mean: dict[str, float]  # by column
    deviation: dict[str, float]  # standard deviation of single runs (n - 1 in the denominator)


def ranked_columns(protocol: Protocol) -> list[Column]:
    """The columns that say which tracker is better."""
    return [column for column in protocol.columns if column.better]


def draw_counts(sequences: int) -> np.ndarray:
    """How often each of ``sequences`` videos occurs in each draw, float64 ``[DRAWS, sequences]``."""
    generator = np.random.default_rng([_SEED, sequences])
    return generator.multinomial(sequences, np.full(sequences, 1 / sequences), DRAWS).astype(np.float64)


def intervals(protocol: Protocol, sequences: Mapping[str, Scores]) -> dict[str, Interval]:
    """Column to score and 95 % interval of one tracker; empty where there are no videos."""
    scores = list(sequences.values())
    if not scores:
        return {}
    values = protocol.summarise(scores).values
    drawn = protocol.resampled(scores, draw_counts(len(scores)))
    return {
        column.key: _interval(values[column.key], drawn[column.key]) for column in ranked_columns(protocol)
    }


def compare(report: Report, against: str) -> dict[str, list[Difference]]:
    """Protocol to the differences of every other tracker from ``against``, for every ranked column.

    Raises:
        UserError: no tracker ``against`` in the report.
    """
    if against not in report.faults:
        raise UserError(f"--against {against}: no such tracker here: {nearest(against, report.faults)}")
    table = {}
    for protocol in report.protocols:
        scores = report.scores[protocol.name]
        table[protocol.name] = [
            difference
            for name in report.ranking(protocol)
            if name != against
            for difference in _differences(
                protocol, name, scores[name].sequences, against, scores[against].sequences
            )
        ]
    return table


def video_gaps(protocol: Protocol, ours: Mapping[str, Scores], theirs: Mapping[str, Scores]) -> list[Gap]:
    """The videos both have, by ranking score: where ``ours`` is furthest ahead first."""
    column = protocol.columns[0]
    sign = -1.0 if column.better == "lower" else 1.0
    gaps = [
        Gap(name, ours[name].values[column.key], theirs[name].values[column.key])
        for name in ours
        if name in theirs
    ]
    known = [gap for gap in gaps if not np.isnan(gap.value - gap.against)]
    return sorted(known, key=lambda gap: (-sign * (gap.value - gap.against), gap.video))


def spreads(report: Report, protocol: Protocol) -> list[Spread]:
    """Mean and spread of every tracker with several runs.

    Runs are the repetitions in a tracker's own files (``Report.repetitions``), or trackers ``NAME_000``,
    ``NAME_001`` ... that are called alike.
    """
    groups: dict[str, list[Scores]] = {}
    for name in report.ranking(protocol):
        overall = report.scores[protocol.name][name].overall
        repeated = report.repetitions.get(protocol.name, {}).get(name, [])
        numbered = _RUN.fullmatch(name)
        if repeated:
            groups[name] = repeated
        elif numbered and overall is not None:
            groups.setdefault(numbered[1], []).append(overall)
    return [_spread(protocol, name, runs) for name, runs in groups.items() if len(runs) > 1]


def write_comparison(report: Report, folder: Path, against: str | None = None, runs: bool = False) -> Path:
    """Write ``comparison.json`` into ``folder``: per protocol the interval of every score, the differences from
    ``against`` and the spread of runs where asked for; returns its path.
    """
    differences = compare(report, against) if against else {}
    table = {}
    for protocol in report.protocols:
        entry: dict[str, Any] = {
            "intervals": {
                name: {
                    key: _plain(interval) for key, interval in intervals(protocol, scores.sequences).items()
                }
                for name, scores in report.scores[protocol.name].items()
            }
        }
        if against:
            entry["against"] = against
            entry["differences"] = [
                {
                    **item._asdict(),
                    "column": item.column.key,
                    "difference": _plain(item.difference),
                    "clear": item.clear,
                }
                for item in differences[protocol.name]
            ]
        if runs:
            entry["runs"] = [
                {
                    **spread._asdict(),
                    "mean": _known(spread.mean),
                    "deviation": _known(spread.deviation),
                }
                for spread in spreads(report, protocol)
            ]
        table[protocol.name] = entry
    path = folder / "comparison.json"
    write_json(path, {"draws": DRAWS, "protocols": table}, indent=True)
    return path


def _plain(interval: Interval) -> list[float | None]:
    return [None if np.isnan(number) else float(number) for number in interval]


def _known(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {key: None if np.isnan(number) else number for key, number in numbers.items()}


def _differences(
    protocol: Protocol, name: str, ours: Mapping[str, Scores], against: str, theirs: Mapping[str, Scores]
) -> list[Difference]:
    common = [video for video in ours if video in theirs]
    if not common:
        return []
    mine, other = [ours[video] for video in common], [theirs[video] for video in common]
    counts = draw_counts(len(common))
    drawn, drawn_other = protocol.resampled(mine, counts), protocol.resampled(other, counts)
    value, value_other = protocol.summarise(mine).values, protocol.summarise(other).values
    differences = []
    for column in ranked_columns(protocol):
        key = column.key
        by_video = np.array([a.values[key] - b.values[key] for a, b in zip(mine, other)])
        if column.better == "lower":
            by_video = -by_video
        interval = _interval(value[key] - value_other[key], drawn[key] - drawn_other[key])
        better, worse = int(np.sum(by_video > 0)), int(np.sum(by_video < 0))
        differences.append(Difference(name, against, column, interval, better, worse, len(common)))
    return differences


def _interval(value: float, drawn: np.ndarray) -> Interval:
    known = drawn[~np.isnan(drawn)]  # a draw may hold no frame with a score at all
    if not known.size:
        return Interval(value, np.nan, np.nan)
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def _spread(protocol: Protocol, name: str, runs: Sequence[Scores]) -> Spread:
    values = {column.key: [run.values[column.key] for run in runs] for column in protocol.columns}
    return Spread(
        name,
        len(runs),
        {key: float(np.mean(numbers)) for key, numbers in values.items()},
        {key: float(np.std(numbers, ddof=1)) for key, numbers in values.items()},
    )
