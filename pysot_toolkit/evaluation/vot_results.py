"""Results of VOT experiments: a file per repetition, in it a line per frame with a code or a region.

Codes: 1 initialised here, 2 failed here, 0 skipped or nothing reported. Regions: 4 numbers (rectangle) or 6
and more (polygon). VOT's current toolkit writes the same as ``.bin`` unless told otherwise; both are read.
"""

from __future__ import annotations

import glob
import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import orjson

from config.errors import one_line
from pysot_toolkit.datasets.text import parse_table
from pysot_toolkit.evaluation.protocol import RESULT_READERS, Regions, Runs, SupervisedRun
from pysot_toolkit.evaluation.results import Fault

SKIPPED, INITIALISED, FAILED, REGION = range(4)

_TO_COMMA = bytes.maketrans(b"\t ;", b",,,")
_NUMERIC = b"0123456789.+-eEnul"
_NEWLINE = ord(b"\n")
_BETWEEN = re.compile(rb"\s*[,;]\s*|\s+")
_LARGEST = 1 << 22  # numbers in the table of a run; more must be there, not come from one long row
_BINARY = 1  # first number of a binary trajectory


def parse_trajectory(data: bytes) -> SupervisedRun:
    """One repetition from the text of its file; a region with NaN keeps it.

    Raises:
        ValueError: naming the line that is no code and no region.
    """
    text = data.rstrip()
    if not text:
        raise ValueError("is empty")
    # All numbers are one JSON list, as in ``parse_table``; the separators tell how many each line has.
    plain = text.translate(_TO_COMMA, b"\r")
    if b"n" in plain or b"N" in plain:
        plain = plain.lower().replace(b"null", b"?").replace(b"nan", b"null")
    separators = plain.translate(None, _NUMERIC)
    if separators.translate(None, b",\n"):
        return _parse_lines(text)
    try:
        numbers = np.array(orjson.loads(b"[" + plain.replace(b"\n", b",") + b"]"), np.float64)
    except orjson.JSONDecodeError:
        return _parse_lines(text)  # such as "1." or two separators; or a fault to name
    ends = np.flatnonzero(np.frombuffer(separators + b"\n", np.uint8) == _NEWLINE)
    length = np.diff(ends, prepend=-1)
    alone = length == 1
    code = np.where(alone, numbers[ends], REGION)
    if (alone & (code != 0) & (code != 1) & (code != 2)).any() or (
        ~alone & ((length < 4) | (length % 2 > 0))
    ).any():
        return _parse_lines(text)
    return _run(code.astype(np.int8), np.where(alone, 0, length), numbers[np.repeat(~alone, length)])


def parse_binary(data: bytes) -> SupervisedRun:
    """One repetition as VOT's toolkit packs it: version, frames, then a type byte and numbers per frame.

    Raises:
        ValueError: cut short, or holding masks or points.
    """
    code: list[int] = []
    length: list[int] = []
    numbers: list[float] = []
    try:
        version, frames = struct.unpack_from("<hI", data)
        if version != _BINARY:
            raise ValueError(f"a binary trajectory of version {version}; version {_BINARY} is read")
        place = struct.calcsize("<hI")
        for frame in range(frames):
            kind = data[place]
            if kind == 0:
                (value,) = struct.unpack_from("<I", data, place + 1)
                if value > FAILED:
                    raise ValueError(f"frame {frame + 1}: code {value} is none of 0, 1, 2")
                code.append(value)
                length.append(0)
                place += 5
                continue
            if kind not in (1, 2):
                raise ValueError(f"frame {frame + 1}: neither rectangle nor polygon")
            head, count = (1, 4) if kind == 1 else (3, 2 * struct.unpack_from("<H", data, place + 1)[0])
            numbers += struct.unpack_from(f"<{count}f", data, place + head)
            code.append(REGION)
            length.append(count)
            place += head + 4 * count
    except (struct.error, IndexError):
        raise ValueError(f"a binary trajectory that is cut short at byte {len(data)}") from None
    if not code:
        raise ValueError("is empty")
    return _run(np.array(code, np.int8), np.array(length), np.array(numbers, np.float64))


def parse_column(data: bytes) -> tuple[np.ndarray, list[int]]:
    """One number per line, float64 ``[n]``: 0 for a blank line, and the (1-based) numbers of the blank lines.

    Raises:
        ValueError: naming the line that is not a number.
    """
    lines = data.splitlines()
    try:
        return np.array([float(line or b"0") for line in lines]), _numbers_of_blanks(lines)
    except ValueError:
        pass  # a line of spaces, or a fault to name
    values = np.zeros(len(lines))
    for k, line in enumerate(lines):
        try:
            values[k] = float(line.strip() or b"0")
        except ValueError:
            raise ValueError(f"line {k + 1}: '{_shown(line)}' is not a number") from None
    return values, _numbers_of_blanks([line.strip() for line in lines])


@RESULT_READERS.register("vot")
def read_supervised(
    folder: Path, names: list[str], frames: int, extra_frames: bool = False
) -> tuple[Runs | None, list[Fault]]:
    """One tracker's repetitions of one sequence of an experiment with resets, and what is wrong with them.

    Read are ``baseline/{name}/{name}_001.txt``, ``_002`` ... and ``{name}_time.txt`` with a column per
    repetition (or ``{name}_001_time.value``). Files with equal bytes, as deterministic trackers write them,
    become one and the same ``SupervisedRun`` object. A ``0`` that follows no failure is named like a NaN.

    Args:
        folder: of the tracker.
        names: under which toolkits store the sequence, best first; faults carry the first.
        frames: annotated frames of the sequence.
        extra_frames: the video has more images than that, so longer results are right.

    Returns:
        None where no file can be used, and the faults. ``boxes`` has the upright bounding box of each region
        of the first repetition, NaN where there is none.
    """
    place, paths = _find(folder / "baseline", names)
    runs, faults = _read_all(names[0], place, paths, frames, extra_frames, _disorder)
    if not runs:
        return None, faults
    seconds, fault = _read_times(place, list(runs))
    if fault:
        faults.append(Fault(names[0], "times", *fault))
    supervised = list(runs.values())
    return Runs([bounding_boxes(supervised[0].regions)], seconds, supervised=supervised), faults


@RESULT_READERS.register("votlt")
def read_long_term(
    folder: Path, names: list[str], frames: int, extra_frames: bool = False
) -> tuple[Runs | None, list[Fault]]:
    """As ``read_supervised`` for the long-term experiment: ``longterm/{name}/{name}_001.txt`` with 1 in the first
    line and no resets, and ``{name}_001_confidence.value`` whose first line is blank.

    ``presence`` has a confidence for each line of the result: 0 where the line is blank, NaN where the file says
    so or ends early. A repetition without confidences is left out.
    """
    place, paths = _find(folder / "longterm", names)
    found, faults = _read_all(names[0], place, paths, frames, extra_frames, _resets)
    runs: dict[str, SupervisedRun] = {}
    presence: list[np.ndarray] = []
    for stem, run in found.items():
        path = place / f"{stem}_confidence.value"
        values, wrong = _read_confidence(path, len(run.code))
        faults += [Fault(names[0], kind, str(path), detail) for kind, detail in wrong]
        if values is not None:
            runs[stem] = run
            presence.append(values)
    if not runs:
        return None, faults
    seconds, fault = _read_times(place, list(runs))
    if fault:
        faults.append(Fault(names[0], "times", *fault))
    supervised = list(runs.values())
    return Runs([bounding_boxes(supervised[0].regions)], seconds, presence, supervised), faults


def bounding_boxes(regions: Regions) -> np.ndarray:
    """Upright boxes (x, y, w, h) around regions, float64 ``[N, 4]``; NaN where there is none."""
    boxes = np.array(regions.values[:, :4])
    boxes[regions.length == 0] = np.nan
    polygon = np.flatnonzero(regions.length > 4)
    corners = regions.values[polygon].T  # corner by corner: numpy is slow on rows of a few numbers
    for k in range(2):
        low, high = corners[k], corners[k]
        for corner in corners[k + 2 :: 2]:
            low, high = np.fmin(low, corner), np.fmax(high, corner)  # NaN behind a row's end
        boxes[polygon, k], boxes[polygon, k + 2] = low, high - low
    return boxes


def hollow(regions: Regions) -> np.ndarray:
    """Which regions hold a NaN, bool ``[N]``."""
    return np.isnan(regions.values).sum(axis=1) > regions.values.shape[1] - regions.length


def _find(experiment: Path, names: list[str]) -> tuple[Path, list[Path]]:
    """The folder of the first name that has trajectories, and these; the first name's folder where none has."""
    for name in names:
        place = experiment / name
        stem = f"{glob.escape(name)}_[0-9][0-9][0-9]"
        paths = sorted(place.glob(f"{stem}.txt")) or sorted(place.glob(f"{stem}.bin"))
        if paths:
            return place, paths
    return experiment / names[0], []


def _read_all(
    sequence: str,
    place: Path,
    paths: list[Path],
    frames: int,
    extra_frames: bool,
    check: Callable[[np.ndarray], list[tuple[str, str]]],
) -> tuple[dict[str, SupervisedRun], list[Fault]]:
    """File name without ending to the repetition, for each that can be used."""
    if not paths:
        missing = place / f"{place.name}_001.txt"
        return {}, [Fault(sequence, "missing", str(missing), "no result file")]
    runs: dict[str, SupervisedRun] = {}
    faults: list[Fault] = []
    known: dict[bytes, SupervisedRun] = {}
    for path in paths:
        try:
            data = path.read_bytes()
            run = known.get(data)
            if run is None:
                run = known[data] = (parse_binary if path.suffix == ".bin" else parse_trajectory)(data)
        except (OSError, ValueError) as error:
            faults.append(Fault(sequence, "broken", str(path), str(error)))
            continue
        wrong = [*check(run.code), *_no_regions(run.regions)]
        count = len(run.code)
        if count < frames or (count > frames and not extra_frames):
            wrong.append(("short" if count < frames else "long", f"{count} lines for {frames} frames"))
        faults += [Fault(sequence, kind, str(path), detail) for kind, detail in wrong]
        if not any(kind == "broken" for kind, _ in wrong):
            runs[path.stem] = run
    return runs, faults


def _disorder(code: np.ndarray) -> list[tuple[str, str]]:
    """What contradicts start, failure, restart: ``(kind, detail)`` with the line."""
    if code[0] != INITIALISED:
        return [("broken", "line 1: not 1 (initialised here), with which every run begins")]
    index = np.arange(len(code))
    event = np.maximum.accumulate(np.where((code == INITIALISED) | (code == FAILED), index, 0))
    lost = code[event[:-1]] == FAILED  # of the frame before: failed, and not restarted since
    unstarted = 1 + np.flatnonzero(lost & (code[1:] >= FAILED))
    if unstarted.size:
        line = unstarted[0] + 1
        return [("broken", f"line {line}: tracking goes on after a failure without 1 (initialised here)")]
    return _lines("nan", 1 + np.flatnonzero(~lost & (code[1:] == SKIPPED)), "0 without a failure before it")


def _resets(code: np.ndarray) -> list[tuple[str, str]]:
    """What does not belong into a run without resets."""
    if code[0] != INITIALISED:
        return [("broken", "line 1: not 1 (initialised here), with which every run begins")]
    resets = 1 + np.flatnonzero((code[1:] == INITIALISED) | (code[1:] == FAILED))
    return _lines("broken", resets[:1], "a reset, of which long-term runs have none")


def _no_regions(regions: Regions) -> list[tuple[str, str]]:
    values, length = regions
    faults = []
    if np.count_nonzero(np.isnan(values)) > values.size - length.sum():
        faults += _lines("nan", np.flatnonzero(hollow(regions)))
    negative = (length == 4) & ((values[:, 2] < 0) | (values[:, 3] < 0))
    return faults + _lines("negative", np.flatnonzero(negative))


def _lines(kind: str, rows: np.ndarray, what: str = "") -> list[tuple[str, str]]:
    """The first of the (0-based) rows as a fault, and how many more there are."""
    if not rows.size:
        return []
    more = f" and {rows.size - 1} more" if rows.size > 1 else ""
    return [(kind, f"line {rows[0] + 1}{more}" + (f": {what}" if what else ""))]


def _read_confidence(path: Path, frames: int) -> tuple[np.ndarray | None, list[tuple[str, str]]]:
    """Confidences ``[frames]``, None where there are none, and what is wrong with them."""
    if not path.is_file():
        return None, [("missing", "no confidences")]
    try:
        values, blank = parse_column(path.read_bytes())
    except (OSError, ValueError) as error:
        return None, [("broken", str(error))]
    while blank and blank[-1] == len(values) > frames:  # empty lines at the end
        values, blank = values[:-1], blank[:-1]
    faults = _lines("nan", np.array([line - 1 for line in blank if line > 1]), "no confidence")
    if len(values) != frames:
        kind = "short" if len(values) < frames else "long"
        faults.append((kind, f"{len(values)} confidences for {frames} lines of the result"))
    fitted = np.full(frames, np.nan)
    fitted[: len(values)] = values[:frames]
    return fitted, faults


def _read_times(place: Path, stems: list[str]) -> tuple[np.ndarray | None, tuple[str, str] | None]:
    """Seconds ``[frames, repetitions]``, or the path of what cannot be read and why."""
    path = place / f"{place.name}_time.txt"
    try:
        if path.is_file():
            return parse_table(path.read_bytes()), None
        columns = []
        for stem in stems:
            path = place / f"{stem}_time.value"
            if not path.is_file():
                return None, None
            columns.append(parse_column(path.read_bytes())[0])
    except (OSError, ValueError) as error:
        return None, (str(path), str(error))
    seconds = np.full((max(map(len, columns)), len(columns)), np.nan)
    for k, column in enumerate(columns):
        seconds[: len(column), k] = column
    return seconds, None


def _parse_lines(text: bytes) -> SupervisedRun:
    lines = text.splitlines()
    code, length = np.full(len(lines), REGION, np.int8), np.zeros(len(lines), np.int64)
    numbers: list[float] = []
    for k, line in enumerate(lines):
        try:
            row = [float(word) for word in _BETWEEN.split(line.strip().rstrip(b",; \t"))]
        except ValueError:
            raise ValueError(f"line {k + 1}: '{_shown(line)}' is no code and no region") from None
        if len(row) == 1 and row[0] in (SKIPPED, INITIALISED, FAILED):
            code[k] = int(row[0])
        elif len(row) < 4 or len(row) % 2:
            raise ValueError(
                f"line {k + 1}: '{_shown(line)}': a code is 0, 1 or 2, a region has 4 numbers, or 6 and more in pairs"
            )
        else:
            length[k] = len(row)
            numbers += row
    return _run(code, length, np.array(numbers, np.float64))


def _run(code: np.ndarray, length: np.ndarray, numbers: np.ndarray) -> SupervisedRun:
    """From the numbers of all regions in one row: ``[sum of length] -> [N, K]``.

    Raises:
        ValueError: one region is so long that the table would have far more room than numbers.
    """
    width = max(4, int(length.max()))
    if len(code) * width > max(_LARGEST, 64 * len(numbers)):
        raise ValueError(f"line {int(length.argmax()) + 1}: a region of {width} numbers, unlike all others")
    values = np.full((len(code), width), np.nan)
    values[np.arange(width) < length[:, None]] = numbers
    return SupervisedRun(code, Regions(values, length))


def _numbers_of_blanks(lines: Iterable[bytes]) -> list[int]:
    return [number for number, line in enumerate(lines, 1) if not line]


def _shown(line: bytes) -> str:
    return one_line(line[:40].decode("utf-8", "replace"))
