"""Files that matter: read with clear errors, written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import orjson

from config.errors import UserError

_LONGEST_NAME = 200  # bytes; file systems take 255, and endings come behind


@contextlib.contextmanager
def atomic_writer(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path``; when the block ends well it is flushed to disk and renamed.

    A reader sees the old file or the new one, never a part. When the block or the disk fails
    the temporary file is removed and ``path`` is as it was.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary: str | None = None
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
            with os.fdopen(handle, mode) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
            temporary = None
            sync_folder(path.parent)
        finally:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """While entered, an ``OSError`` is the user's: a full disk, or a place that cannot be written.

    Raises:
        UserError: instead of it.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); free space or fix permissions"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` survive a power cut (a no-op where folders cannot be opened)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` whole or not at all."""
    with atomic_writer(path, "w") as file:
        file.write(text)


def write_json(path: str | os.PathLike[str], value: Any, indent: bool = False) -> None:
    """Write ``value`` as JSON with sorted keys, compact unless ``indent``; whole or not at all."""
    option = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    if indent:
        option |= orjson.OPT_INDENT_2
    with atomic_writer(path) as file:
        file.write(orjson.dumps(value, option=option))


def read_json(path: str | os.PathLike[str], what: str = "JSON file") -> Any:
    """The value in a JSON file (bare ``NaN``, as pysot's annotation files have it, is read too).

    Raises:
        UserError: missing, unreadable or broken file, with the line where it breaks.
    """
    data = read_bytes(path, what)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(data)
            json.dumps(value, ensure_ascii=False).encode()  # refuses halves of characters, as orjson does
            return value
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: is not valid JSON ({error}); restore or remove this {what}") from error


def is_file_name(text: str) -> bool:
    """Whether ``text`` names a file in a folder, on any system, and nothing elsewhere."""
    plain = text.isprintable() and not text.startswith(".") and not set(text) & set("/\\")
    return len(text) > 0 and len(text.encode("utf-8", "surrogatepass")) <= _LONGEST_NAME and plain


class NewerVersion(UserError):
    """A file that a newer project wrote."""


def refuse_newer(
    path: str | os.PathLike[str], version: Any, known: int, what: str, way_out: str = ""
) -> None:
    """Refuse a file of a version that this project does not know, so that it is neither misread nor replaced.

    Args:
        version: what the file says.
        known: the newest version that is read.
        what: kind of file.
        way_out: what may be done instead of updating.

    Raises:
        NewerVersion: ``version`` is above ``known``.
        UserError: it is no version.
    """
    if type(version) is not int or version < 1:
        raise UserError(f"{path}: this {what} names no version; restore it or remove it")
    if version > known:
        raise NewerVersion(
            f"{path}: this {what} has version {version} and was written by a newer project, this one reads up to "
            f"version {known}; update the project{way_out}"
        )


def read_bytes(path: str | os.PathLike[str], what: str = "file") -> bytes:
    """The content of a file; ``UserError`` where it is missing or unreadable."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {what} cannot be read ({error.strerror or error})") from error


def sha256(path: str | os.PathLike[str]) -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _digest(file)
        )


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
