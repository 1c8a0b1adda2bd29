"""Text tables of numbers: ground truth, results, times. Commas, tabs, semicolons or spaces between columns."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import orjson

from config.errors import UserError, one_line

_TO_COMMA = bytes.maketrans(b"\t ;", b",,,")
_NUMERIC = b"0123456789.+-eEnul"
_BETWEEN = re.compile(r"\s*[,;]\s*|\s+")


def parse_table(data: bytes) -> np.ndarray:
    """The numbers in ``data``, one row per line, as float64 ``[rows, columns]``; ``nan`` is read as NaN.

    Blank lines at the end are ignored; an empty table is ``[0, 0]``.

    A plain table becomes one flat JSON list by replacing separators, which a C parser reads several
    times faster than Python splits lines. What is not plain is read line by line, slowly.

    Raises:
        ValueError: naming the line that is blank, not numeric or of another width than the first.
    """
    original = data
    if any(sign in data for sign in b"\t ;\r"):
        data = data.translate(_TO_COMMA, b"\r")
    text = data.rstrip(b",\n")
    if not text:
        return np.empty((0, 0))
    if b"n" in text or b"N" in text:
        text = text.lower().replace(b"null", b"?").replace(b"nan", b"null")
    gaps = text.partition(b"\n")[0].count(b",")
    separators = text.translate(None, _NUMERIC) + b"\n"
    rows = len(separators) // (gaps + 1)
    if separators == (b"," * gaps + b"\n") * rows:
        try:
            return np.array(orjson.loads(b"[" + text.replace(b"\n", b",") + b"]"), np.float64).reshape(
                rows, -1
            )
        except orjson.JSONDecodeError:
            pass  # such as "1." or "+1", which are numbers but not JSON
    return _parse_lines(original)


def _parse_lines(data: bytes) -> np.ndarray:
    rows: list[list[float]] = []
    for number, line in enumerate(data.decode("utf-8", "replace").rstrip().splitlines(), 1):
        words = _BETWEEN.split(line.strip("\ufeff \t").rstrip(",; \t"))
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            raise ValueError(f"line {number}: '{one_line(line[:40])}' is not a row of numbers") from None
        if len(rows[-1]) != len(rows[0]):
            raise ValueError(f"line {number}: {len(rows[-1])} numbers where line 1 has {len(rows[0])}")
    return np.array(rows, np.float64) if rows else np.empty((0, 0))  # white space that is no separator


def read_boxes(path: Path, columns: int | None = 4, nan_is_absent: bool = False) -> np.ndarray:
    """The ground truth in a file of the benchmark: boxes, or polygons of ``columns`` numbers, a row per frame.

    Raises:
        UserError: as ``read_table``; a number that is not finite, NaN excepted where ``nan_is_absent``.
    """
    return finite_rows(path, read_table(path, columns), nan_is_absent)


def finite_rows(path: Path, rows: np.ndarray, nan_is_absent: bool = False) -> np.ndarray:
    """The same ``rows``, the lines of ``path``, none of which may be unusable as a ground truth.

    Raises:
        UserError: naming the line that is.
    """
    wrong = unusable_rows(rows, nan_is_absent)
    if len(wrong):
        raise UserError(f"{path}: line {wrong[0] + 1}: holds a number that is not finite; restore the file")
    return rows


def unusable_rows(rows: np.ndarray, nan_is_absent: bool) -> np.ndarray:
    """Which rows of ``[N, K]`` cannot be a ground truth: infinite, or NaN where that has no meaning."""
    return np.flatnonzero((np.isinf(rows) if nan_is_absent else ~np.isfinite(rows)).any(axis=1))


def read_table(path: Path, columns: int | None = None) -> np.ndarray:
    """The table in a file of the benchmark, float64 ``[rows, columns]``.

    Raises:
        UserError: unreadable, not numeric, or not of ``columns`` columns.
    """
    try:
        table = parse_table(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); restore the file") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}; restore the file") from error
    if columns is not None and table.shape[1] != columns:
        found = f"{table.shape[1]} columns" if len(table) else "nothing in it"
        raise UserError(f"{path}: {found}, {columns} columns are needed; restore the file")
    return table
