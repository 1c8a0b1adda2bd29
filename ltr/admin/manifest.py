"""The manifest of an epoch: which files belong to it, their sizes and hashes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from config.errors import UserError
from config.files import read_json, refuse_newer, sha256

FORMAT = 1  # of the manifest and of the files that it lists

_PART = re.compile(r"[a-z_]{1,40}")  # goes into the name of its file
_CHECKPOINT = re.compile(r"(.+_ep\d{4,}(?:_step\d{6,})?)_([a-z]+)\.pth\.tar")


class Entry(NamedTuple):
    """What the manifest says of one file."""

    file: str  # relative to the manifest's folder
    size: int  # bytes
    sha256: str


def read_manifest(path: Path) -> dict[str, Entry]:
    """Part (``s``, ``t``, ``state``, ``sampler_state``) to its entry.

    Raises:
        UserError: unreadable, broken, no manifest, or of a newer version.
    """
    content = read_json(path, "manifest")
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not a manifest; restore or remove it")
    refuse_newer(path, content.get("format"), FORMAT, "manifest")
    try:
        entries = {
            part: Entry(str(entry["file"]), entry["size"], entry["sha256"])
            for part, entry in content["files"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is not a manifest; restore or remove it") from error
    if not all(_PART.fullmatch(part) for part in entries):
        raise UserError(f"{path}: lists what is no part of a checkpoint; restore or remove it")
    return entries


def fault_of(path: Path, entry: Entry) -> str | None:
    """What is wrong with the file ``path`` that a manifest lists; None: nothing."""
    try:
        if not path.is_file() or path.stat().st_size != entry.size:
            return "is missing or truncated"
        return None if sha256(path) == entry.sha256 else "is corrupt"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def verify_checkpoint(path: Path) -> None:
    """Compare a checkpoint with the manifest of its epoch, where one lies beside it and lists it.

    Raises:
        UserError: it is not as it was written, or the manifest is broken or of a newer version.
    """
    match = _CHECKPOINT.fullmatch(path.name)
    manifest = path.with_name(f"{match[1]}.json") if match else path
    if match is None or not manifest.is_file():
        return
    entry = read_manifest(manifest).get(match[2])
    fault = fault_of(path, entry) if entry else None
    if fault:
        raise UserError(
            f"{path}: {fault}, its manifest {manifest.name} says; restore it or take another epoch"
            " (where you changed it yourself, remove the manifest)"
        )
