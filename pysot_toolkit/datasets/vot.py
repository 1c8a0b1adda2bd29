"""The VOT challenges of 2016 to 2019, short-term and long-term (Kristan et al., ICCV and ECCV workshops).

A tracker of rectangles is started on the upright rectangle of a polygon; the protocols score against the polygon.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np

from config.errors import UserError
from config.files import read_bytes
from pysot_toolkit.datasets.base import (
    BENCHMARKS,
    Annotation,
    BenchmarkFormat,
    Sequence,
    list_images,
    listed_folders,
)
from pysot_toolkit.datasets.text import read_boxes, read_table

# Tags of single frames in the order that pysot's toolkit lists them.
VOT_TAGS = ("camera_motion", "illum_change", "motion_change", "size_change", "occlusion")


class ShortTerm(BenchmarkFormat):
    """One year's short-term challenge, with resets."""

    results = "vot"

    def read_folder(self, root: Path) -> list[Sequence]:
        return _sequences(root, _short_term)


@BENCHMARKS.register("VOT2016")
class VOT2016(ShortTerm):
    """``list.txt`` and ``{name}/`` with ``groundtruth.txt`` (polygons), ``*.jpg``, ``{tag}.label``."""

    protocols = ("pysot-vot2016", "vot2016")


@BENCHMARKS.register("VOT2017")
class VOT2017(ShortTerm):
    """``list.txt`` and ``{name}/`` with ``groundtruth.txt`` (polygons), ``*.jpg`` or ``color/*.jpg``, ``{tag}.tag``."""

    protocols = ("pysot-vot2017", "vot2017")


@BENCHMARKS.register("VOT2018")
class VOT2018(ShortTerm):
    """``list.txt`` and ``{name}/`` with ``groundtruth.txt`` (polygons), ``color/*.jpg``, ``{tag}.tag``.

    The sequences are those of VOT2017.
    """

    protocols = ("pysot-vot2018", "vot2018")


@BENCHMARKS.register("VOT2019")
class VOT2019(ShortTerm):
    """``list.txt`` and ``{name}/`` with ``groundtruth.txt`` (polygons), ``color/*.jpg``, ``{tag}.tag``."""

    protocols = ("pysot-vot2019", "vot2019")


@BENCHMARKS.register("VOT2018-LT")
class VOT2018LongTerm(BenchmarkFormat):
    """``list.txt`` and ``{name}/`` with ``groundtruth.txt`` (boxes, NaN where the target is absent), ``color/*.jpg``."""

    protocols = ("pysot-votlt", "votlt")
    results = "votlt"
    nan_is_absent = True

    def read_folder(self, root: Path) -> list[Sequence]:
        return _sequences(root, _long_term)


def _sequences(root: Path, annotation) -> list[Sequence]:
    """The sequences of ``list.txt``, which lies in ``root`` or, in a workspace of VOT's toolkit, in ``sequences``."""
    places = [folder / "list.txt" for folder in (root, root / "sequences")]
    listed = next((place for place in places if place.is_file()), None)
    if listed is None:
        raise UserError(f"{places[0]}: is missing; restore the benchmark's list of sequences")
    return [
        Sequence(
            folder.name,
            frames=functools.partial(_frames, folder),
            annotation=functools.partial(annotation, folder),
        )
        for folder in listed_folders(listed)
    ]


def _frames(folder: Path) -> list[str]:
    """The images where ``sequence`` says (``channels.color=color/%08d.jpg``, VOT2018 and later), else in the
    sequence's folder itself (VOT2016 and VOT2017).
    """
    path = folder / "sequence"
    if path.is_file():
        text = read_bytes(path, "description of a sequence").decode("utf-8", "replace")
        found = re.search(r"^channels\.color *= *(.+?)\s*$", text, re.MULTILINE)
        if found:
            images = folder / found[1].replace("\\", "/")
            return list_images(images.parent if images.suffix else images)
    return list_images(folder / "color" if (folder / "color").is_dir() else folder)


def _short_term(folder: Path) -> Annotation:
    path = folder / "groundtruth.txt"
    rows = read_boxes(path, None)
    tags = _tags(folder, len(rows))
    if rows.shape[1] == 4:
        return Annotation(rows, tags=tags)
    if rows.shape[1] != 8:
        raise UserError(
            f"{path}: {rows.shape[1]} columns, 8 for polygons or 4 for boxes are needed; restore the file"
        )
    return Annotation(polygon_to_rectangle(rows), polygon=rows, tags=tags)


def _long_term(folder: Path) -> Annotation:
    return Annotation(read_boxes(folder / "groundtruth.txt", nan_is_absent=True))


def _tags(folder: Path, frames: int) -> dict[str, np.ndarray]:
    """``{tag}.tag``, or ``{tag}.label`` in VOT2016 and older, with 0 or 1 per line.

    Frames that a file does not reach do not carry the tag, nor does any frame where there is no file (vot-toolkit
    and the script behind pysot's JSON files alike).
    """
    tags = {tag: np.zeros(frames, np.int64) for tag in VOT_TAGS}
    for tag, values in tags.items():
        places = (folder / f"{tag}.tag", folder / f"{tag}.label")
        path = next((place for place in places if place.is_file()), None)
        if path is not None:
            stated = read_table(path).reshape(-1)[:frames] == 1
            values[: len(stated)] = stated
    return tags


def polygon_to_rectangle(polygon: np.ndarray) -> np.ndarray:
    """Upright rectangles (x, y, w, h) with the centre and area of four-cornered polygons ``[..., 8]``.

    The rule by which trackers of rectangles are started on VOT: the bounding box, shrunk about the
    mean corner until its area is that of the polygon, pixels counted inclusively.
    """
    x, y = polygon[..., 0::2], polygon[..., 1::2]
    # Flat polygons have no scale; corners beyond all images may give a rectangle that is not finite.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        width, height = np.ptp(x, axis=-1), np.ptp(y, axis=-1)
        sides = np.hypot(x[..., 0] - x[..., 1], y[..., 0] - y[..., 1]) * np.hypot(
            x[..., 1] - x[..., 2], y[..., 1] - y[..., 2]
        )
        scale = np.nan_to_num(np.sqrt(sides / (width * height)), nan=1.0, posinf=1.0)
        width, height = width * scale, height * scale
        centre_x, centre_y = x.mean(-1), y.mean(-1)
        corners = centre_x - width / 2, centre_y - height / 2
    return np.stack([*corners, width + 1, height + 1], -1)
