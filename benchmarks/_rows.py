"""What a benchmark finds, how it is measured and how it is shown; the text of the package tells how to use it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

_HEAD = ("", "ours", "baseline", "ratio", "min - max", "target")
_ALIGNED = ("left", "right", "right", "right", "right", "right")


@dataclass(frozen=True)
class Row:
    """One thing that was measured, a number per repetition.

    Repetition i of ``baseline`` ran beside repetition i of ``ours``, so that their ratio is free of what else the
    machine did. The ratio says how many times better ours is: the baseline's number over ours, and for a rate
    (a unit that ends with ``/s``) the other way round.
    """

    name: str
    unit: str  # of both: ms, MB, samples/s
    ours: Sequence[float]
    baseline: Sequence[float] = ()  # empty: there is nothing to compare with
    target: float | None = None  # the ratio that is to be reached
    # Where there is no ratio to reach: the number that ours is not to pass, and for a rate the one that it is to reach.
    limit: float | None = None

    @property
    def ratios(self) -> list[float]:
        """Of each repetition; empty without a baseline."""
        pairs = zip(self.ours, self.baseline)
        return [a / b if self._is_rate else b / a for a, b in pairs]

    @property
    def reached(self) -> bool | None:
        """Whether the median meets the target or the limit; None where there is neither."""
        if self.target is not None:
            return statistics.median(self.ratios) >= self.target
        if self.limit is not None:
            median = statistics.median(self.ours)
            return median >= self.limit if self._is_rate else median <= self.limit
        return None

    @property
    def _is_rate(self) -> bool:
        return self.unit.endswith("/s")

    def cells(self) -> list[str]:
        """The row of a table: name, medians with unit, ratio, its spread, target."""
        ratios, target = self.ratios, ""
        if self.target is not None:
            target = f"{self.target:g}x"
        elif self.limit is not None:
            target = f"at {'least' if self._is_rate else 'most'} {self.limit:g} {self.unit}"
        if self.reached is False:
            target += ", missed"
        return [
            self.name,
            f"{_short(statistics.median(self.ours))} {self.unit}",
            f"{_short(statistics.median(self.baseline))} {self.unit}" if self.baseline else "",
            f"{_short(statistics.median(ratios))}x" if ratios else "",
            f"{_short(min(ratios))} - {_short(max(ratios))}" if ratios else "",
            target,
        ]


def table(rows: Sequence[Row], style: str = "simple") -> str:
    """The rows as text; ``style`` is one of tabulate's."""
    return tabulate(
        [row.cells() for row in rows],
        headers=_HEAD,
        tablefmt=style,
        colalign=_ALIGNED,
        disable_numparse=True,
    )


def paired(
    ours: Callable[[], Any],
    baseline: Callable[[], Any],
    repeat: int = 5,
    clock: Callable[[], float] = time.process_time,
) -> tuple[list[float], list[float]]:
    """Seconds of two ways to do the same, taking turns, after one call of each that does not count.

    The clock is this process's CPU time, which other load changes least; for work of other processes, of several
    threads or of a GPU give ``time.perf_counter``.
    """
    ours(), baseline()
    times = [(timed(ours, clock)[0], timed(baseline, clock)[0]) for _ in range(repeat)]
    return [a for a, _ in times], [b for _, b in times]


def timed(work: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> tuple[float, Any]:
    """Seconds of one call, and what it returned."""
    start = clock()
    outcome = work()
    return clock() - start, outcome


def scaled(numbers: Sequence[float], factor: float) -> list[float]:
    """Every number times ``factor``: seconds to milliseconds, a few videos to all."""
    return [factor * number for number in numbers]


def rates(count: float, seconds: Sequence[float]) -> list[float]:
    """Things per second."""
    return [count / value for value in seconds]


def _short(number: float) -> str:
    """Three digits, or all before the point."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:#.3g}".rstrip(".")
