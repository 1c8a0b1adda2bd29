"""Archives for evaluation servers: checked before they are written, and of the same bytes for the same results."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from config.environment import var_dir
from config.errors import UserError
from config.files import atomic_writer
from config.settings import Settings
from pysot_toolkit.datasets import open_benchmark
from pysot_toolkit.datasets.base import Sequence
from pysot_toolkit.datasets.text import parse_table
from pysot_toolkit.evaluation.archives import LARGEST, UNREADABLE
from pysot_toolkit.evaluation.results import find_trackers


class _Form(NamedTuple):
    """What a server, or those who read raw results, expect."""

    sequences: int  # that the benchmark has
    names: str  # what their names look like, a regular expression
    folder: str  # around the files
    repeated: bool  # {sequence}/{sequence}_001.txt, _002 ... with {sequence}_time.txt, else {sequence}.txt


# The got10k package zips a tracker's folder of the test split; validation videos are scored at home.
_GOT10K = _Form(180, r"GOT-10k_Test_\d{6}", "", repeated=True)
# TrackingNet-devkit's metrics.py looks for exactly one file per video, columns separated by commas.
_TRACKINGNET = _Form(511, ".+", "", repeated=False)
# LaSOT_Evaluation_Toolkit's eval_tracker.m reads tracking_results/{tracker}_tracking_result/{sequence}.txt.
_LASOT = _Form(280, ".+", "{tracker}_tracking_result/", repeated=False)

_FORMS = {
    "GOT-10k": _GOT10K,
    "GOT-10k_test": _GOT10K,
    "TrackingNet": _TRACKINGNET,
    "LaSOT": _LASOT,
    "LaSOT_extension_subset": _LASOT._replace(sequences=150),
}


def pack(
    settings: Settings,
    dataset: str,
    tracker: str,
    results_root: Path | None = None,
    target: Path | None = None,
) -> Path:
    """Write the zip archive that the benchmark's server takes (LaSOT: raw results as its site has them).

    Numbers are written as our testing does, 4 digits after the point and separated by commas, whatever
    wrote the results: our own results are packed byte for byte.

    Args:
        settings: for the benchmark's folder and ``paths.var``.
        dataset: GOT-10k (its test split), TrackingNet, LaSOT or its extension, whole.
        tracker: its results lie in ``{results_root}/{dataset}/{tracker}``.
        results_root: ``var/results`` if None.
        target: the archive, replaced if it exists; ``var/results/{dataset}/{tracker}.zip`` if None.

    Returns:
        The path of the archive.

    Raises:
        UserError: a benchmark that is not packed or not whole here; results that miss a video or are not as
            ``check_archive`` wants them, with file and line. Nothing is written then.
    """
    form = _form(dataset)
    target = target if target is not None else var_dir(settings, "results", dataset, f"{tracker}.zip")
    if target.suffix != ".zip":
        raise UserError(f"{target}: the archive is a zip file; give a name that ends in .zip")
    sequences = _sequences(settings, dataset, form)
    folder = (results_root if results_root is not None else var_dir(settings, "results")) / dataset
    find_trackers(folder, names=[tracker])
    files = _checked(folder / tracker, sequences, form)
    inside = form.folder.format(tracker=tracker)
    with atomic_writer(target) as file, zipfile.ZipFile(file, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(inside + name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, on every system
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name])
    return target


def check_archive(path: Path, settings: Settings, dataset: str) -> None:
    """Read an archive for a server, ours or another's, as closely as ``pack`` reads results.

    Each video of the benchmark is there and nothing else; each file has one row of four finite numbers per
    image, separated by commas, no negative sizes, and starts within a pixel of the given box; GOT-10k: times
    of each frame and repetition.

    Raises:
        UserError: naming file and line of the first fault.
    """
    form = _form(dataset)
    sequences = _sequences(settings, dataset, form)
    try:
        with zipfile.ZipFile(path) as archive:
            inside = _check_entries(path, archive)
            folder = zipfile.Path(archive)
            if form.folder:
                tops = sorted({name.partition("/")[0] for name in inside})
                if len(tops) != 1:
                    raise UserError(f"{path}: holds {len(tops)} folders or files at the top; one per tracker")
                folder = folder / tops[0]
                inside = {name.partition("/")[2] for name in inside}
            files = _checked(folder, sequences, form)
            strange = sorted(inside - files.keys())
            if strange:
                raise UserError(f"{path}: '{strange[0]}' is no result of {dataset}; remove it")
    except UNREADABLE as error:
        raise UserError(f"{path}: cannot be read as a zip archive ({error}); pack it again") from error


def _check_entries(path: Path, archive: zipfile.ZipFile) -> set[str]:
    """The names of the files in an archive, each of which may be read and has columns separated by commas."""
    names: set[str] = set()
    for entry in archive.infolist():
        if entry.filename.endswith("/"):  # a folder
            continue
        where = f"{path}/{entry.filename}"
        if entry.filename in names:
            raise UserError(f"{where}: is there twice; pack it again")
        if entry.file_size > LARGEST or entry.flag_bits & 1:
            raise UserError(f"{where}: is encrypted or too large for a result; pack it again")
        names.add(entry.filename)
        other = re.search(rb"[\t ;]", archive.read(entry))
        if other:
            raise UserError(f"{where}: columns are not separated by commas; pack it again")
    return names


def _form(dataset: str) -> _Form:
    if dataset not in _FORMS:
        raise UserError(f"--pack: {dataset} has no archive of its own; those that have: {', '.join(_FORMS)}")
    return _FORMS[dataset]


def _sequences(settings: Settings, dataset: str, form: _Form) -> list[Sequence]:
    """The benchmark's sequences, all that the server asks for."""
    benchmark = open_benchmark(dataset, settings)
    other = next((s.name for s in benchmark if not re.fullmatch(form.names, s.name)), None)
    if other is not None or len(benchmark) != form.sequences:
        found = f"{len(benchmark)} videos" if other is None else f"'{other}'"
        raise UserError(
            f"{benchmark.source}: holds {found}, an archive of {dataset} the {form.sequences} of its test set;"
            f" give their folder with --set paths.test.{dataset} FOLDER"
        )
    return list(benchmark)


def _checked(folder: Path | zipfile.Path, sequences: list[Sequence], form: _Form) -> dict[str, bytes]:
    """The files of all sequences by their name in ``folder``, checked, and written as we write them."""
    first = "{0}/{0}_001.txt" if form.repeated else "{0}.txt"
    missing = [s.name for s in sequences if not (folder / first.format(s.name)).is_file()]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of {len(sequences)} videos have no result, the first is"
            f" '{first.format(missing[0])}'; test the tracker on them"
        )
    files = {}
    for sequence in sequences:
        runs = list(_runs(folder, sequence.name)) if form.repeated else [first.format(sequence.name)]
        for name in runs:
            files[name] = _written(_boxes(folder / name, sequence), 4)
        if form.repeated:
            name = f"{sequence.name}/{sequence.name}_time.txt"
            seconds = _table(folder / name, len(runs), sequence)
            _refuse(folder / name, seconds < 0, "a time that is negative")
            files[name] = _written(seconds, 8)
    return files


def _runs(folder: Path | zipfile.Path, name: str) -> Iterator[str]:
    """The repetitions of a sequence: files numbered from 1 without a gap."""
    number = 1
    while (folder / (file := f"{name}/{name}_{number:03d}.txt")).is_file():
        yield file
        number += 1


def _boxes(path: Path | zipfile.Path, sequence: Sequence) -> np.ndarray:
    table = _table(path, 4, sequence)
    _refuse(path, table[:, 2:] < 0, "a negative width or height")
    # Toolkits round the first box, pytracking by cutting off what follows the point.
    if (np.abs(table[0] - sequence.init_bbox) >= 1).any():
        raise UserError(
            f"{path}: line 1: {table[0].tolist()} is not the given box {sequence.init_bbox.tolist()};"
            " these are results of another video or of another start"
        )
    return table


def _table(path: Path | zipfile.Path, columns: int, sequence: Sequence) -> np.ndarray:
    """The finite numbers in a file, float64 ``[frames of the sequence, columns]``."""
    try:
        table = parse_table(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing; test the tracker on this video again") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}; test the tracker on this video again") from error
    images = len(sequence.frames)
    # Where a video has images beyond its annotation, both lengths are what its readers expect.
    if len(table) not in ({images, len(sequence.ground_truth)} if sequence.extra_frames else {images}):
        raise UserError(
            f"{path}: {len(table)} lines for {images} images; test the tracker on this video again"
        )
    if table.shape[1] != columns:
        raise UserError(
            f"{path}: {table.shape[1]} columns instead of {columns}; test the tracker on this video again"
        )
    _refuse(path, ~np.isfinite(table), "a number that is not finite")
    return table


def _refuse(path: Path | zipfile.Path, wrong: np.ndarray, what: str) -> None:
    lines = np.flatnonzero(wrong.any(axis=1)) + 1
    if lines.size:
        more = f" and {lines.size - 1} more" if lines.size > 1 else ""
        raise UserError(f"{path}: line {lines[0]}{more}: {what}; test the tracker on this video again")


def _written(table: np.ndarray, digits: int) -> bytes:
    return "".join(",".join(f"{number:.{digits}f}" for number in row) + "\n" for row in table).encode()
