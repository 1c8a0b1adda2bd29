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
from pysot_toolkit.datasets.base import BENCHMARKS, Annotation, BenchmarkFormat, Sequence, list_images
from pysot_toolkit.datasets.text import read_table

# Tags of single frames, {tag}.tag in a sequence's folder, in the order that pysot's toolkit lists them.
VOT_TAGS = ("camera_motion", "illum_change", "motion_change", "size_change", "occlusion")


class ShortTerm(BenchmarkFormat):
    """``list.txt``, ``{name}/groundtruth.txt`` with polygons, ``{name}/color/*.jpg``; or in ``sequences/``."""

    results = "vot"

    def read_folder(self, root: Path) -> list[Sequence]:
        return _sequences(root, _short_term)


@BENCHMARKS.register("VOT2016")
class VOT2016(ShortTerm):
    """``list.txt``, ``{name}/groundtruth.txt`` with polygons, ``{name}/*.jpg``; or in ``sequences/``."""

    protocols = ("pysot-vot2016", "vot2016")


@BENCHMARKS.register("VOT2017")
class VOT2017(ShortTerm):
    """As VOT2016."""

    protocols = ("pysot-vot2017", "vot2017")


@BENCHMARKS.register("VOT2018")
class VOT2018(ShortTerm):
    """``list.txt``, ``{name}/groundtruth.txt`` with polygons, ``{name}/color/*.jpg``; or in ``sequences/``."""

    protocols = ("pysot-vot2018", "vot2018")


@BENCHMARKS.register("VOT2019")
class VOT2019(ShortTerm):
    """As VOT2018."""

    protocols = ("pysot-vot2019", "vot2019")


@BENCHMARKS.register("VOT2018-LT")
class VOT2018LongTerm(BenchmarkFormat):
    """As VOT2018, with rectangles; rows of NaN where the target is absent."""

    protocols = ("pysot-votlt", "votlt")
    results = "votlt"

    def read_folder(self, root: Path) -> list[Sequence]:
        return _sequences(root, _long_term)


def _sequences(root: Path, annotation) -> list[Sequence]:
    """The sequences of ``list.txt``, which lies in ``root`` or, in a workspace of VOT's toolkit, in ``sequences``."""
    places = [folder / "list.txt" for folder in (root, root / "sequences")]
    listed = next((place for place in places if place.is_file()), None)
    if listed is None:
        raise UserError(f"{places[0]}: is missing; restore the benchmark's list of sequences")
    names = read_bytes(listed, "list of sequences").decode("utf-8", "replace").split()
    folders = [listed.parent / name for name in names]
    missing = next((folder for folder in folders if not folder.is_dir()), None)
    if missing is not None:
        raise UserError(f"{listed}: lists '{missing.name}', which is not beside it; restore {missing}")
    return [
        Sequence(
            folder.name,
            frames=functools.partial(_frames, folder),
            annotation=functools.partial(annotation, folder),
        )
        for folder in folders
    ]


def _frames(folder: Path) -> list[str]:
    """The images where ``sequence`` says (``channels.color=color/%08d.jpg``, VOT2018 and later), else in the
    sequence's folder itself (VOT2016 and VOT2017).
    """
    path = folder / "sequence"
    if path.is_file():
        text = read_bytes(path, "description of a sequence").decode("utf-8", "replace")
        found = re.search(r"^channels\.color\s*=\s*(.+?)\s*$", text, re.MULTILINE)
        if found:
            return list_images((folder / found[1]).parent)
    return list_images(folder / "color" if (folder / "color").is_dir() else folder)


def _short_term(folder: Path) -> Annotation:
    path = folder / "groundtruth.txt"
    rows = read_table(path)
    if rows.shape[1] == 4:
        return Annotation(rows, tags=_tags(folder, len(rows)))
    polygon = read_table(path, 8)
    return Annotation(polygon_to_rectangle(polygon), polygon=polygon, tags=_tags(folder, len(polygon)))


def _long_term(folder: Path) -> Annotation:
    return Annotation(read_table(folder / "groundtruth.txt", 4))


def _tags(folder: Path, frames: int) -> dict[str, np.ndarray]:
    """Frames that a file does not reach, or all of a tag without one, do not carry the tag."""
    tags = {tag: np.zeros(frames, np.int64) for tag in VOT_TAGS}
    for tag, values in tags.items():
        path = folder / f"{tag}.tag"
        if path.is_file():
            stated = read_table(path).reshape(-1)[:frames] != 0
            values[: len(stated)] = stated
    return tags


def polygon_to_rectangle(polygon: np.ndarray) -> np.ndarray:
    """Upright rectangles (x, y, w, h) with the centre and area of four-cornered polygons ``[..., 8]``.

    The rule by which trackers of rectangles are started on VOT: the bounding box, shrunk about the
    mean corner until its area is that of the polygon, pixels counted inclusively.
    """
    x, y = polygon[..., 0::2], polygon[..., 1::2]
    width, height = np.ptp(x, axis=-1), np.ptp(y, axis=-1)
    sides = np.hypot(x[..., 0] - x[..., 1], y[..., 0] - y[..., 1]) * np.hypot(
        x[..., 1] - x[..., 2], y[..., 1] - y[..., 2]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.nan_to_num(np.sqrt(sides / (width * height)), nan=1.0, posinf=1.0)
    width, height = width * scale, height * scale
    centre_x, centre_y = x.mean(-1), y.mean(-1)
    return np.stack([centre_x - width / 2, centre_y - height / 2, width + 1, height + 1], -1)
