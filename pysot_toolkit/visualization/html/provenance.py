"""Where the numbers of a report come from: annotation, results, weights, program."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from config.errors import UserError
from config.files import read_bytes, read_json, sha256
from pysot_toolkit.datasets.base import Benchmark
from pysot_toolkit.visualization.html.markup import Markup, markup, tag
from pysot_toolkit.visualization.html.tables import NOTHING, column_head, row_head, table, tracker

_PACKAGES = ("spot-tracking", "torch", "numpy")


def provenance(benchmark: Benchmark, results: Path, trackers: list[str], command: str | None) -> Markup:
    """A list of facts and a table of the result folders.

    Args:
        benchmark: that was evaluated.
        results: the folder that holds one folder per tracker.
        trackers: in the order of the report.
        command: that made the report; None: this process' own.
    """
    hashed, digest = annotation_digest(benchmark)
    facts = [
        ("Command", tag("code", shlex.join(sys.argv) if command is None else command)),
        ("Date", datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")),
        ("Annotation", tag("code", benchmark.source)),
        (f"SHA-256 of {hashed}", tag("code", digest)),
        ("Versions", ", ".join([f"Python {platform.python_version()}", *_versions()])),
    ]
    folders = [results / name for name in trackers]
    notes = [checkpoint_note(folder) for folder in folders]
    return markup(
        tag("dl", *(markup(tag("dt", name), tag("dd", value)) for name, value in facts)),
        table(
            "Where each tracker's results lie, and the checkpoint they come from where a note beside them says so",
            [column_head(text, number=False) for text in ("Tracker", "Folder", "Checkpoint")],
            [
                [
                    row_head(tracker(number, name)),
                    tag("td", tag("code", folder)),
                    tag("td", tag("code", note) if note else NOTHING),
                ]
                for number, (name, folder, note) in enumerate(zip(trackers, folders, notes))
            ],
            label="Result folders",
        ),
    )


def annotation_digest(benchmark: Benchmark) -> tuple[str, str]:
    """What was hashed and its SHA-256: the annotation file, or what was read from the benchmark's folder.

    The latter covers names, boxes (float64, as they lie in memory, little-endian), presence, cover, polygons and
    mask files, sequence by sequence.
    """
    if benchmark.source.is_file():
        return "that file", sha256(benchmark.source)
    digest = hashlib.sha256()
    for sequence in benchmark:
        annotation = sequence.annotation
        digest.update(sequence.name.encode("utf-8", "surrogateescape") + b"\0")
        for array in (annotation.bbox, annotation.present, annotation.cover, annotation.polygon):
            if array is not None:
                digest.update(array.astype("<f8").tobytes())
        for path in annotation.masks:
            digest.update(read_bytes(path, "mask"))
    return "the annotation as read", digest.hexdigest()


def checkpoint_note(folder: Path) -> str:
    """What ``checkpoint.json`` beside a tracker's results says, one fact after another; empty without one."""
    path = folder / "checkpoint.json"
    if not path.exists():
        return ""
    try:
        note = read_json(path, "note of what the results come from")
    except UserError as error:
        return str(error)
    if not isinstance(note, dict):
        return json.dumps(note)
    return ", ".join(
        f"{key} {value if isinstance(value, str) else json.dumps(value)}" for key, value in note.items()
    )


def _versions() -> Iterator[str]:
    for package in _PACKAGES:
        try:
            yield f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:  # run from a copy that was never installed
            yield f"{package} (not installed)"
