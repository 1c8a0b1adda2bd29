"""GOT-10k (Huang, Zhao, Huang: GOT-10k, TPAMI 2021)."""

from __future__ import annotations

import configparser
import functools
import re
from pathlib import Path

from config.errors import UserError
from config.files import read_bytes
from pysot_toolkit.datasets.base import BENCHMARKS, Annotation, BenchmarkFormat, Sequence, list_images
from pysot_toolkit.datasets.text import read_table


@BENCHMARKS.register("GOT-10k")
class GOT10k(BenchmarkFormat):
    """``list.txt`` and ``{name}/`` with ``*.jpg``, ``groundtruth.txt``, ``cover.label``, ``meta_info.ini``.

    The folder is that of one split, or the one above: then ``val`` is read, which can be scored
    here, else ``test``, of which the server alone knows more than the first box.
    """

    protocols = ("got10k",)
    results = "repeated"

    def read_folder(self, root: Path) -> list[Sequence]:
        split = next(
            (folder for folder in (root, root / "val", root / "test") if (folder / "list.txt").exists()), None
        )
        if split is None:
            raise UserError(
                f"{root}: has no list.txt, val/list.txt or test/list.txt; give GOT-10k's folder or that of a split"
            )
        names = read_bytes(split / "list.txt", "list of sequences").decode("utf-8", "replace").split()
        return [
            Sequence(
                name,
                frames=functools.partial(list_images, split / name),
                annotation=functools.partial(_annotation, split / name),
                size=functools.partial(_stated_size, split / name),
            )
            for name in names
        ]

    def complete(self, root: Path, name: str, annotation: Annotation) -> Annotation:
        folder = _folder(root, name)
        return annotation._replace(cover=_cover(folder, len(annotation.bbox))) if folder else annotation

    def stated_size(self, root: Path, name: str) -> tuple[int, int] | None:
        folder = _folder(root, name)
        return _stated_size(folder) if folder else None


def _folder(root: Path, name: str) -> Path | None:
    places = (root / "val" / name, root / name, root / "test" / name)
    return next((place for place in places if (place / "cover.label").exists()), None)


def _annotation(folder: Path) -> Annotation:
    bbox = read_table(folder / "groundtruth.txt", 4)
    return Annotation(bbox, cover=_cover(folder, len(bbox)) if (folder / "cover.label").exists() else None)


def _cover(folder: Path, frames: int):
    path = folder / "cover.label"
    cover = read_table(path, 1).reshape(-1).astype(int)
    if len(cover) != frames:
        raise UserError(f"{path}: {len(cover)} values for {frames} boxes; restore the file")
    return cover


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
