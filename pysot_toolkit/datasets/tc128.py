"""Temple-Color 128 (Liang, Blasch, Ling: Encoding Color Information for Visual Tracking, TIP 2015)."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from config.errors import UserError
from config.files import read_bytes
from pysot_toolkit.datasets.base import (
    BENCHMARKS,
    Annotation,
    BenchmarkFormat,
    Sequence,
    list_folders,
    list_images,
)
from pysot_toolkit.datasets.text import read_boxes, read_table

_PREFIX = "tpl_"  # of folders and results in pytracking


@BENCHMARKS.register("TC128")
class TC128(BenchmarkFormat):
    """``{name}/img/*.jpg``, ``{name}/{name}_gt.txt``, ``{name}/{name}_frames.txt`` with the first and last frame.

    The files carry the folder's name but for ``Yo_yos_ce1`` to ``3``, whose files begin with ``Yo-yos`` (pytracking's
    list of sequences), and the ``tpl_`` that pytracking puts before the folders.
    """

    protocols = ("pysot-ope", "pytracking")

    def read_folder(self, root: Path) -> list[Sequence]:
        return [
            _sequence(folder, path)
            for folder in list_folders(root)
            for path in sorted(folder.glob("*_gt.txt"))
        ]

    def result_names(self, name: str) -> list[str]:
        """The name itself, then pytracking's."""
        return [name, f"{_PREFIX}{name}"]


def _sequence(folder: Path, path: Path) -> Sequence:
    files = path.name.removesuffix("_gt.txt")
    attributes = folder / f"{files}_att.txt"
    return Sequence(
        folder.name.removeprefix(_PREFIX),
        frames=functools.partial(_frames, folder / "img", folder / f"{files}_frames.txt"),
        annotation=functools.partial(_annotation, path),
        attributes=_words(attributes) if attributes.is_file() else None,
    )


def _annotation(path: Path) -> Annotation:
    return Annotation(read_boxes(path))


def _frames(images: Path, path: Path) -> list[str]:
    numbers = read_table(path).reshape(-1)
    if len(numbers) != 2 or not np.isfinite(numbers).all():
        raise UserError(f"{path}: is not 'first,last' frame number; restore the file")
    return list_images(images, (int(numbers[0]), int(numbers[1])))


def _words(path: Path) -> list[str]:
    return read_bytes(path, "list of attributes").decode("utf-8", "replace").replace(",", " ").split()
