"""Zip and tar archives of strangers: what is in them, without trusting a name or a size."""

from __future__ import annotations

import contextlib
import functools
import lzma
import re
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from config.errors import UserError

LARGEST = 1 << 26  # bytes of a result file; the longest video of LaSOT takes half a megabyte
_TOTAL = 1 << 33  # bytes; 50 trackers on all 1,400 videos of LaSOT take 4 GB
_COUNT = 500_000  # files and folders
_FREE, _RATIO = 1 << 28, 100  # a bomb unpacks to more bytes, and to more than 100 times its own size
_XZ = b"\xfd7zXZ\0"
_DICTIONARY = 1 << 27  # bytes of memory to unpack xz; its highest preset takes half
_CHUNK = 1 << 20

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
        with _opened(path) as archive:
            members = _tar_members if isinstance(archive, tarfile.TarFile) else _zip_members
            yield _bounded(path, members(path, archive))
    except UNREADABLE as error:
        raise UserError(
            f"{path}: cannot be unpacked as zip or tar ({error}); get it again or free space"
        ) from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The ``TarFile`` or ``ZipFile``, by what the file begins with."""
    with path.open("rb") as file:
        head = file.read(6)
    if head == _XZ:
        with tempfile.TemporaryFile() as plain:
            _unpack_xz(path, plain)
            with tarfile.open(fileobj=plain, mode="r:") as tar:
                yield tar
        return
    packing = "gz" if head.startswith(b"\x1f\x8b") else "bz2" if head.startswith(b"BZh") else ""
    archive: Any
    with contextlib.ExitStack() as stack:
        try:
            archive = stack.enter_context(tarfile.open(path, f"r:{packing}"))  # type: ignore[call-overload]
        except tarfile.ReadError:
            if packing:
                raise
            archive = stack.enter_context(zipfile.ZipFile(path))
        yield archive


def _unpack_xz(path: Path, plain: IO[bytes]) -> None:
    """Write what is in an xz file to ``plain``: ``tarfile`` would allocate whatever dictionary the file announces."""
    packed = path.stat().st_size
    with path.open("rb") as file:
        rest = file.read(_CHUNK)
        while rest:  # one stream after the other
            decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_DICTIONARY)
            while True:
                plain.write(decoder.decompress(rest, _CHUNK))
                if _too_much(plain.tell(), packed):
                    raise _unsafe(path, path.name, "brings more than results have")
                if decoder.eof:
                    break
                rest = file.read(_CHUNK) if decoder.needs_input else b""
                if decoder.needs_input and not rest:
                    raise EOFError("it ends in the middle")
            rest = decoder.unused_data.lstrip(b"\0")
            while not rest and (more := file.read(_CHUNK)):  # streams may have zeros between them
                rest = more.lstrip(b"\0")
    plain.seek(0)


def _too_much(size: int, packed: int) -> bool:
    return size > _TOTAL or (size > _FREE and size > _RATIO * packed)


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
        if len(found) > _COUNT or _too_much(total, packed):
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
