"""Result files: each benchmark's own layout, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from config.errors import UserError
from config.files import is_file_name, read_bytes, read_json, refuse_newer, sha256, write_json, write_text
from config.settings import Settings
from pysot_toolkit.evaluation.vot_results import bounding_boxes, parse_trajectory
from pysot_toolkit.testing.layouts import layout_of
from pysot_toolkit.testing.one_pass import TrackResult

FORMAT = 1  # of checkpoint.json
_NOTE = "note of what the results come from"


def result_root(var: Path, dataset: str) -> Path:
    """The folder that holds one folder per tracker, as evaluation tools expect it."""
    return var / "results" / dataset


def result_file(var: Path, dataset: str, tracker: str, sequence: str) -> Path:
    """The file with the boxes of one sequence, where the toolkit of its benchmark looks for it.

    Raises:
        UserError: a name that is no file name, or a benchmark whose results are no boxes.
    """
    for name in (dataset, tracker, sequence):
        if not is_file_name(name):
            raise UserError(f"'{name}' cannot name a result file; give a plain name without '{os.sep}'")
    return result_root(var, dataset) / tracker / layout_of(dataset).parts[-1].path.format(sequence)


def write_result(var: Path, dataset: str, tracker: str, sequence: str, result: TrackResult) -> None:
    """Write a finished sequence; the boxes go last, so that their file stands for a complete result.

    Raises:
        UserError: the disk is full or not writable; nothing is left behind.
    """
    folder = result_root(var, dataset) / tracker
    for part in layout_of(dataset).parts:
        write_text(folder / part.path.format(sequence), part.write(result))


def result_fault(var: Path, dataset: str, tracker: str, sequence: str, frames: int) -> str | None:
    """Why a sequence of ``frames`` frames is not done: None when it is, "" when there is no result.

    Any other text names the file and what is wrong with it.
    """
    folder, parts = result_root(var, dataset) / tracker, layout_of(dataset).parts
    files = [folder / part.path.format(sequence) for part in parts]
    present = [file.exists() for file in files]
    if not any(present):
        return ""
    for part, file, exists in zip(parts, files, present):
        if not exists:
            if part.needed:
                return f"{file}: is missing"
            continue
        try:
            content = file.read_bytes()
            lines = part.lines(content)
        except (OSError, ValueError) as error:
            return f"{file}: {error}"
        if lines != frames:
            return f"{file}: has {lines} of {frames} frames"
        if not content.endswith(b"\n"):  # the last number may have lost digits
            return f"{file}: its last line is not finished"
    return None


def read_boxes(path: Path) -> np.ndarray:
    """The boxes of a complete result file, float64 ``[N, 4]``: NaN where the tracker gave none, the upright
    rectangle about a polygon.

    Raises:
        UserError: it is no result file.
    """
    try:
        return bounding_boxes(parse_trajectory(read_bytes(path, "result file")).regions)
    except ValueError as error:
        raise UserError(f"{path}: {error}; track this sequence again") from error


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
        UserError: the folder holds the results of other weights or tracker settings, mixing the two would
            give figures that belong to neither; or its note is of a newer version.
    """
    origin = Origin(arch, sha256(checkpoint), settings.tracker.plain())
    note = _note(var, dataset, tracker)
    held: Any = read_json(note, _NOTE) if note.exists() else None
    if isinstance(held, dict):
        refuse_newer(note, held.pop("format", 1), FORMAT, _NOTE)  # the first ones named no version
    if note.exists() and held != origin._asdict():
        raise UserError(
            f"{note.parent}: holds results of another checkpoint or other tracker settings; remove the folder to "
            "test again, or give another name (test.py --name)"
        )
    return origin


def note_origin(var: Path, dataset: str, tracker: str, origin: Origin) -> None:
    """Write the origin beside the results, once, before the first of them."""
    note = _note(var, dataset, tracker)
    if not note.exists():
        write_json(note, {"format": FORMAT, **origin._asdict()})


def _note(var: Path, dataset: str, tracker: str) -> Path:
    return result_root(var, dataset) / tracker / "checkpoint.json"
