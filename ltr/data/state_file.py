"""The working file of the sampler state: columns that every process maps into its memory.

::

    HEADER                     one page
    names                      JSON [[sequence key, trajectory], ...], one per row
    key_start      int64 [n+1] where each row's labelled frames begin in the next two
    key_frame      int32 [k]   sorted within a row
    key_bbox     float64 [k,4] x, y, w, h in pixels
    start          int64 [n]   where each row's slots begin
    count          int64 [n]   how many of them are used
    room           int64 [n]   how many there are
    slots           SLOT [c]   recorded frames, sorted within a row

A row that outgrows its slots moves to new ones at the end of the file, twice as many, so the file holds
at most about four slots for each recorded frame. Only ``start``, ``count``, ``room``, the slots and the header's
counters ever change. The file lives as long as a run: after a power cut it is not trusted, since the kernel
may have written any part of it, and it is rebuilt from a snapshot.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson

from config.errors import UserError
from config.files import refuse_newer

SLOT = np.dtype([("frame", "<i4"), ("confidence", "<f4"), ("bbox", "<f8", (4,))])
HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("boot", "S40"),
        ("fingerprint", "S64"),
        ("merging", "<i8"),
        ("generation", "<i8"),
        ("recorded", "<i8"),
        ("rows", "<i8"),
        ("keys", "<i8"),
        ("names", "<i8"),
        ("used", "<i8"),
        ("slots", "<i8"),
    ]
)
VERSION = 1
_KIND = b"SPOTSTA"
MAGIC = _KIND + str(VERSION).encode()
PAGE = 4096
_COUNTS = ("recorded", "rows", "keys", "names", "used", "slots")
SMALLEST_ROOM = 8


class InterruptedMerge(UserError):
    """A merge began and did not end: the working file is no whole state and is to be rebuilt."""


class Columns(NamedTuple):
    """The parts of a new working file; rows ``[n]``, their labelled frames and recorded frames one after the other."""

    names: Sequence[tuple[str, int]]
    key_count: np.ndarray  # int64 [n]
    key_frame: np.ndarray  # int32 [k]
    key_bbox: np.ndarray  # float64 [k, 4]
    counts: np.ndarray  # int64 [n]
    slots: Iterable[np.ndarray]  # SLOT [counts[i]] for each row


class StateFile:
    """A mapped working file.

    Attributes:
        header: its counters, live.
        key_start, key_frame, key_bbox, start, count, room, slots: the columns of the module's
            description, live; read-only unless ``writable``.

    Raises:
        InterruptedMerge: it is no whole state.
        UserError: missing, or something else.
    """

    def __init__(self, path: str | os.PathLike[str], writable: bool = False) -> None:
        self.path = Path(path)
        self.writable = writable
        self.map()

    def map(self) -> None:
        """Map the file as it is now, also when it has grown or has been replaced."""
        try:
            with open(self.path, "r+b" if self.writable else "rb") as file:
                self._identity = _identity(os.fstat(file.fileno()))
                access = mmap.ACCESS_WRITE if self.writable else mmap.ACCESS_READ
                buffer = mmap.mmap(file.fileno(), 0, access=access)
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise UserError(
                f"{self.path}: the sampler state's working file cannot be opened ({error})"
            ) from error
        header = np.frombuffer(buffer, HEADER, 1) if len(buffer) >= PAGE else np.zeros(1, HEADER)
        _refuse_newer(self.path, buffer[: len(MAGIC)])
        if header["magic"][0] != MAGIC or min(header[name][0] for name in _COUNTS) < 0:
            raise self._broken()
        if len(buffer) < _size(header[0]):
            raise self._broken()
        if header["boot"][0] != _boot():
            raise InterruptedMerge(
                f"{self.path}: is of another machine, or from before a restart; rebuild it"
            )
        self.header = header
        self._merging = header["merging"]
        self._check_whole()
        rows, keys, at = int(header["rows"][0]), int(header["keys"][0]), PAGE

        def column(dtype: object, count: int, offset: int) -> np.ndarray:
            return np.frombuffer(buffer, dtype, count, offset)  # type: ignore[call-overload]

        self._names = buffer[at : at + int(header["names"][0])]
        at = _aligned(at + len(self._names))
        self.key_start = column(np.int64, rows + 1, at)
        at += self.key_start.nbytes
        self.key_frame = column(np.int32, keys, at)
        at = _aligned(at + self.key_frame.nbytes)
        self.key_bbox = column(np.float64, keys * 4, at).reshape(-1, 4)
        at += self.key_bbox.nbytes
        self.start, self.count, self.room = (column(np.int64, rows, at + i * rows * 8) for i in range(3))
        self.slots = column(SLOT, int(header["slots"][0]), _slots_offset(header[0]))
        ends = self.start + self.count
        if (self.key_start[[0, -1]] != (0, keys)).any() or (np.diff(self.key_start) < 0).any():
            self._check_whole()
            raise self._broken()
        if ((self.start < 0) | (self.count < 0) | (self.count > self.room) | (ends > len(self.slots))).any():
            self._check_whole()
            raise self._broken()

    def names(self) -> list[tuple[str, int]]:
        """(sequence key, trajectory) of each row.

        Raises:
            UserError: the names are broken.
        """
        try:
            names = [(str(key), int(trajectory)) for key, trajectory in orjson.loads(self._names)]
        except (ValueError, TypeError) as error:
            raise self._broken() from error
        if len(names) != len(self.count):
            raise self._broken()
        return names

    def fingerprint(self) -> str:
        """What the writer has given as a fingerprint.

        Raises:
            UserError: it is broken.
        """
        try:
            return self.header["fingerprint"][0].decode("ascii")
        except UnicodeDecodeError as error:
            raise self._broken() from error

    def _broken(self) -> UserError:
        return UserError(f"{self.path}: is not a whole working file of a sampler state; remove it")

    def refresh(self) -> bool:
        """See what the writer has done since; whether it is another file now.

        Costs microseconds; where the file has grown or has been replaced, one mapping more.
        """
        try:
            replaced = _identity(os.stat(self.path)) != self._identity
        except OSError as error:
            raise UserError(
                f"{self.path}: the sampler state's working file is gone ({error.strerror})"
            ) from error
        if replaced or int(self.header["slots"][0]) != len(self.slots):
            self.map()
        self._check_whole()
        return replaced

    def reserve(self, extra: int) -> int:
        """Take ``extra`` new slots at the end of the file and return the first one's number.

        Raises:
            UserError: the disk is full; nothing has changed.
        """
        used = int(self.header["used"][0])
        if used + extra > len(self.slots):
            slots = used + max(extra, used // 2)
            offset = _slots_offset(self.header[0])
            try:
                with open(self.path, "r+b") as file:
                    _allocate(file.fileno(), offset + slots * SLOT.itemsize)
            except OSError as error:
                raise UserError(
                    f"{self.path}: the sampler state cannot grow ({error.strerror or error}); free space"
                ) from error
            self.header["slots"] = slots
            self.map()
        self.header["used"] = used + extra
        return used

    def begin(self) -> None:
        """From now until ``end`` the file is no whole state."""
        self.header["merging"] = 1

    def end(self, added: int) -> None:
        """The merge is complete, with ``added`` recorded frames more."""
        self.header["recorded"] += added
        self.header["generation"] += 1
        self.header["merging"] = 0

    def _check_whole(self) -> None:
        if self._merging[0]:
            raise InterruptedMerge(f"{self.path}: a merge into the sampler state was interrupted; rebuild it")


def create_file(path: str | os.PathLike[str], columns: Columns, fingerprint: str) -> None:
    """Write a working file; it appears under ``path`` whole, and replaces one that is there.

    Raises:
        UserError: the disk is full or not writable, or the file that is there is of a newer version.
    """
    path = Path(path)
    with contextlib.suppress(OSError), open(path, "rb") as present:
        _refuse_newer(path, present.read(len(MAGIC)))
    count = np.asarray(columns.counts, np.int64)
    room = np.maximum(SMALLEST_ROOM, room_for(count))
    key_start = np.concatenate([[0], np.cumsum(columns.key_count, dtype=np.int64)])
    names = orjson.dumps(columns.names)
    header = np.zeros(1, HEADER)
    header["magic"], header["boot"], header["fingerprint"] = MAGIC, _boot(), fingerprint.encode()
    header["rows"], header["keys"], header["names"] = len(count), len(columns.key_frame), len(names)
    header["recorded"], header["used"], header["slots"] = count.sum(), room.sum(), room.sum()
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with open(descriptor, "wb", buffering=1 << 20) as file:
            _allocate(file.fileno(), _size(header[0]))
            file.write(header.tobytes().ljust(PAGE, b"\0"))
            file.write(_padded(names))
            file.write(key_start.tobytes())
            file.write(_padded(columns.key_frame.astype(np.int32).tobytes()))
            file.write(columns.key_bbox.astype(np.float64).tobytes())
            for column in (np.cumsum(room) - room, count, room):
                file.write(column.tobytes())
            file.write(b"\0" * (_slots_offset(header[0]) - file.tell()))
            for slots, width in zip(columns.slots, room.tolist()):
                file.write(slots.tobytes().ljust(width * SLOT.itemsize, b"\0"))
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); free space or fix permissions"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _refuse_newer(path: Path, start: bytes) -> None:
    version = start.removeprefix(_KIND)
    if start.startswith(_KIND) and version.isdigit():
        refuse_newer(
            path,
            int(version),
            VERSION,
            "working file of a sampler state",
            ", or remove this file: it is made anew",
        )


def room_for(count: np.ndarray) -> np.ndarray:
    """The power of two that holds ``count`` slots, int64 of the same shape."""
    return np.left_shift(1, np.ceil(np.log2(np.maximum(count, 1))).astype(np.int64))


def _slots_offset(header: np.void) -> int:
    rows, keys = int(header["rows"]), int(header["keys"])
    columns = _aligned(int(header["names"])) + 8 * (rows + 1) + _aligned(4 * keys) + 32 * keys + 24 * rows
    return -(-(PAGE + columns) // PAGE) * PAGE


def _size(header: np.void) -> int:
    return _slots_offset(header) + int(header["slots"]) * SLOT.itemsize


def _aligned(offset: int) -> int:
    return (offset + 7) // 8 * 8


def _padded(data: bytes) -> bytes:
    return data.ljust(_aligned(len(data)), b"\0")


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def _allocate(descriptor: int, size: int) -> None:
    """Make the file ``size`` bytes long with its blocks on disk: a full disk is an error here, not a signal later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)


def _boot() -> bytes:
    """What changes when the machine starts again (Linux; elsewhere nothing is known)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        return b"unknown"
