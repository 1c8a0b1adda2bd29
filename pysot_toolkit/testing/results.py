"""Result files: each benchmark's own layout, written whole or not at all."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from config.errors import UserError
from config.files import read_bytes, read_json, sha256, write_json, write_text
from config.settings import Settings
from pysot_toolkit.datasets.base import BENCHMARKS


class TrackResult(NamedTuple):
    """What a tracker said about one sequence of N frames."""

    bboxes: np.ndarray  # float64 [N, 4], xywh px; the first one is the given box
    scores: np.ndarray  # float64 [N]; 1 for the given box, 0 where a frame could not be read
    seconds: np.ndarray  # float64 [N], the tracker alone, without reading the image
    unreadable: list[str]  # one message per frame that could not be read


def result_root(var: Path, dataset: str) -> Path:
    """The folder that holds one folder per tracker, as evaluation tools expect it."""
    return var / "results" / dataset


def result_file(var: Path, dataset: str, tracker: str, sequence: str) -> Path:
    """The file with the boxes of one sequence.

    Benchmarks with repeated results (GOT-10k) keep ``{tracker}/{seq}/{seq}_001.txt`` with
    ``{seq}_time.txt`` beside it (got10k toolkit), the others ``{tracker}/{seq}.txt`` (pysot toolkit).

    Raises:
        UserError: a name that is no file name.
    """
    for name in (dataset, tracker, sequence):
        if not name or name in (".", "..") or os.sep in name or "\0" in name:
            raise UserError(f"'{name}' cannot name a result file; give a name without '{os.sep}'")
    folder = result_root(var, dataset) / tracker
    if _with_times(dataset):
        return folder / sequence / f"{sequence}_001.txt"
    return folder / f"{sequence}.txt"


def time_file(box_file: Path) -> Path:
    """GOT-10k's file of seconds per frame, beside its file of boxes."""
    return box_file.with_name(f"{box_file.parent.name}_time.txt")


def write_result(var: Path, dataset: str, tracker: str, sequence: str, result: TrackResult) -> None:
    """Write a finished sequence; the boxes go last, so that their file stands for a complete result.

    Raises:
        UserError: the disk is full or not writable; nothing is left behind.
    """
    path = result_file(var, dataset, tracker, sequence)
    if _with_times(dataset):
        write_text(time_file(path), "".join(f"{seconds:.8f}\n" for seconds in result.seconds))
    write_text(path, "".join(f"{x:.4f},{y:.4f},{w:.4f},{h:.4f}\n" for x, y, w, h in result.bboxes))


def result_fault(var: Path, dataset: str, tracker: str, sequence: str, frames: int) -> str | None:
    """Why a sequence of ``frames`` frames is not done: None when it is, "" when there is no result.

    Any other text names the file and what is wrong with it.
    """
    path = result_file(var, dataset, tracker, sequence)
    wanted = [(path, 4)] + ([(time_file(path), 1)] if _with_times(dataset) else [])
    if not any(file.exists() for file, _ in wanted):
        return ""
    for file, columns in wanted:
        try:
            text = file.read_text("ascii")
        except FileNotFoundError:
            return f"{file}: is missing"
        except (OSError, UnicodeDecodeError) as error:
            return f"{file}: cannot be read ({error})"
        values = _numbers(text)
        if values is None or values.size % columns:
            return f"{file}: is not a table of {columns} numbers per line"
        if values.size != frames * columns:
            return f"{file}: has {values.size // columns} of {frames} frames"
        if not text.endswith("\n"):  # the last number may have lost digits
            return f"{file}: its last line is not finished"
    return None


def read_boxes(path: Path) -> np.ndarray:
    """The boxes of a complete result file, float64 ``[N, 4]``.

    Raises:
        UserError: it is not a table of four numbers per line.
    """
    values = _numbers(read_bytes(path, "result file").decode("ascii", "replace"))
    if values is None or values.size % 4:
        raise UserError(f"{path}: is not a table of 4 numbers per line; track this sequence again")
    return values.reshape(-1, 4)


class Origin(NamedTuple):
    """What a tracker's results come from: ``{tracker}/checkpoint.json`` holds it beside them."""

    arch: str
    sha256: str  # of the checkpoint file
    settings: dict[str, object]  # the tracker's own settings, where they were given


def check_origin(
    var: Path, dataset: str, tracker: str, arch: str, checkpoint: Path, settings: Settings
) -> Origin:
    """The origin that new results would have.

    Raises:
        UserError: the folder holds the results of other weights or tracker settings; mixing the two would
            give figures that belong to neither.
    """
    origin = Origin(arch, sha256(checkpoint), settings.tracker.plain())
    note = _note(var, dataset, tracker)
    if note.exists() and read_json(note, "note of what the results come from") != origin._asdict():
        raise UserError(
            f"{note.parent}: holds results of another checkpoint or other tracker settings; remove the folder to "
            "test again, or give another name (test.py --name)"
        )
    return origin


def note_origin(var: Path, dataset: str, tracker: str, origin: Origin) -> None:
    """Write the origin beside the results, once, before the first of them."""
    note = _note(var, dataset, tracker)
    if not note.exists():
        write_json(note, origin._asdict())


def _note(var: Path, dataset: str, tracker: str) -> Path:
    return result_root(var, dataset) / tracker / "checkpoint.json"


def _with_times(dataset: str) -> bool:
    return dataset in BENCHMARKS.names() and BENCHMARKS.get(dataset).results == "repeated"


def _numbers(text: str) -> np.ndarray | None:
    """All numbers of a text separated by commas and white space; None where it is not that."""
    separated: Sequence[str] = text.replace(",", " ").split()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return np.array(separated, dtype=np.float64)
        except (ValueError, DeprecationWarning):
            return None
