"""UAV123, its subset UAV20L of long videos, and UAV123 at 10 frames per second (Mueller et al., ECCV 2016).

A row of NaN in the ground truth: the target is fully occluded or out of the picture (the benchmark's read-me).
"""

from __future__ import annotations

import functools
from pathlib import Path

from config.errors import UserError
from pysot_toolkit.datasets.base import BENCHMARKS, Annotation, BenchmarkFormat, Sequence, list_images
from pysot_toolkit.datasets.text import read_boxes

# First frame of each part of the videos that the benchmark splits, counted from 1, in order of the parts, at
# 30 frames per second: the benchmark's configSeqs.m. Parts share a frame, or leave some out (bird1, uav1).
_STARTS = {
    "bird1": (1, 775, 1573),
    "car1": (1, 751, 1627),
    "car6": (1, 487, 1807, 2953, 3925),
    "car8": (1, 1357),
    "car16": (1, 415),
    "group1": (1, 1333, 2515, 3925),
    "group2": (1, 907, 1771),
    "group3": (1, 1567, 2827, 4369),
    "person2": (1, 1189),
    "person4": (1, 1501),
    "person5": (1, 877),
    "person7": (1, 1249),
    "person8": (1, 1075),
    "person12": (1, 601),
    "person14": (1, 847, 1813),
    "person17": (1, 1501),
    "person19": (1, 1243, 2791),
    "truck4": (1, 577),
    "uav1": (1, 1555, 2473),
}


@BENCHMARKS.register("UAV123")
class UAV123(BenchmarkFormat):
    """``data_seq/UAV123/{video}/*.jpg`` and ``anno/UAV123/{name}.txt``; long videos are split into parts."""

    protocols = ("pysot-ope", "pytracking")
    version = "UAV123"  # of the folders below anno and data_seq
    every = 1  # frames at 30 per second to one image
    nan_is_absent = True

    def read_folder(self, root: Path) -> list[Sequence]:
        annotations, images = root / "anno" / self.version, self.images(root)
        if not annotations.is_dir():
            raise UserError(
                f"{annotations}: is missing; give the folder that holds anno and data_seq, or restore it"
            )
        return [
            Sequence(
                path.stem,
                frames=functools.partial(_frames, images, path, self.every),
                annotation=functools.partial(_annotation, path),
            )
            for path in sorted(annotations.glob("*.txt"))
        ]

    def images(self, root: Path) -> Path:
        """The folder of the videos' folders."""
        return root / "data_seq" / self.version

    def result_names(self, name: str) -> list[str]:
        """The name itself, then pytracking's."""
        return [name, f"uav_{name}"]


@BENCHMARKS.register("UAV123_10fps")
@BENCHMARKS.register("UAV10fps")
class UAV123At10(UAV123):
    """``data_seq/UAV123_10fps/{video}/*.jpg`` and ``anno/UAV123_10fps/{name}.txt``: every third frame of UAV123.

    Its configSeqs.m has a part begin at image (s - 1) / 3 + 1 where UAV123's begins at s.
    """

    version = "UAV123_10fps"
    every = 3


@BENCHMARKS.register("UAV20L")
class UAV20L(UAV123):
    """``data_seq/UAV123/{video}/*.jpg`` (or ``data_seq/UAV20L``) and ``anno/UAV20L/{video}.txt``, videos whole."""

    version = "UAV20L"

    def images(self, root: Path) -> Path:
        """It shares UAV123's images; some copies have its own."""
        own = root / "data_seq" / "UAV20L"
        return own if own.is_dir() else root / "data_seq" / "UAV123"


def _annotation(path: Path) -> Annotation:
    return Annotation(read_boxes(path, nan_is_absent=True))


def _frames(images: Path, path: Path, every: int) -> list[str]:
    video, _, part = path.stem.rpartition("_")
    starts = _STARTS.get(video, ())
    if not part.isdecimal() or not 1 <= int(part) <= len(starts):
        return list_images(images / path.stem)
    first = (starts[int(part) - 1] - 1) // every + 1
    return list_images(images / video, (first, first + len(read_boxes(path, nan_is_absent=True)) - 1))
