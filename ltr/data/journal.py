"""What the teacher located since the last snapshot: an append-only file that survives a crash.

A file is ``HEAD`` followed by frames; a frame is its payload's length and CRC-32 (two little-endian
uint32) and the payload, whole ``RECORD``s. Reading stops at the first frame that does not verify, so a
batch torn by a crash is ignored as if it had never been written.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from config.errors import UserError
from config.files import refuse_newer, sync_folder

#: One located frame. ``order`` ranks the records (ties of confidence go to the lower), ``row`` is a row of
#: the sampler state, ``bbox`` is (x, y, w, h) in image pixels.
RECORD = np.dtype(
    [("order", "<i8"), ("row", "<i4"), ("frame", "<i4"), ("bbox", "<f8", (4,)), ("confidence", "<f4")]
)
VERSION = 1
_KIND = b"SPOTJRN"
HEAD = _KIND + str(VERSION).encode()
_FRAME = struct.Struct("<II")


class Journal:
    """An open journal; a torn tail is cut off on opening.

    ``append`` survives the death of the process at once and a power cut after the next ``commit``.
    Orders of several epochs can live in one journal when they grow with the epoch.

    Args:
        path: the file; made, with its folder, if it is not there.

    Raises:
        UserError: it cannot be written, or is something else than a journal.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 (closed by close)
            self._end = len(_whole_part(self._content(), self.path))
            self._file.truncate(self._end)
            if self._end == 0:
                self._write(HEAD)
                self.commit()
                sync_folder(self.path.parent)
        except OSError as error:
            raise self._failure(error) from error

    def append(self, records: np.ndarray) -> None:
        """Add ``RECORD`` s ``[n]``; all of them are in the file or, if it fails, none.

        Raises:
            UserError: the disk is full.
        """
        payload = np.ascontiguousarray(records, RECORD).tobytes()
        if not payload:
            return
        try:
            self._write(_FRAME.pack(len(payload), zlib.crc32(payload)) + payload)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            raise self._failure(error) from error

    def commit(self) -> None:
        """Make all that was appended survive a power cut.

        Raises:
            UserError: the disk is full.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failure(error) from error

    def read(self) -> np.ndarray:
        """All records ``[n]``, in the order of their appending."""
        return _records(_whole_part(self._content(), self.path))

    def reset(self) -> None:
        """Forget everything; for when a snapshot holds it.

        Raises:
            UserError: it cannot be written.
        """
        try:
            self._file.truncate(len(HEAD))
        except OSError as error:
            raise self._failure(error) from error
        self._end = len(HEAD)
        self.commit()

    def close(self) -> None:
        """Commit and close."""
        if not self._file.closed:
            self.commit()
            self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:  # an unbuffered write may be partial
            view = view[self._file.write(view) :]
        self._end += len(data)

    def _content(self) -> bytes:
        self._file.seek(0)
        return self._file.read()

    def _failure(self, error: OSError) -> UserError:
        return UserError(
            f"{self.path}: the journal cannot be written ({error.strerror or error}); free space or fix permissions"
        )


def read_journal(path: str | os.PathLike[str]) -> np.ndarray:
    """The whole records ``[n]`` of a journal, which is not changed; none where there is no file.

    Raises:
        UserError: unreadable, or something else than a journal.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        raise UserError(f"{path}: the journal cannot be read ({error.strerror or error})") from error
    return _records(_whole_part(content, Path(path)))


def _whole_part(content: bytes, path: Path) -> bytes:
    """The longest beginning of ``content`` that is a head and whole frames; empty for a torn head."""
    if not content.startswith(HEAD):
        if HEAD.startswith(content):
            return b""
        version = content[len(_KIND) : len(HEAD)]
        if content.startswith(_KIND) and version.isdigit():
            refuse_newer(path, int(version), VERSION, "journal of located frames")
        raise UserError(f"{path}: is not a journal of located frames; move it away")
    end = len(HEAD)
    while end + _FRAME.size <= len(content):
        size, check = _FRAME.unpack_from(content, end)
        payload = memoryview(content)[end + _FRAME.size : end + _FRAME.size + size]
        if size == 0 or size % RECORD.itemsize or len(payload) < size or zlib.crc32(payload) != check:
            break
        end += _FRAME.size + size
    return content[:end]


def _records(content: bytes) -> np.ndarray:
    parts, at = [], len(HEAD)
    while at < len(content):
        size = _FRAME.unpack_from(content, at)[0]
        at += _FRAME.size
        parts.append(content[at : at + size])
        at += size
    return np.frombuffer(b"".join(parts), RECORD).copy()
