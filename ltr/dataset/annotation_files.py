"""Text files of the benchmarks: boxes, flags and lists of names, with errors that name the line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from config.errors import UserError


def read_boxes(path: Path, count: int, fewer: bool = False) -> np.ndarray:
    """``x,y,w,h`` per line, separated by commas, tabs or spaces, as float64 ``[count, 4]`` in pixels.

    Sizes may be zero or negative here; ``check_sizes`` says which of them a benchmark allows.

    Args:
        path: text file.
        count: number of images.
        fewer: the benchmark has less boxes than images here; the rest becomes ``0,0,0,0``.

    Raises:
        UserError: unreadable, not ``count`` lines, or a line without four finite numbers.
    """
    lines = _read(path).split("\n")
    _check_count(path, len(lines), "lines of boxes", count, fewer)
    try:
        boxes = np.loadtxt(lines, ndmin=2, comments=None)
    except ValueError:
        boxes = np.empty((0, 4))
    # loadtxt skips blank lines, so the number of rows is part of the check.
    if boxes.shape != (len(lines), 4) or not np.isfinite(boxes).all():
        for number, line in enumerate(lines, 1):
            if not _is_box(line.split()):
                raise UserError(
                    f"{path}, line {number}: '{line[:40]}' is not a box; four finite numbers are needed"
                )
        # such as 1_000, which Python reads and numpy does not
        boxes = np.array([[float(word) for word in line.split()] for line in lines])
    return _padded(boxes, count)


def read_flags(path: Path, count: int, fewer: bool = False) -> np.ndarray:
    """``count`` whole numbers, one per line or all on one line separated by commas, as int64 ``[count]``.

    Args:
        path: text file.
        count: number of images.
        fewer: the benchmark has less flags than images here; the rest becomes 0.

    Raises:
        UserError: unreadable, another count, or something that is no whole number.
    """
    lines = _read(path).split("\n")
    try:
        flags = np.array(list(map(int, chain.from_iterable(line.split() for line in lines))), np.int64)
    except (ValueError, OverflowError):
        number, word = next(
            (n, w) for n, line in enumerate(lines, 1) for w in line.split() if not _is_whole(w)
        )
        raise UserError(
            f"{path}, line {number}: '{word[:60]}' is not a whole number; restore the file"
        ) from None
    _check_count(path, len(flags), "values", count, fewer)
    return _padded(flags, count)


def check_sizes(path: Path, boxes: np.ndarray, absent: np.ndarray) -> np.ndarray:
    """Which boxes ``[N, 4]`` have a size, as bool ``[N]``; whatever is left in absent frames is ignored.

    Where the target is out of sight the benchmarks leave ``0,0,0,0`` or a random box behind
    (LaSOT has ``1,1,-1,-1``); such a frame is not visible. A box without a size in a frame that
    nothing declares absent is broken.

    Raises:
        UserError: such a box, with its line.
    """
    sized = (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
    if sized.all():
        return sized
    broken = np.flatnonzero(~sized & ~absent & boxes.any(axis=1))
    if len(broken):
        box = ",".join(f"{value:g}" for value in boxes[broken[0]])
        more = f" (and {len(broken) - 1} more lines)" if len(broken) > 1 else ""
        raise UserError(
            f"{path}, line {broken[0] + 1}: box {box} has no size{more}; "
            "correct it, or write 0,0,0,0 where the target is absent"
        )
    return sized


def read_names(path: Path) -> list[str]:
    """The lines of a list file, without blank ones."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: list cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _read(path: Path) -> str:
    """The text with separators turned into spaces, without the blank end."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: annotation cannot be read ({error.strerror or error}); restore it or remove the video"
        ) from error
    # latin-1 decodes any byte, so that foreign bytes are reported with their line like any other text.
    return data.decode("latin-1").replace("\r\n", "\n").replace("\r", "\n").replace(",", " ").rstrip()


def _check_count(path: Path, found: int, what: str, count: int, fewer: bool) -> None:
    if found != count and not (fewer and found < count):
        raise UserError(f"{path}: {found} {what} for {count} images; restore the file or the missing images")


def _padded(values: np.ndarray, count: int) -> np.ndarray:
    """``values`` with zeros after them up to ``count`` rows."""
    missing = count - len(values)
    return (
        np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)]) if missing else values
    )


def _is_box(row: Sequence[str]) -> bool:
    try:
        return len(row) == 4 and bool(np.isfinite([float(word) for word in row]).all())
    except ValueError:
        return False


def _is_whole(word: str) -> bool:
    try:
        return -(1 << 63) <= int(word) < 1 << 63
    except ValueError:
        return False
