"""Zip and tar archives of strangers: what is in them, without trusting a name or a size."""

from __future__ import annotations

import contextlib
import functools
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from config.errors import UserError

LARGEST = 1 << 26  # bytes of a result file; the longest video of LaSOT takes half a megabyte
_TOTAL = 1 << 33  # bytes; 50 trackers on all 1,400 videos of LaSOT take 4 GB
_COUNT = 500_000  # files and folders
_FREE, _RATIO = (
    1 << 28,
    100,
)  # a bomb unpacks to more bytes than this, and to more than 100 times its own size

UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    struct.error,
    NotImplementedError,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
)  # what reading a broken archive raises


class Member(NamedTuple):
    """A file in an archive."""

    parts: tuple[str, ...]  # of its path; neither empty, nor ".", nor ".."
    size: int  # bytes; ``open`` gives no more
    open: Callable[[], IO[bytes]]


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[list[Member]]:
    """The files of a zip or tar archive (plain, gz, bz2, xz), open as long as the block lasts.

    Raises:
        UserError: no archive, broken (also when a member is read in the block), or one that nobody should
            extract: absolute paths, ``..``, control characters, links, devices, a file that is there twice,
            encryption; more files, more bytes, or more bytes for its own size than results have.
    """
    try:
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as tar:
                yield _bounded(path, _tar_members(path, tar))
        else:
            with zipfile.ZipFile(path) as archive:
                yield _bounded(path, _zip_members(path, archive))
    except UNREADABLE as error:
        raise UserError(
            f"{path}: cannot be unpacked as zip or tar ({error}); get it again or free space"
        ) from error


def _zip_members(path: Path, archive: zipfile.ZipFile) -> Iterator[Member]:
    for entry in archive.infolist():
        parts = _parts(path, entry.filename)
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise _unsafe(path, entry.filename, "is a link")
        if entry.flag_bits & 1:
            raise UserError(f"{path}: '{entry.filename}' is encrypted; pack it without a password")
        if not entry.filename.endswith("/"):
            yield Member(parts, entry.file_size, functools.partial(archive.open, entry))


def _tar_members(path: Path, archive: tarfile.TarFile) -> Iterator[Member]:
    for entry in archive:
        parts = _parts(path, entry.name)
        if not (entry.isfile() or entry.isdir()):
            raise _unsafe(path, entry.name, "is a link or a device")
        if entry.isfile():
            yield Member(parts, entry.size, functools.partial(_tar_file, archive, entry))


def _tar_file(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(entry)
    assert file is not None  # only plain files get here
    return file


def _bounded(path: Path, members: Iterator[Member]) -> list[Member]:
    """All members; stops at the first that breaks a bound, before a compressed tar is read any further."""
    found: dict[tuple[str, ...], Member] = {}
    total, packed = 0, path.stat().st_size
    for member in members:
        name = "/".join(member.parts)
        if member.parts in found or not member.parts:
            raise _unsafe(path, name, "is there twice" if name else "is no name for a file")
        found[member.parts] = member
        total += member.size
        if total > _TOTAL or len(found) > _COUNT or (total > _FREE and total > _RATIO * packed):
            raise _unsafe(path, name, "brings more than results have")
    return list(found.values())


def _parts(path: Path, name: str) -> tuple[str, ...]:
    plain = name.replace("\\", "/")
    parts = tuple(part for part in plain.split("/") if part not in ("", "."))
    if plain.startswith("/") or re.match("[A-Za-z]:/", plain) or ".." in parts:
        raise _unsafe(path, name, "leads out of the folder")
    if not name.isprintable():
        raise _unsafe(path, ascii(name), "is no name for a file")
    return parts


def _unsafe(path: Path, name: str, what: str) -> UserError:
    return UserError(f"{path}: '{name}' {what}, so nothing is unpacked; ask whoever packed it")
