"""UAV123 (Mueller, Smith, Ghanem: A Benchmark and Simulator for UAV Tracking, ECCV 2016)."""

from __future__ import annotations

import functools
from pathlib import Path

from pysot_toolkit.datasets.base import (
    BENCHMARKS,
    Annotation,
    BenchmarkFormat,
    Sequence,
    frame_number,
    list_images,
)
from pysot_toolkit.datasets.text import read_table

# First frame of each part of the videos that the benchmark splits, 1-based, in order of the parts.
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

    def read_folder(self, root: Path) -> list[Sequence]:
        annotations, images = root / "anno" / "UAV123", root / "data_seq" / "UAV123"
        return [
            Sequence(
                path.stem,
                frames=functools.partial(_frames, images, path),
                annotation=functools.partial(_annotation, path),
            )
            for path in sorted(annotations.glob("*.txt"))
        ]

    def result_names(self, name: str) -> list[str]:
        """The name itself, then pytracking's."""
        return [name, f"uav_{name}"]


def _annotation(path: Path) -> Annotation:
    return Annotation(read_table(path, 4))


def _frames(images: Path, path: Path) -> list[str]:
    video, _, part = path.stem.rpartition("_")
    starts = _STARTS.get(video, ())
    if not part.isdecimal() or not 1 <= int(part) <= len(starts):
        return list_images(images / path.stem)
    first = starts[int(part) - 1]
    last = first + len(read_table(path, 4)) - 1
    return [frame for frame in list_images(images / video) if first <= frame_number(frame) <= last]
