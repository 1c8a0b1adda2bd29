"""How each kind of benchmark wants a tracker run, and how the results of one sequence lie on disk.

The layouts are those of the toolkits that read them: pysot's and got10k's for one pass, VOT's for its challenges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from config.errors import UserError
from pysot_toolkit.datasets.base import BENCHMARKS, BenchmarkFormat
from pysot_toolkit.datasets.text import parse_table
from pysot_toolkit.evaluation.vot_results import INITIALISED, REGION, parse_column, parse_trajectory
from pysot_toolkit.testing.one_pass import MakeCourse, TrackResult, one_pass
from pysot_toolkit.testing.supervised import supervised


class Part(NamedTuple):
    """One file of a finished sequence."""

    path: str  # below the tracker's folder; {0} is the sequence
    write: Callable[[TrackResult], str]
    lines: Callable[[bytes], int]  # how many frames the content covers; ValueError: what is wrong with it
    needed: bool = True  # a result of another toolkit is complete only with it


class Layout(NamedTuple):
    """One way to run a tracker and to write down what it did."""

    course: MakeCourse
    parts: tuple[Part, ...]  # in the order of writing: the last one stands for a complete result


def layout_of(dataset: str) -> Layout:
    """The layout of a benchmark; that of pysot's toolkit for one that is known by its JSON file alone.

    Raises:
        UserError: its results are no boxes.
    """
    kind: type[BenchmarkFormat] = (
        BENCHMARKS.get(dataset) if dataset in BENCHMARKS.names() else BenchmarkFormat
    )
    if kind.results not in _LAYOUTS:
        raise UserError(
            f"{dataset}: its results are {kind.results}, and the trackers here answer with boxes; test on another benchmark"
        )
    return _LAYOUTS[kind.results]


def _boxes(result: TrackResult) -> str:
    return "".join(map(_box, result.bboxes))


def _box(bbox: np.ndarray) -> str:
    x, y, w, h = bbox
    return f"{x:.4f},{y:.4f},{w:.4f},{h:.4f}\n"


def _times(result: TrackResult) -> str:
    return "".join(f"{seconds:.8f}\n" for seconds in result.seconds)


def _supervised(result: TrackResult) -> str:
    assert result.code is not None
    return "".join(
        _box(bbox) if code == REGION else f"{code}\n" for code, bbox in zip(result.code, result.bboxes)
    )


def _unsupervised(result: TrackResult) -> str:
    return f"{INITIALISED}\n" + "".join(map(_box, result.bboxes[1:]))


def _confidence(result: TrackResult) -> str:
    return "\n" + "".join(f"{score:.9g}\n" for score in result.scores[1:])


def _box_lines(content: bytes) -> int:
    table = parse_table(content)
    if table.size and table.shape[1] != 4:
        raise ValueError(f"has {table.shape[1]} numbers per line instead of 4")
    return len(table)


def _time_lines(content: bytes) -> int:
    return len(parse_table(content))  # toolkits write a column per repetition


def _region_lines(content: bytes) -> int:
    code = parse_trajectory(content).code
    if code[0] != INITIALISED:
        raise ValueError(f"line 1 is not {INITIALISED}, the start of the tracker")
    return len(code)


def _confidence_lines(content: bytes) -> int:
    return len(parse_column(content)[0])


_LAYOUTS = {
    "boxes": Layout(one_pass, (Part("{0}.txt", _boxes, _box_lines),)),
    "repeated": Layout(
        one_pass,
        (
            Part("{0}/{0}_time.txt", _times, _time_lines),
            Part("{0}/{0}_001.txt", _boxes, _box_lines),
        ),
    ),
    "vot": Layout(
        supervised,
        (
            Part("baseline/{0}/{0}_time.txt", _times, _time_lines, needed=False),
            Part("baseline/{0}/{0}_001.txt", _supervised, _region_lines),
        ),
    ),
    "votlt": Layout(
        one_pass,
        (
            Part("longterm/{0}/{0}_time.txt", _times, _time_lines, needed=False),
            Part("longterm/{0}/{0}_001_confidence.value", _confidence, _confidence_lines),
            Part("longterm/{0}/{0}_001.txt", _unsupervised, _region_lines),
        ),
    ),
}
