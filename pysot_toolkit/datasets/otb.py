"""OTB100 (Wu, Lim, Yang: Object Tracking Benchmark, TPAMI 2015)."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from config.errors import UserError
from pysot_toolkit.datasets.base import (
    BENCHMARKS,
    Annotation,
    BenchmarkFormat,
    Sequence,
    frame_number,
    list_folders,
    list_images,
)
from pysot_toolkit.datasets.text import read_table

# First and last frame number where only a part of the video belongs to the benchmark.
_RANGES = {
    "BlurCar1": (247, 988),
    "BlurCar3": (3, 359),
    "BlurCar4": (18, 397),
    "David": (300, 770),
    "Diving": (1, 215),
    "Football1": (1, 74),
    "Freeman3": (1, 460),
    "Freeman4": (1, 283),
    "Tiger1": (6, 354),
}
_UNUSED = {"Human4-1"}  # annotated, but no sequence of the benchmark
_LOWER = {"FaceOcc1", "FaceOcc2", "FleetFace"}  # written all in lower case in published results


@BENCHMARKS.register("OTB100")
class OTB100(BenchmarkFormat):
    """``{name}/img/*.jpg`` and ``{name}/groundtruth_rect.txt``, or ``groundtruth_rect.{k}.txt`` per target."""

    def read_folder(self, root: Path) -> list[Sequence]:
        sequences = []
        for folder in list_folders(root):
            for path in sorted(folder.glob("groundtruth_rect*.txt")):
                target = re.fullmatch(r"groundtruth_rect(?:\.(\d+))?\.txt", path.name)
                name = f"{folder.name}-{target[1]}" if target and target[1] else folder.name
                if target and name not in _UNUSED:
                    sequences.append(_sequence(name, folder, path))
        return sequences

    def result_names(self, name: str) -> list[str]:
        """The name itself, then the ways pysot, pytracking and got10k write it."""
        base, dash, target = name.partition("-")
        names = [name, name[0].lower() + name[1:]]
        if dash:
            names += [f"{base[0].lower()}{base[1:]}_{target}", f"{base}_{target}", f"{base}.{target}"]
        if name == "Human4-2":
            names.append("Human4")
        if name in _LOWER:
            names.append(name.lower())
        return names


def _sequence(name: str, folder: Path, path: Path) -> Sequence:
    span = _RANGES.get(folder.name)
    return Sequence(
        name, functools.partial(_frames, folder / "img", span), functools.partial(_annotation, path, span)
    )


def _frames(folder: Path, span: tuple[int, int] | None) -> list[str]:
    frames = list_images(folder)
    if span is None:
        return frames
    kept = [frame for frame in frames if span[0] <= frame_number(frame) <= span[1]]
    if not kept:
        raise UserError(
            f"{folder}: has no images numbered {span[0]} to {span[1]}, the benchmark's part of this video"
        )
    return kept


def _annotation(path: Path, span: tuple[int, int] | None) -> Annotation:
    bbox = read_table(path, 4)
    if span is not None and len(bbox) == span[1]:  # the whole video is annotated, such as Tiger1
        bbox = bbox[span[0] - 1 :]
    return Annotation(bbox)
