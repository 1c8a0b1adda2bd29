"""LaSOT (Fan et al.: LaSOT, CVPR 2019), protocol II."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from config.environment import ROOT
from config.errors import UserError
from config.files import read_json
from pysot_toolkit.datasets.base import (
    BENCHMARKS,
    Annotation,
    BenchmarkFormat,
    Sequence,
    list_folders,
    list_images,
)
from pysot_toolkit.datasets.text import read_table

_SPLITS = ROOT / "ltr" / "data_specs" / "splits.json"


@BENCHMARKS.register("LaSOT")
class LaSOT(BenchmarkFormat):
    """``{class}/{class}-{n}/`` with ``img``, ``groundtruth.txt``, ``full_occlusion.txt``, ``out_of_view.txt``.

    The test sequences are those of ``testing_set.txt`` in the folder, else of the published list;
    where none of the published ones is there, all that are.
    """

    def read_folder(self, root: Path) -> list[Sequence]:
        names = _test_names(root)
        return [_sequence(_folder(root, name)) for name in names]

    def has_extra_frames(self, name: str) -> bool:
        """``monkey-17`` has more images than annotated frames; its results are cut."""
        return name == "monkey-17"


def _test_names(root: Path) -> list[str]:
    own = root / "testing_set.txt"
    if own.exists():
        names = own.read_text().split()
        missing = [name for name in names if not _folder(root, name).is_dir()]
        if missing:
            raise UserError(
                f"{own}: lists '{missing[0]}' ({len(missing)} in all), which is not in {root}; restore it or mend the list"
            )
        return names
    found = [path.parent.name for path in sorted(root.glob("*/*/groundtruth.txt"))]
    found = found or [path.name for path in list_folders(root) if (path / "groundtruth.txt").exists()]
    published = set()
    if _SPLITS.exists():
        classes = read_json(_SPLITS, "list of published splits")["lasot"]["test"]
        published = {f"{name}-{number}" for name, numbers in classes.items() for number in numbers}
    return [name for name in found if name in published] or found


def _folder(root: Path, name: str) -> Path:
    nested = root / name.rpartition("-")[0] / name
    return nested if nested.is_dir() else root / name


def _sequence(folder: Path) -> Sequence:
    return Sequence(
        folder.name,
        frames=functools.partial(list_images, folder / "img"),
        annotation=functools.partial(_annotation, folder),
        extra_frames=folder.name == "monkey-17",
    )


def _annotation(folder: Path) -> Annotation:
    bbox = read_table(folder / "groundtruth.txt", 4)
    hidden = np.zeros(len(bbox), bool)
    for name in ("full_occlusion.txt", "out_of_view.txt"):
        path = folder / name
        flags = read_table(path).reshape(-1)
        if len(flags) < len(bbox):
            raise UserError(f"{path}: {len(flags)} values for {len(bbox)} boxes; restore the file")
        hidden |= flags[: len(bbox)] != 0
    return Annotation(bbox, present=~hidden)
