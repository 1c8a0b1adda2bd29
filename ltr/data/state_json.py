"""The published JSON of the sampler state.

``{sequence key: [trajectory, ...]}``, a trajectory being ``{"bboxes": [[x, y, w, h], ...], "confidence":
[...], "key_frame_ids": [...], "relay_frame_ids": [...]}``: boxes and confidences belong to the relay frames,
which are sorted and include the key frames. Ours has one sequence per line and no other white space;
any layout is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import orjson

from config.errors import UserError
from config.files import read_json
from ltr.data.rounding import BOX_DIGITS, CONFIDENCE_DIGITS, round_decimal
from ltr.data.state_file import SLOT, Columns

_FIELDS = ("bboxes", "confidence", "key_frame_ids", "relay_frame_ids")
_BUFFER = 1 << 22
_Row = tuple[np.ndarray, np.ndarray]  # SLOT [m] and the positions of the key frames among them


class JsonWriter:
    """Writes a state one trajectory after the other, so that it is never in memory twice."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._parts: list[bytes] = []
        self._size = 0
        self._any = False

    def add(self, key: str, trajectory: int, key_frames: np.ndarray, slots: np.ndarray) -> None:
        """Add a trajectory; keys come sorted, the trajectories of a key from 0 on."""
        if trajectory == 0:
            before = b"],\n" if self._any else b"{\n"
            self._put(before + orjson.dumps(key) + b":[")
        else:
            self._put(b",")
        self._any = True
        fields = (slots["bbox"], slots["confidence"], key_frames, slots["frame"])
        value = {name: np.ascontiguousarray(field) for name, field in zip(_FIELDS, fields)}
        self._put(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))

    def close(self) -> None:
        """Write what is left."""
        self._put(b"]\n}\n" if self._any else b"{}\n")
        self._flush()

    def _put(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size > _BUFFER:
            self._flush()

    def _flush(self) -> None:
        self._file.write(b"".join(self._parts))
        self._parts, self._size = [], 0


def read_state(path: str | os.PathLike[str]) -> Columns:
    """The columns of the state in a JSON file, rows sorted by (sequence key, trajectory).

    Boxes of key frames are taken as they are, those of other frames to 0.1 px, confidences to 4 digits.

    Raises:
        UserError: missing, broken or foreign; the line names the sequence and what is wrong with it.
    """
    try:
        found = _collect(path, _own_lines(path))
    except _OtherLayoutError:
        value = read_json(path, "sampler state")
        if not isinstance(value, dict):
            raise UserError(f"{path}: is not a sampler state (no object of sequences)") from None
        found = _collect(path, iter(value.items()))
    names = [(key, i) for key in sorted(found) for i in range(len(found[key]))]
    rows = [found[key][i] for key, i in names]
    keys = np.concatenate([slots[at] for slots, at in rows] or [np.zeros(0, SLOT)])
    key_count = np.array([len(at) for _, at in rows], np.int64)
    count = np.array([len(slots) for slots, _ in rows], np.int64)
    return Columns(names, key_count, keys["frame"], keys["bbox"], count, [slots for slots, _ in rows])


class _OtherLayoutError(Exception):
    """The file is not one sequence per line (or broken): it has to be read as a whole."""


def _own_lines(path: str | os.PathLike[str]) -> Iterator[tuple[str, Any]]:
    """(key, value) of each sequence of a file in our layout, holding one line at a time."""
    try:
        with open(path, "rb") as file:
            if file.readline() != b"{\n":
                raise _OtherLayoutError
            for line in file:
                if line == b"}\n" and not file.read(1):
                    return
                if not line.startswith(b'"'):
                    break
                yield from orjson.loads(b"{" + line.rstrip(b",\n") + b"}").items()
    except OSError as error:
        raise UserError(f"{path}: sampler state cannot be read ({error.strerror or error})") from error
    except orjson.JSONDecodeError as error:
        raise _OtherLayoutError from error
    raise _OtherLayoutError


def _collect(path: str | os.PathLike[str], items: Iterator[tuple[str, Any]]) -> dict[str, list[_Row]]:
    found: dict[str, list[_Row]] = {}
    for key, trajectories in items:
        if key in found or not isinstance(trajectories, list):
            raise _foreign(path, key, "occurs twice" if key in found else "holds no list of trajectories")
        if not key.isascii() and any("\ud800" <= letter <= "\udfff" for letter in key):
            raise _foreign(path, ascii(key), "is no valid text")
        found[key] = [_row(value, path, f"{key}, trajectory {i}") for i, value in enumerate(trajectories)]
    return found


def _row(value: Any, path: str | os.PathLike[str], where: str) -> _Row:
    if not isinstance(value, dict):
        raise _foreign(path, where, "is no object")
    boxes, confidence, labelled, frames = (_array(value, name, path, where) for name in _FIELDS)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    for name, ids in (("relay_frame_ids", frames), ("key_frame_ids", labelled)):
        whole = ids.size == 0 or ids.dtype.kind == "i"
        if not whole or (ids < 0).any() or (ids >= 1 << 31).any() or (ids[1:] <= ids[:-1]).any():
            raise _foreign(path, where, f"'{name}' are no frame numbers in ascending order")
    if boxes.shape != (len(frames), 4) or confidence.shape != frames.shape:
        raise _foreign(path, where, "needs one box and one confidence per relay frame")
    if not (np.isfinite(boxes).all() and (confidence >= 0).all() and (confidence <= 1).all()):
        raise _foreign(
            path, where, "has a box or confidence that is no number, or a confidence outside 0 to 1"
        )
    at = np.searchsorted(frames, labelled)
    if len(at) and (at[-1] >= len(frames) or (frames[at] != labelled).any()):
        raise _foreign(path, where, "has a key frame that is no relay frame")
    slots = np.zeros(len(frames), SLOT)
    slots["frame"], slots["confidence"] = frames, round_decimal(confidence, CONFIDENCE_DIGITS)
    slots["bbox"] = round_decimal(boxes, BOX_DIGITS)
    slots["bbox"][at] = boxes[at]
    return slots, at


def _array(value: dict, name: str, path: str | os.PathLike[str], where: str) -> np.ndarray:
    entries = value.get(name)
    try:
        array = np.asarray(entries)
    except (ValueError, OverflowError):
        array = np.asarray(None)
    if (
        not isinstance(entries, list)
        or array.dtype.kind not in "if"
        or array.ndim != (2 if name == "bboxes" and entries else 1)
    ):
        raise _foreign(path, where, f"has no list of numbers '{name}'")
    return array


def _foreign(path: str | os.PathLike[str], where: str, fault: str) -> UserError:
    return UserError(f"{path}: sequence {where} {fault}; restore the sampler state or remove it")
