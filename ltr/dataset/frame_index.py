"""Which images a video has: listed once, then known from a cache until its folder changes."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from config.console import Progress, warn
from config.errors import UserError
from config.files import refuse_newer, write_json

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")

_VERSION = 1
_SETTLED_NS = 2_000_000_000
"""A folder changed less than this before it was listed may change again within the same time stamp."""


class FrameNames(NamedTuple):
    """The image files of a folder in order: a numbered pattern, or ``names`` where they follow none."""

    length: int
    prefix: str = ""
    digits: int = 0  # 0: not padded
    first: int = 0
    suffix: str = ""
    names: tuple[str, ...] = ()

    def name(self, frame: int) -> str:
        """File name of 0-based ``frame``."""
        return (
            self.names[frame]
            if self.names
            else f"{self.prefix}{self.first + frame:0{self.digits}d}{self.suffix}"
        )


def order_frames(files: Iterable[str]) -> FrameNames:
    """The images among file names, in the order of the numbers in their names (2.jpg before 10.jpg)."""
    images = [name for name in files if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")]
    if not images:
        return FrameNames(0)
    return _numbered(images) or FrameNames(len(images), names=tuple(sorted(images, key=natural_key)))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which numbers inside a name count by value."""
    return [
        (0, int(part), part) if part.isdecimal() else (1, 0, part)
        for part in re.split(r"([0-9]+)", name)
        if part
    ]


def index_frames(folders: Sequence[str], cache_file: Path, label: str) -> list[FrameNames]:
    """The frames of each folder; only folders that changed since ``cache_file`` was written are listed.

    Args:
        folders: image folder of each video.
        cache_file: made when missing, rewritten when a folder changed or the list of folders did.
        label: what is indexed, for the progress line.

    Raises:
        UserError: a folder is missing or cannot be read.
    """
    known = _read_cache(cache_file)
    index: dict[str, tuple[int, FrameNames]] = {}
    stamps = {folder: _stamp(folder) for folder in folders}
    changed = [folder for folder in folders if known.get(folder, (None,))[0] != stamps[folder]]
    listed: dict[str, FrameNames] = {}
    settled = time.time_ns() - _SETTLED_NS
    with Progress(len(changed), f"indexing {label}", "videos") as progress:
        for folder in changed:
            listed[folder] = order_frames(_list(folder))
            progress.update()
    for folder in folders:
        stamp = stamps[folder] if folder not in listed or stamps[folder] < settled else 0
        index[folder] = (stamp, listed[folder] if folder in listed else known[folder][1])
    if index != known:
        _write_cache(cache_file, index)
    return [index[folder][1] for folder in folders]


def _numbered(images: list[str]) -> FrameNames | None:
    """The pattern that gives exactly these names, or None."""
    match = re.fullmatch(
        r"(.*?)([0-9]+)(\.[^.]*)", min(images, key=lambda name: (len(name), name)), re.DOTALL
    )
    if match is None:
        return None
    prefix, number, suffix = match.groups()
    # "01.jpg" is padded; "8.jpg" counts as padded only where all names are equally long.
    padded = (number.startswith("0") and len(number) > 1) or len(set(map(len, images))) == 1
    digits = len(number) if padded else 0
    pattern = FrameNames(len(images), prefix, digits, int(number), suffix)
    return pattern if {pattern.name(frame) for frame in range(len(images))} == set(images) else None


def _stamp(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError as error:
        raise UserError(
            f"{folder}: image folder cannot be read ({error.strerror}); restore it or remove the video"
        ) from error


def _list(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: image folder cannot be read ({error.strerror}); restore it or remove the video"
        ) from error


def _read_cache(path: Path) -> dict[str, tuple[int, FrameNames]]:
    """Folder to (time stamp, frames); empty where the file is missing or broken.

    Raises:
        UserError: it is of a newer version.
    """
    try:
        content: Any = orjson.loads(path.read_bytes())
        version, rows = content["version"], content["folders"]
        known = {folder: (stamp, _pattern(pattern, n)) for folder, stamp, pattern, n in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    refuse_newer(path, version, _VERSION, "index of frames", ", or remove this file: it is made anew")
    return known


def _pattern(pattern: Any, names: Any) -> FrameNames:
    """The entry of a cache, or ``ValueError``."""
    length, prefix, digits, first, suffix = pattern
    texts = (prefix, suffix, *names)
    whole = all(type(n) is int and n >= 0 for n in (length, digits, first)) and digits < 256
    if not whole or not all(isinstance(text, str) for text in texts) or (names and len(names) != length):
        raise ValueError("is no pattern of file names")
    return FrameNames(length, prefix, digits, first, suffix, tuple(names))


def _write_cache(path: Path, index: dict[str, tuple[int, FrameNames]]) -> None:
    folders = [(folder, stamp, frames[:5], frames.names) for folder, (stamp, frames) in index.items()]
    try:
        write_json(path, {"version": _VERSION, "folders": folders})
    except UserError as error:
        warn(f"the frame index is not kept: {error}")
