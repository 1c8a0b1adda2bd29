"""What the teacher has located so far: boxes of the recorded frames of every video.

The state lives in a working file (``state_file``) that one process changes and all others map; at a
checkpoint it is written as the published JSON (``state_json``), and between checkpoints the journal
(``journal``) holds what was located since. A merge costs with what is new, not with the whole.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import orjson

from config.errors import UserError
from config.files import atomic_writer
from ltr.data.journal import RECORD, Journal, read_journal
from ltr.data.rounding import BOX_DIGITS, CONFIDENCE_DIGITS, round_decimal
from ltr.data.state_file import SLOT, Columns, InterruptedMerge, StateFile, create_file, room_for
from ltr.data.state_json import JsonWriter, read_state

__all__ = ["RECORD", "InterruptedMerge", "Journal", "MergeStats", "SamplerState"]


class MergeStats(NamedTuple):
    """What became of the records of a merge; the three add up to their number."""

    inserted: int
    """frames that had no box before"""
    improved: int
    """relay frames whose box was replaced by a more confident one"""
    ignored: int
    """records without effect: of labelled frames, not more confident, or surpassed within the merge"""


class SamplerState:
    """The recorded frames of n rows; a row is one trajectory of one sequence.

    Rows are sorted by (sequence key, trajectory), whatever the order they were given in, so a row
    number means the same before and after a detour through JSON. Frame numbers count from 0, boxes are
    (x, y, w, h) in pixels. Labelled frames are recorded frames that never change.

    Made by ``create`` and ``from_json``, which write the working file, it can be merged into; opened by
    ``open``, or unpickled in a loader worker, it is read-only, and ``refresh`` shows what was merged.
    """

    def __init__(self, file: StateFile) -> None:
        self._file = file

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], entries: Iterable[tuple[str, int, np.ndarray, np.ndarray]]
    ) -> SamplerState:
        """The state in which only the labelled frames are recorded, with confidence 1.

        Args:
            path: the working file; replaced if it is there.
            entries: (sequence key, trajectory 0, 1, ..., frame numbers ``[k]``, boxes ``[k, 4]``).

        Raises:
            UserError: a label occurs twice or its box is not four finite numbers.
        """
        names, frames, boxes = [], [], []
        for key, trajectory, f_ids, bboxes in sorted(entries, key=lambda entry: entry[:2]):
            f_ids = np.asarray(f_ids, np.int64).reshape(-1)
            order = np.argsort(f_ids, kind="stable")
            bbox = np.asarray(bboxes, np.float64).reshape(-1, 4)
            where = f"{key}: trajectory {trajectory}"
            if len(bbox) != len(f_ids) or not np.isfinite(bbox).all():
                raise UserError(
                    f"{where} needs one box of four finite numbers per key frame; mend its labels"
                )
            if len(f_ids) and (
                f_ids.min() < 0 or f_ids.max() >= 1 << 31 or (np.diff(f_ids[order]) == 0).any()
            ):
                raise UserError(f"{where} lists a key frame twice or with a bad number; mend its labels")
            names.append((key, int(trajectory)))
            frames.append(f_ids[order].astype(np.int32))
            boxes.append(bbox[order])
        if len(set(names)) < len(names):
            raise UserError("two data sets label the same sequence; list each data set once")
        count = np.array([len(f) for f in frames], np.int64)
        slots = np.zeros(int(count.sum()), SLOT)
        if names:
            slots["frame"], slots["bbox"] = np.concatenate(frames), np.concatenate(boxes)
        slots["confidence"] = 1
        rows = np.split(slots, np.cumsum(count)[:-1])
        return cls._from_columns(path, Columns(names, count, slots["frame"], slots["bbox"], count, rows))

    @classmethod
    def from_json(cls, json_path: str | os.PathLike[str], path: str | os.PathLike[str]) -> SamplerState:
        """The state in a published JSON file, in the new working file ``path``.

        Raises:
            UserError: the JSON is missing, broken or something else; the line names sequence and fault.
        """
        return cls._from_columns(path, read_state(json_path))

    @classmethod
    def recover(
        cls,
        json_path: str | os.PathLike[str],
        journal_path: str | os.PathLike[str],
        path: str | os.PathLike[str],
    ) -> SamplerState:
        """A snapshot with the whole records of a journal merged into it, in the new working file ``path``."""
        state = cls.from_json(json_path, path)
        state.merge(read_journal(journal_path))
        return state

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> SamplerState:
        """The state in a working file, read-only and without a copy.

        Raises:
            InterruptedMerge: the file is no whole state; rebuild it from a snapshot.
        """
        return cls(StateFile(path))

    @classmethod
    def _from_columns(cls, path: str | os.PathLike[str], columns: Columns) -> SamplerState:
        create_file(path, columns, _fingerprint(columns))
        return cls(StateFile(path, writable=True))

    def __reduce__(self):
        return SamplerState.open, (os.fspath(self._file.path),)

    def __len__(self) -> int:
        return len(self._file.count)

    @cached_property
    def sequences(self) -> list[tuple[str, int]]:
        """(sequence key, trajectory) of each row."""
        return self._file.names()

    @cached_property
    def _numbers(self) -> dict[tuple[str, int], int]:
        return {name: row for row, name in enumerate(self.sequences)}

    def row(self, key: str, trajectory: int = 0) -> int:
        """The row of a trajectory; ``KeyError`` if there is none."""
        return self._numbers[key, trajectory]

    @property
    def generation(self) -> int:
        """How many merges the working file has seen."""
        return int(self._file.header["generation"][0])

    def fingerprint(self) -> str:
        """SHA-256 of all labelled frames and boxes: equal for two states of the same labels."""
        return self._file.fingerprint()

    def refresh(self) -> None:
        """See what another process merged since; ``InterruptedMerge`` while that is not complete."""
        if self._file.refresh():
            self.__dict__.pop("sequences", None)
            self.__dict__.pop("_numbers", None)

    def key_frames(self, row: int) -> np.ndarray:
        """The labelled frames of a row, sorted: int32 ``[k]``."""
        return self._file.key_frame[self._file.key_start[row] : self._file.key_start[row + 1]]

    def key_boxes(self, row: int) -> np.ndarray:
        """The boxes of the labelled frames: float64 ``[k, 4]``."""
        return self._file.key_bbox[self._file.key_start[row] : self._file.key_start[row + 1]]

    def key_counts(self) -> np.ndarray:
        """How many labelled frames each row has: int64 ``[n]``."""
        return np.diff(self._file.key_start)

    def recorded(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The recorded frames of a row, labelled ones included, as views that a merge may change.

        Returns:
            frames int32 ``[m]`` sorted, boxes float64 ``[m, 4]``, confidence float32 ``[m]``.
        """
        slots = self._slots(row)
        return slots["frame"], slots["bbox"], slots["confidence"]

    def recorded_frames(self) -> int:
        """Recorded frames of all rows together."""
        return int(self._file.header["recorded"][0])

    def write_json(self, json_path: str | os.PathLike[str]) -> None:
        """Write the published format: whole or not at all, the same bytes for the same state.

        Raises:
            UserError: the disk is full, or ``InterruptedMerge``.
        """
        self.refresh()
        with atomic_writer(json_path) as file:
            writer = JsonWriter(file)
            for row, (key, trajectory) in enumerate(self.sequences):
                writer.add(key, trajectory, self.key_frames(row), self._slots(row))
            writer.close()

    def merge(self, records: np.ndarray) -> MergeStats:
        """Take in what was located, as if the records came one by one in the order of ``order``.

        A frame without a box gets the record's; a labelled frame keeps its own; any other frame
        takes a box of strictly higher confidence. Boxes are rounded to 0.1 px, confidences to 4 digits.
        Only the rows that gain frames are moved. If the process dies on the way, the working file says so when
        it is opened.

        Args:
            records: ``RECORD`` ``[n]`` in any order.

        Raises:
            ValueError: a record's row, frame, box or confidence is out of range; nothing has changed.
            UserError: the disk is full; nothing has changed.
        """
        if not self._file.writable:
            raise ValueError("this sampler state was opened for reading; merge where it was created")
        self.refresh()
        best = _best(self._checked(records))
        rows, frames = best["row"].astype(np.int64), best["frame"]
        new = np.zeros(len(best), SLOT)
        new["frame"], new["confidence"] = frames, best["confidence"]
        new["bbox"] = best["bbox"]

        at = lower_bound(self._file.slots["frame"], self._file.start[rows], self._file.count[rows], frames)
        known = self._among(self._file.slots["frame"], self._file.start + self._file.count, rows, at, frames)
        first = self._file.key_start[:-1]
        key_at = lower_bound(self._file.key_frame, first[rows], np.diff(self._file.key_start)[rows], frames)
        labelled = self._among(self._file.key_frame, self._file.key_start[1:], rows, key_at, frames)
        better = known & ~labelled
        better[better] = new["confidence"][better] > self._file.slots["confidence"][at[better]]

        fresh = ~known
        place = at[fresh] - self._file.start[rows[fresh]]
        moves = self._make_room(rows[fresh])
        self._file.begin()
        self._file.slots[at[better]] = new[better]
        self._move(*moves)
        self._insert(rows[fresh], place, new[fresh])
        inserted, improved = int(fresh.sum()), int(better.sum())
        self._file.end(inserted)
        return MergeStats(inserted, improved, len(records) - inserted - improved)

    def _slots(self, row: int) -> np.ndarray:
        start, count = int(self._file.start[row]), int(self._file.count[row])
        if start + count > len(self._file.slots):  # the writer has made the file longer
            self._file.refresh()
        return self._file.slots[start : start + count]

    def _checked(self, records: np.ndarray) -> np.ndarray:
        records = np.array(records, RECORD)
        bad = (records["row"] < 0) | (records["row"] >= len(self)) | (records["frame"] < 0)
        bad |= (
            ~np.isfinite(records["bbox"]).all(1) | ~(records["confidence"] >= 0) | (records["confidence"] > 1)
        )
        if bad.any():
            raise ValueError(f"record {records[np.argmax(bad)]} does not fit a state of {len(self)} rows")
        records["bbox"] = round_decimal(records["bbox"], BOX_DIGITS)
        records["confidence"] = round_decimal(records["confidence"], CONFIDENCE_DIGITS)
        return records

    @staticmethod
    def _among(
        column: np.ndarray, ends: np.ndarray, rows: np.ndarray, at: np.ndarray, frames: np.ndarray
    ) -> np.ndarray:
        """Whether ``at`` lies before its row's end and holds the frame."""
        inside = at < ends[rows]
        inside[inside] = column[at[inside]] == frames[inside]
        return inside

    def _make_room(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reserve slots for the rows (sorted, once per new frame) that outgrow theirs; (rows, starts, rooms)."""
        touched, extra = np.unique(rows, return_counts=True)
        need = self._file.count[touched] + extra
        moving = need > self._file.room[touched]
        room = room_for(need[moving])
        start = np.cumsum(room) - room
        if len(room):
            start += self._file.reserve(int(room.sum()))
        return touched[moving], start, room

    def _move(self, rows: np.ndarray, start: np.ndarray, room: np.ndarray) -> None:
        count = self._file.count[rows]
        _copy(self._file.slots, ranges(self._file.start[rows], count), ranges(start, count))
        self._file.start[rows] = start
        self._file.room[rows] = room

    def _insert(self, rows: np.ndarray, place: np.ndarray, new: np.ndarray) -> None:
        """Put new slots at position ``place`` of the old slots of their rows (both sorted); there is room."""
        if not len(rows):
            return
        leads = np.concatenate([[True], rows[1:] != rows[:-1]])
        leader = np.flatnonzero(leads)
        extra = np.diff(np.append(leader, len(rows)))
        rank = np.arange(len(rows)) - np.repeat(leader, extra)
        start, count = self._file.start[rows], self._file.count[rows]
        # The old slots between one new frame and the next move up by the new frames before them.
        until = np.where(np.append(leads[1:], True), count, np.append(place[1:], 0))
        length = until - place
        source = ranges(start + place, length)
        _copy(self._file.slots, source, source + np.repeat(rank + 1, length))
        self._file.slots[start + place + rank] = new
        self._file.count[rows[leads]] += extra


def lower_bound(column: np.ndarray, start: np.ndarray, count: np.ndarray, value: np.ndarray) -> np.ndarray:
    """For each query i the first position in ``column[start[i] : start[i] + count[i]]`` that is not below
    ``value[i]`` (the end if all are): a binary search of all queries at once. Positions count from the
    column's begin, int64 ``[n]``."""
    low, high = start.astype(np.int64), start.astype(np.int64) + count
    for _ in range(int(count.max(initial=0)).bit_length()):
        active = low < high
        middle = (low + high) // 2
        below = np.zeros(len(low), bool)
        below[active] = column[middle[active]] < value[active]
        low = np.where(below, middle + 1, low)
        high = np.where(active & ~below, middle, high)
    return low


def ranges(start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """``start[0] .. start[0] + length[0] - 1, start[1] ..`` one after the other, int64."""
    ends = np.cumsum(length)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(start - (ends - length), length)


def _copy(slots: np.ndarray, source: np.ndarray, target: np.ndarray) -> None:
    raw = slots.view(f"V{SLOT.itemsize}")  # whole slots at once: numpy copies records field by field
    raw[target] = slots.take(source).view(raw.dtype)


def _best(records: np.ndarray) -> np.ndarray:
    """For each (row, frame) the record that one-by-one merging keeps: the first of the highest confidence."""
    order = np.lexsort((records["order"], -records["confidence"], records["frame"], records["row"]))
    records = records[order]
    first = np.ones(len(records), bool)
    first[1:] = (records["row"][1:] != records["row"][:-1]) | (records["frame"][1:] != records["frame"][:-1])
    return records[first]


def _fingerprint(columns: Columns) -> str:
    digest = hashlib.sha256(orjson.dumps(columns.names))
    for column, dtype in ((columns.key_count, "<i8"), (columns.key_frame, "<i4"), (columns.key_bbox, "<f8")):
        digest.update(np.ascontiguousarray(column, dtype).tobytes())
    return digest.hexdigest()
