"""VOT2018 as rectangles (Kristan et al., ECCV Workshops 2018); its own protocols work on the polygons."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from pysot_toolkit.datasets.base import BENCHMARKS, Annotation, BenchmarkFormat, Sequence, list_images
from pysot_toolkit.datasets.text import read_table

# Tags of single frames, {tag}.tag in a sequence's folder, in the order that pysot's toolkit lists them.
VOT_TAGS = ("camera_motion", "illum_change", "motion_change", "size_change", "occlusion")


@BENCHMARKS.register("VOT2018")
class VOT2018(BenchmarkFormat):
    """``list.txt``, ``{name}/groundtruth.txt`` with polygons, ``{name}/color/*.jpg``."""

    def read_folder(self, root: Path) -> list[Sequence]:
        names = (root / "list.txt").read_text().split() if (root / "list.txt").exists() else []
        names = names or sorted(path.parent.name for path in root.glob("*/groundtruth.txt"))
        return [_sequence(root / name) for name in names]


def _sequence(folder: Path) -> Sequence:
    images = folder / "color" if (folder / "color").is_dir() else folder
    return Sequence(
        folder.name,
        frames=functools.partial(list_images, images),
        annotation=functools.partial(_annotation, folder / "groundtruth.txt"),
    )


def _annotation(path: Path) -> Annotation:
    rows = read_table(path)
    return (
        Annotation(rows)
        if rows.shape[1] == 4
        else Annotation(polygon_to_rectangle(read_table(path, 8)), polygon=rows)
    )


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
