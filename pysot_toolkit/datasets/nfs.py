"""Need for Speed at 30 and 240 frames per second (Galoogahi et al., ICCV 2017)."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np

from config.errors import UserError
from config.files import read_bytes
from pysot_toolkit.datasets.base import BENCHMARKS, Annotation, BenchmarkFormat, Sequence, list_images
from pysot_toolkit.datasets.text import finite_rows, parse_table, read_boxes

_RATIO = 8  # frames at 240 per second to one at 30
_FIELDS = re.compile(rb"^[ \t]*((?:\S+[ \t]+){4}\S+)[^\n]*", re.MULTILINE)  # the first five of a line
_PREFIX = "nfs_"  # of annotations and results in pytracking


class NeedForSpeed(BenchmarkFormat):
    """``{name}/{rate}/{name}/*.jpg`` and ``{name}/{rate}/{name}.txt`` with lines
    ``id left top right bottom frame lost occluded generated "label"``.

    Some videos of 30 frames per second are annotated at 240, and some annotations and videos end one frame before
    the other (the reader of got10k's toolkit).
    """

    protocols = ("pysot-ope", "pytracking")
    rate = 240

    def read_folder(self, root: Path) -> list[Sequence]:
        return [
            Sequence(
                path.stem,
                frames=functools.partial(_frames, path.with_suffix(""), functools.partial(_corners, path)),
                annotation=functools.partial(_annotation, functools.partial(_corners, path)),
            )
            for path in sorted(root.glob(f"*/{self.rate}/*.txt"))
        ]

    def result_names(self, name: str) -> list[str]:
        """The name itself, then pytracking's."""
        return [name, f"{_PREFIX}{name}"]


@BENCHMARKS.register("NFS30")
class NFS30(NeedForSpeed):
    """``{name}/30/{name}/*.jpg`` and ``{name}/30/{name}.txt``; or pytracking's ``sequences/{name}/*.jpg`` and
    ``anno/nfs_{name}.txt`` with x, y, w, h.
    """

    rate = 30

    def read_folder(self, root: Path) -> list[Sequence]:
        paths = sorted((root / "anno").glob(f"{_PREFIX}*.txt"))
        return [_repacked(root, path) for path in paths] or super().read_folder(root)


@BENCHMARKS.register("NFS240")
class NFS240(NeedForSpeed):
    """``{name}/240/{name}/*.jpg`` and ``{name}/240/{name}.txt``."""


def _repacked(root: Path, path: Path) -> Sequence:
    name = path.stem.removeprefix(_PREFIX)
    boxes = functools.partial(read_boxes, path)
    return Sequence(
        name,
        frames=functools.partial(_frames, root / "sequences" / name, boxes),
        annotation=functools.partial(_annotation, boxes),
    )


def _frames(images: Path, boxes: functools.partial[np.ndarray]) -> list[str]:
    frames = list_images(images)
    annotated = len(boxes())
    return frames[:annotated] if len(frames) - annotated == 1 else frames


def _annotation(boxes: functools.partial[np.ndarray]) -> Annotation:
    return Annotation(boxes())


def _corners(path: Path) -> np.ndarray:
    """The boxes (x, y, w, h) of the images in the folder beside the file."""
    try:
        table = parse_table(_FIELDS.sub(rb"\1", read_bytes(path, "annotation")))
    except ValueError as error:
        raise UserError(f"{path}: {error}; restore the file") from error
    if table.shape[1] != 5:
        raise UserError(f"{path}: is not 'id left top right bottom ...' on each line; restore the file")
    boxes = finite_rows(path, table[:, 1:])
    images = len(list_images(path.with_suffix("")))
    if abs(len(boxes) - _RATIO * images) < images:
        boxes = boxes[::_RATIO]
    if len(boxes) - images == 1:
        boxes = boxes[:images]
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
