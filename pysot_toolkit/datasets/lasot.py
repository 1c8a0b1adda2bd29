"""LaSOT's test set (Fan et al.: LaSOT, CVPR 2019, protocol II) and its extension (Fan et al., IJCV 2021).

Ground truth, presence and names are alike; the extension has 15 classes of its own, 10 videos each.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np

from config.environment import ROOT
from config.errors import UserError
from config.files import read_bytes, read_json
from pysot_toolkit.datasets.base import (
    BENCHMARKS,
    Annotation,
    BenchmarkFormat,
    Sequence,
    list_folders,
    list_images,
)
from pysot_toolkit.datasets.text import read_boxes, read_table

_SPLITS = ROOT / "ltr" / "data_specs" / "splits.json"
_EXTENSION = (
    "atv badminton cosplay dancingshoe footbag frisbee jianzi lantern misc opossum paddle raccoon rhino"
    " skatingshoe wingsuit"
)


@BENCHMARKS.register("LaSOT")
class LaSOT(BenchmarkFormat):
    """``{class}/{class}-{n}/`` with ``img``, ``groundtruth.txt``, ``full_occlusion.txt``, ``out_of_view.txt``.

    The test sequences are those of ``testing_set.txt`` in the folder, else of the published list;
    where none of the published ones is there, all that are.
    """

    protocols = ("pysot-ope", "lasot", "pytracking")

    def read_folder(self, root: Path) -> list[Sequence]:
        folders = [_folder(root, name) for name in _test_names(root, self.published())]
        return [
            Sequence(
                folder.name,
                frames=functools.partial(list_images, folder / "img"),
                annotation=functools.partial(_annotation, folder),
                extra_frames=self.has_extra_frames(folder.name),
            )
            for folder in folders
        ]

    def published(self) -> set[str]:
        """The names of the test sequences in the paper."""
        classes = read_json(_SPLITS, "list of published splits")["lasot"]["test"]
        return {f"{name}-{number}" for name, numbers in classes.items() for number in numbers}

    def has_extra_frames(self, name: str) -> bool:
        """``monkey-17`` has more images than annotated frames; pysot cuts its results."""
        return name == "monkey-17"


@BENCHMARKS.register("LaSOT_extension_subset")
class LaSOTExtension(LaSOT):
    """``{class}/{class}-{n}/`` with ``img``, ``groundtruth.txt``, ``full_occlusion.txt``, ``out_of_view.txt``.

    All videos of its 15 classes are for testing.
    """

    def published(self) -> set[str]:
        """``{class}-1`` to ``{class}-10`` (pytracking's list)."""
        return {f"{name}-{number}" for name in _EXTENSION.split() for number in range(1, 11)}


def _test_names(root: Path, published: set[str]) -> list[str]:
    own = root / "testing_set.txt"
    if own.exists():
        names = read_bytes(own, "list of test sequences").decode("utf-8", "replace").split()
        missing = [name for name in names if not os.path.isdir(_folder(root, name))]
        if missing:
            raise UserError(
                f"{own}: lists '{missing[0][:60]}' ({len(missing)} in all), which is not in {root}; restore it or mend the list"
            )
        return names
    found = [path.parent.name for path in sorted(root.glob("*/*/groundtruth.txt"))]
    found = found or [path.name for path in list_folders(root) if (path / "groundtruth.txt").exists()]
    return [name for name in found if name in published] or found


def _folder(root: Path, name: str) -> Path:
    nested = root / name.rpartition("-")[0] / name
    return nested if os.path.isdir(nested) else root / name


def _annotation(folder: Path) -> Annotation:
    bbox = read_boxes(folder / "groundtruth.txt")
    hidden = np.zeros(len(bbox), bool)
    for name in ("full_occlusion.txt", "out_of_view.txt"):
        path = folder / name
        flags = read_table(path).reshape(-1)
        if len(flags) < len(bbox):
            raise UserError(
                f"{path}: {len(flags)} values for {len(bbox)} boxes in groundtruth.txt; restore the files"
            )
        hidden |= flags[: len(bbox)] != 0
    return Annotation(bbox, present=~hidden)
