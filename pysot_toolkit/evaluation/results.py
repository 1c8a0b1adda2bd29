"""Result files: where each toolkit puts them, and what may be wrong with them."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from config.console import warn
from config.errors import UserError, nearest
from pysot_toolkit.datasets.text import parse_table
from pysot_toolkit.evaluation.protocol import RESULT_READERS, Runs

_NAMED = 20  # faults that are named before giving up


class Fault(NamedTuple):
    """A result file that is not as it should be; every one is counted and named."""

    sequence: str
    # "missing", "broken": left out; "short": absent lines are failures; "long": cut; "nan", "negative": boxes
    # that are no boxes, scored as the protocol does; "presence": no scores of it; "times": no speed;
    # "refused": by one protocol
    kind: str
    path: str
    detail: str


_COUNTED = ("missing", "broken", "short", "long", "nan", "negative", "presence")  # what changes a score


def refuse_faults(faults: Mapping[str, Sequence[Fault]]) -> None:
    """Name every result file that is not as it should be, and refuse to go on.

    Raises:
        UserError: there is at least one; unreadable times are only named in the report.
    """
    wrong = [
        (tracker, fault) for tracker, found in faults.items() for fault in found if fault.kind in _COUNTED
    ]
    for tracker, fault in wrong[:_NAMED]:
        warn(f"{tracker}, {fault.sequence}: {fault.kind}: {fault.path}: {fault.detail}")
    if wrong:
        more = f" (the first {_NAMED} are named above)" if len(wrong) > _NAMED else ""
        raise UserError(
            f"faulty results: {len(wrong)}{more}; mend them, or average over what exists with --allow-missing"
        )


def foreign_results(folder: Path, faults: list[Fault], sequences: int) -> list[Fault]:
    """The same faults; where all ``sequences`` are missing although ``folder`` holds others, one that says so."""
    if sequences == 0 or sum(fault.kind == "missing" for fault in faults) < sequences:
        return faults
    other = next(
        (
            path
            for path in sorted(folder.rglob("*.*"))
            if path.suffix in (".txt", ".png") and not path.name.endswith("_time.txt")
        ),
        None,
    )
    if other is None:
        return faults
    told = f"none of the benchmark's videos; '{other.name}' and the like are results of another benchmark"
    return [faults[0]._replace(path=str(folder), detail=told), *faults[1:]]


def find_trackers(folder: Path, prefix: str = "", names: Iterable[str] | None = None) -> list[str]:
    """The trackers with results in ``folder``: those in ``names``, else all whose name starts with ``prefix``.

    Raises:
        UserError: no such folder, or no such tracker in it.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no results there; run scripts/test.py first or give another --tracker_path"
        )
    present = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if names is not None:
        for name in names:
            if name not in present:
                raise UserError(f"{folder}: no tracker '{name}': {nearest(name, present)}")
        return list(names)
    found = [name for name in present if name.startswith(prefix)]
    if not found:
        wanted = (
            f"whose name starts with '{prefix}': {nearest(prefix, present)}"
            if present
            else "at all; run scripts/test.py first"
        )
        raise UserError(f"{folder}: no tracker {wanted}")
    return found


@RESULT_READERS.register("boxes")
@RESULT_READERS.register("repeated")
def read_runs(
    folder: Path, names: list[str], frames: int, extra_frames: bool = False
) -> tuple[Runs | None, list[Fault]]:
    """The result of one tracker for one sequence, read once, and what is wrong with its files.

    Read are ``{name}.txt`` and the repetitions ``{name}/{name}_001.txt``, ``_002`` ...; times from
    ``{name}_time.txt`` beside them or in ``times/`` (got10k toolkit), presence scores from
    ``{name}_object_presence_scores.txt`` (pytracking).

    Args:
        folder: of the tracker.
        names: under which toolkits store the sequence, best first; faults carry the first.
        frames: annotated frames of the sequence.
        extra_frames: the video has more images than that, so longer results are right.

    Returns:
        None where no file can be used, and the faults.
    """
    for name in names:
        flat = folder / f"{name}.txt"
        paths = (
            [flat]
            if flat.is_file()
            else sorted((folder / name).glob(f"{glob.escape(name)}_[0-9][0-9][0-9].txt"))
        )
        if paths:
            break
    else:
        return None, [Fault(names[0], "missing", str(folder / f"{names[0]}.txt"), "no result file")]
    boxes: list[np.ndarray] = []
    faults: list[Fault] = []
    for path in paths:
        table, wrong = _read(path)
        if not wrong and table.shape[1] != 4:
            wrong = f"{table.shape[1]} columns instead of 4" if len(table) else "is empty"
        if wrong:
            faults.append(Fault(names[0], "broken", str(path), wrong))
            continue
        boxes.append(table)
        faults += _no_boxes(names[0], path, table)
        if len(table) < frames or (len(table) > frames and not extra_frames):
            kind = "short" if len(table) < frames else "long"
            faults.append(Fault(names[0], kind, str(path), f"{len(table)} lines for {frames} frames"))
    if not boxes:
        return None, faults
    seconds, fault = _read_beside(folder, name, "times", "_time.txt")
    if fault:
        faults.append(Fault(names[0], "times", *fault))
    presence, fault = _read_beside(folder, name, "object_presence_scores", "_object_presence_scores.txt")
    if fault:
        faults.append(Fault(names[0], "presence", *fault))
    return Runs(boxes, seconds, None if presence is None else list(presence.T)), faults


def _read(path: Path) -> tuple[np.ndarray, str]:
    """A table and, where it cannot be used, why."""
    try:
        return parse_table(path.read_bytes()), ""
    except (OSError, ValueError) as error:
        return np.empty((0, 0)), str(error)


def _no_boxes(sequence: str, path: Path, table: np.ndarray) -> list[Fault]:
    """NaN and negative sizes, with the first line that has them."""
    faults = []
    for kind, rows in (("nan", np.isnan(table).any(axis=1)), ("negative", (table[:, 2:] < 0).any(axis=1))):
        if rows.any():
            lines = np.flatnonzero(rows) + 1
            faults.append(
                Fault(
                    sequence,
                    kind,
                    str(path),
                    f"line {lines[0]}" + (f" and {len(lines) - 1} more" if len(lines) > 1 else ""),
                )
            )
    return faults


def _read_beside(
    folder: Path, name: str, subfolder: str, ending: str
) -> tuple[np.ndarray | None, tuple[str, str] | None]:
    """The table ``{name}{ending}`` beside the boxes or in ``subfolder``: one row per frame, a column per run."""
    file = f"{name}{ending}"
    path = next(
        (p for p in (folder / name / file, folder / subfolder / file, folder / file) if p.is_file()), None
    )
    if path is None:
        return None, None
    seconds, wrong = _read(path)
    return (None, (str(path), wrong)) if wrong else (seconds, None)
