"""Result files: where each toolkit puts them, and what may be wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from config.errors import UserError, nearest
from pysot_toolkit.datasets.text import parse_table
from pysot_toolkit.evaluation.protocol import Runs


class Fault(NamedTuple):
    """A result file that is not as it should be; every one is counted and named."""

    sequence: str
    kind: str  # "missing", "broken": left out; "short": absent lines are failures; "long": cut
    path: str
    detail: str


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


def read_runs(
    folder: Path, names: list[str], frames: int, extra_frames: bool = False
) -> tuple[Runs | None, list[Fault]]:
    """The result of one tracker for one sequence, read once, and what is wrong with its files.

    Read are ``{name}.txt`` and the repetitions ``{name}/{name}_001.txt``, ``_002`` ...; times from
    ``{name}_time.txt`` beside them or in ``times/``.

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
        paths = [flat] if flat.is_file() else sorted((folder / name).glob(f"{name}_[0-9][0-9][0-9].txt"))
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
        if len(table) < frames or (len(table) > frames and not extra_frames):
            kind = "short" if len(table) < frames else "long"
            faults.append(Fault(names[0], kind, str(path), f"{len(table)} lines for {frames} frames"))
    if not boxes:
        return None, faults
    seconds, fault = _read_times(folder, name)
    if fault:
        faults.append(Fault(names[0], "times", *fault))
    return Runs(boxes, seconds), faults


def _read(path: Path) -> tuple[np.ndarray, str]:
    """A table and, where it cannot be used, why."""
    try:
        return parse_table(path.read_bytes()), ""
    except (OSError, ValueError) as error:
        return np.empty((0, 0)), str(error)


def _read_times(folder: Path, name: str) -> tuple[np.ndarray | None, tuple[str, str] | None]:
    file = f"{name}_time.txt"
    path = next(
        (p for p in (folder / name / file, folder / "times" / file, folder / file) if p.is_file()), None
    )
    if path is None:
        return None, None
    seconds, wrong = _read(path)
    return (None, (str(path), wrong)) if wrong else (seconds, None)
