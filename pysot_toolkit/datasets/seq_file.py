"""pysot's ``{benchmark}.json``: one object per sequence with ``img_names``, ``gt_rect`` and more."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from config.errors import UserError
from config.files import read_bytes
from pysot_toolkit.datasets.base import Annotation, BenchmarkFormat, Sequence
from pysot_toolkit.datasets.text import unusable_rows
from pysot_toolkit.datasets.vot import VOT_TAGS, polygon_to_rectangle

_NAN = re.compile(rb"(?<=[\[,:\s])NaN(?=[\],}\s])")


def read_seq_file(path: Path, root: Path, layout: BenchmarkFormat) -> list[Sequence]:
    """The sequences of a pysot JSON file; image names count from ``root``.

    Fields per sequence: ``img_names``, ``gt_rect`` (rows of 4 or, for polygons, 8 numbers; bare NaN
    is read), optional ``attr`` and ``absent`` (1 = target present, as the pysot toolkit has it).

    Raises:
        UserError: missing or broken file, or a sequence without one of the needed fields.
    """
    data = read_bytes(path, "annotation file")
    try:
        table = orjson.loads(_NAN.sub(b"null", data) if b"NaN" in data else data)
    except orjson.JSONDecodeError as error:
        raise UserError(f"{path}: is not valid JSON ({error}); restore the file") from error
    if not isinstance(table, dict) or not table:
        raise UserError(f"{path}: holds no sequences; a pysot annotation file is needed")
    for name, entry in table.items():
        fields = entry if isinstance(entry, dict) else {}
        for field in ("img_names", "gt_rect"):
            if not isinstance(fields.get(field), list):
                raise UserError(f"{path}: sequence '{name}' has no list '{field}'; restore the file")
        if not isinstance(fields.get("attr") or [], list):
            raise UserError(f"{path}: sequence '{name}': 'attr' is no list; restore the file")
        for image in fields["img_names"]:
            if not isinstance(image, str) or not image or "\0" in image:
                raise UserError(f"{path}: sequence '{name}': 'img_names' holds no name; restore the file")
    return [_sequence(path, root, layout, name, entry) for name, entry in table.items()]


def _sequence(path: Path, root: Path, layout: BenchmarkFormat, name: str, entry: dict[str, Any]) -> Sequence:
    def size() -> tuple[int, int] | None:
        stated = entry.get("width"), entry.get("height")
        if all(type(side) is int and 0 < side < 1 << 20 for side in stated):
            return stated  # type: ignore[return-value]
        return layout.stated_size(root, name)

    return Sequence(
        name,
        frames=lambda: [f"{root}/{image}" for image in entry["img_names"]],
        annotation=functools.partial(_annotation, path, root, layout, name, entry),
        attributes=[str(attribute) for attribute in entry.get("attr") or []],
        size=size,
        extra_frames=layout.has_extra_frames(name),
    )


def _annotation(
    path: Path, root: Path, layout: BenchmarkFormat, name: str, entry: dict[str, Any]
) -> Annotation:
    try:
        rows = np.array(entry["gt_rect"], np.float64)  # null becomes NaN
        present = np.array(entry["absent"]) == 1 if "absent" in entry else None
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(
            f"{path}: sequence '{name}': rows that are not of equal length or not numbers; restore the file"
        ) from error
    if rows.ndim != 2 or rows.shape[1] not in (4, 8):
        raise UserError(
            f"{path}: sequence '{name}': 'gt_rect' needs rows of 4 or 8 numbers; restore the file"
        )
    wrong = unusable_rows(rows, layout.nan_is_absent)
    if len(wrong):
        raise UserError(
            f"{path}: sequence '{name}': row {wrong[0] + 1} of 'gt_rect' holds a number that is not finite;"
            " restore the file"
        )
    if present is not None and present.shape != (len(rows),):
        raise UserError(
            f"{path}: sequence '{name}': {present.size} values in 'absent' for {len(rows)} boxes; restore the file"
        )
    polygon = rows if rows.shape[1] == 8 else None
    bbox = rows if polygon is None else polygon_to_rectangle(polygon)
    return layout.complete(
        root, name, Annotation(bbox, present, polygon=polygon, tags=_tags(path, name, entry, len(rows)))
    )


def _tags(path: Path, name: str, entry: dict[str, Any], frames: int) -> dict[str, np.ndarray] | None:
    """VOT's per-frame tags; None where the file has none.

    The published files have an empty list where the challenge has no file of that tag: no frame carries it.
    """
    if not any(tag in entry for tag in VOT_TAGS):
        return None
    tags = {}
    for tag in VOT_TAGS:
        try:
            tags[tag] = np.array(entry.get(tag) or [0] * frames, np.float64) == 1
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(
                f"{path}: sequence '{name}': '{tag}' is no list of 0 and 1; restore the file"
            ) from error
        if tags[tag].shape != (frames,):
            raise UserError(
                f"{path}: sequence '{name}': {tags[tag].size} values in '{tag}' for {frames} boxes; restore the file"
            )
    return {tag: values.astype(np.int64) for tag, values in tags.items()}
