"""GOT-10k (Huang, Zhao, Huang: GOT-10k, TPAMI 2021)."""

from __future__ import annotations

import configparser
import functools
import re
from pathlib import Path

import numpy as np

from config.errors import UserError
from pysot_toolkit.datasets.base import (
    BENCHMARKS,
    Annotation,
    BenchmarkFormat,
    Sequence,
    list_images,
    listed_folders,
)
from pysot_toolkit.datasets.text import read_boxes, read_table


@BENCHMARKS.register("GOT-10k")
class GOT10k(BenchmarkFormat):
    """``list.txt`` and ``{name}/`` with ``*.jpg``, ``groundtruth.txt``, ``cover.label``, ``meta_info.ini``.

    The folder is that of one split, or the one above: then ``val`` is read, which can be scored
    here, else ``test``, of which the server alone knows more than the first box.
    """

    protocols = ("got10k",)
    results = "repeated"
    splits: tuple[str, ...] = ("", "val", "test")  # where list.txt is looked for, below the folder

    def read_folder(self, root: Path) -> list[Sequence]:
        places = [root / split for split in self.splits]
        split = next((place for place in places if (place / "list.txt").exists()), None)
        if split is None:
            wanted = ", ".join(f"{name}/list.txt".lstrip("/") for name in self.splits)
            raise UserError(f"{root}: has none of {wanted}; give GOT-10k's folder or that of a split")
        return [
            Sequence(
                folder.name,
                frames=functools.partial(list_images, folder),
                annotation=functools.partial(_annotation, folder),
                size=functools.partial(_stated_size, folder),
            )
            for folder in listed_folders(split / "list.txt")
        ]

    def complete(self, root: Path, name: str, annotation: Annotation) -> Annotation:
        folder = _folder(root, name)
        return annotation._replace(cover=_cover(folder, len(annotation.bbox))) if folder else annotation

    def stated_size(self, root: Path, name: str) -> tuple[int, int] | None:
        folder = _folder(root, name)
        return _stated_size(folder) if folder else None


@BENCHMARKS.register("GOT-10k_val")
class GOT10kVal(GOT10k):
    """``val/list.txt`` and ``val/{name}/``; or the folder ``val`` itself."""

    splits = ("val", "")


@BENCHMARKS.register("GOT-10k_test")
class GOT10kTest(GOT10k):
    """``test/list.txt`` and ``test/{name}/`` with ``*.jpg`` and ``groundtruth.txt``; or the folder ``test`` itself.

    The server alone knows more than the first box.
    """

    splits = ("test", "")


def _folder(root: Path, name: str) -> Path | None:
    places = (root / "val" / name, root / name, root / "test" / name)
    return next((place for place in places if (place / "cover.label").exists()), None)


def _annotation(folder: Path) -> Annotation:
    bbox = read_boxes(folder / "groundtruth.txt")
    return Annotation(bbox, cover=_cover(folder, len(bbox)) if (folder / "cover.label").exists() else None)


def _cover(folder: Path, frames: int) -> np.ndarray:
    path = folder / "cover.label"
    cover = read_table(path, 1).reshape(-1)
    if len(cover) != frames:
        raise UserError(f"{path}: {len(cover)} values for {frames} boxes; restore the file")
    wrong = np.flatnonzero(~((cover >= 0) & (cover <= 8)))
    if len(wrong):
        raise UserError(f"{path}: line {wrong[0] + 1}: is not a number of eighths, 0 to 8; restore the file")
    return cover.astype(int)


def _stated_size(folder: Path) -> tuple[int, int] | None:
    """``resolution: (w, h)`` of ``meta_info.ini``; None where there is no such file."""
    path = folder / "meta_info.ini"
    if not path.exists():
        return None
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path)
        found = re.fullmatch(r"\(\s*(\d+)\s*,\s*(\d+)\s*\)", parser.get("METAINFO", "resolution"))
    except (configparser.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}; restore the file") from error
    if found is None:
        raise UserError(f"{path}: 'resolution' is not (width, height); restore the file")
    return int(found[1]), int(found[2])
