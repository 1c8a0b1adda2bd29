"""Need for Speed at 30 and 240 frames per second (Galoogahi et al., ICCV 2017)."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from config.errors import UserError
from pysot_toolkit.datasets.base import BENCHMARKS, Annotation, BenchmarkFormat, Sequence, list_images

_RATIO = 8  # frames at 240 per second to one at 30


class NeedForSpeed(BenchmarkFormat):
    """``{name}/{rate}/{name}/*.jpg`` and ``{name}/{rate}/{name}.txt`` with lines
    ``id left top right bottom frame lost occluded generated "label"``.
    """

    rate = 240

    def read_folder(self, root: Path) -> list[Sequence]:
        return [
            Sequence(
                path.stem,
                frames=functools.partial(_frames, path),
                annotation=functools.partial(_annotation, path),
            )
            for path in sorted(root.glob(f"*/{self.rate}/*.txt"))
        ]

    def result_names(self, name: str) -> list[str]:
        """The name itself, then pytracking's."""
        return [name, f"nfs_{name}"]


@BENCHMARKS.register("NFS30")
class NFS30(NeedForSpeed):
    """Every eighth frame."""

    rate = 30


@BENCHMARKS.register("NFS240")
class NFS240(NeedForSpeed):
    """All frames."""


def _frames(path: Path) -> list[str]:
    frames = list_images(path.with_suffix(""))
    annotated = len(_annotation(path).bbox)
    return frames[:annotated] if len(frames) - annotated == 1 else frames  # some videos end one image later


def _annotation(path: Path) -> Annotation:
    """The boxes of the images in the folder; those of 30 frames per second are annotated at 240."""
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split()
        try:
            rows.append([float(word) for word in words[1:5]])
        except ValueError:
            raise UserError(
                f"{path}, line {number}: '{line[:40]}' is not 'id left top right bottom ...'; restore the file"
            ) from None
    boxes = np.array(rows).reshape(-1, 4)
    images = len(list_images(path.with_suffix("")))
    if abs(len(boxes) - _RATIO * images) <= _RATIO:
        boxes = boxes[::_RATIO]
    if len(boxes) - images == 1:
        boxes = boxes[:images]
    boxes[:, 2:] -= boxes[:, :2]
    return Annotation(boxes)
