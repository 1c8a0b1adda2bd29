"""OTB: of 2013 (Wu, Lim, Yang: Online Object Tracking, CVPR 2013), OTB50 and OTB100 (TPAMI 2015).

The three share their videos, so one folder serves all. ``specs/otb.json`` has the members of the smaller two and
the attributes of each sequence, as the benchmark's site lists them (http://cvlab.hanyang.ac.kr/tracker_benchmark).
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from config.files import read_json
from pysot_toolkit.datasets.base import (
    BENCHMARKS,
    Annotation,
    BenchmarkFormat,
    Sequence,
    list_folders,
    list_images,
)
from pysot_toolkit.datasets.text import read_boxes

_SPECS = Path(__file__).parent / "specs" / "otb.json"

# First and last frame number where only a part of the video belongs to the benchmark: the site's notes on David,
# Football1, Freeman3, Freeman4 and Diving; the others after pytracking's list of sequences.
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
_UNUSED = {"Human4-1"}  # its file is there (empty in some copies), but no sequence of the benchmark
_LOWER = {"FaceOcc1", "FaceOcc2", "FleetFace"}  # written all in lower case in results published with pysot


@BENCHMARKS.register("OTB100")
@BENCHMARKS.register("OTB2015")
class OTB100(BenchmarkFormat):
    """``{name}/img/*.jpg`` and ``{name}/groundtruth_rect.txt``, or ``groundtruth_rect.{k}.txt`` per target."""

    protocols = ("pysot-ope", "pytracking")
    members = ""  # the list in specs/otb.json; all videos in the folder if empty

    def read_folder(self, root: Path) -> list[Sequence]:
        specs = _specs()
        members = specs[self.members] if self.members else None
        sequences = []
        for folder in list_folders(root):
            for path in sorted(folder.glob("groundtruth_rect*.txt")):
                target = re.fullmatch(r"groundtruth_rect(?:\.(\d+))?\.txt", path.name)
                name = f"{folder.name}-{target[1]}" if target and target[1] else folder.name
                if target and name not in _UNUSED and (members is None or name in members):
                    labels = [specs["labels"][label] for label in specs["attributes"].get(name, "").split()]
                    sequences.append(_sequence(name, folder, path, labels))
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


@BENCHMARKS.register("OTB50")
class OTB50(OTB100):
    """``{name}/img/*.jpg`` and ``{name}/groundtruth_rect.txt`` of the 50 harder sequences of OTB100.

    TB-50 in the paper.
    """

    members = "OTB50"


@BENCHMARKS.register("OTB2013")
class OTB2013(OTB100):
    """``{name}/img/*.jpg`` and ``{name}/groundtruth_rect.txt`` of 50 videos of OTB100, with 51 targets.

    Papers before 2015 call it OTB50, others CVPR13.
    """

    members = "OTB2013"


@functools.cache
def _specs() -> dict[str, Any]:
    return read_json(_SPECS, "list of OTB's sequences")


def _sequence(name: str, folder: Path, path: Path, labels: list[str]) -> Sequence:
    span = _RANGES.get(folder.name)
    return Sequence(
        name,
        frames=functools.partial(list_images, folder / "img", span),
        annotation=functools.partial(_annotation, path, span),
        attributes=labels,
    )


def _annotation(path: Path, span: tuple[int, int] | None) -> Annotation:
    bbox = read_boxes(path)
    if span is not None and len(bbox) == span[1]:  # the whole video is annotated, such as Tiger1
        bbox = bbox[span[0] - 1 :]
    return Annotation(bbox)
