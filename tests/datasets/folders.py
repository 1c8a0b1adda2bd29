"""A small video of each benchmark in the benchmark's own layout: what the readers are tested on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from config.environment import load_settings
from pysot_toolkit.datasets import Benchmark, open_benchmark

FRAMES = 5
_PICTURE = cv2.imencode(".jpg", np.full((6, 8, 3), 90, np.uint8))[1].tobytes()  # 8 x 6 px


class Video(NamedTuple):
    """Where the parts of the one video lie."""

    name: str
    truth: Path
    images: Path
    listed: Path | None = None  # the list of sequences, where the benchmark has one
    row: str = "{0},{1},{2},{3}"  # a line of ``truth``

    def line(self, *numbers: float) -> str:
        return self.row.format(*numbers) + "\n"


def opened(name: str, root: Path, seq_files: Path | None = None) -> Benchmark:
    pairs = [f"paths.test.{name}", str(root)]
    return open_benchmark(
        name, load_settings([*pairs, "paths.seq_files", str(seq_files) if seq_files else ""])
    )


def images(folder: Path, numbers: Iterable[int], pattern: str = "{:04d}.jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / pattern.format(number)).write_bytes(_PICTURE)


def boxes(path: Path, count: int, separator: str = ",", first: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{separator.join(map(str, (first + k, 2, 30, 40)))}\n" for k in range(count)))


def _otb(root: Path) -> Video:
    video = Video("Car4", root / "Car4" / "groundtruth_rect.txt", root / "Car4" / "img")
    images(video.images, range(1, FRAMES + 1))
    return video


def _tc128(root: Path) -> Video:
    folder = root / "Airport_ce"
    images(folder / "img", range(1, FRAMES + 1))
    (folder / "Airport_ce_frames.txt").write_text(f"1,{FRAMES}\n")
    return Video("Airport_ce", folder / "Airport_ce_gt.txt", folder / "img")


def _uav(version: str, pictures: str = ""):
    def build(root: Path) -> Video:
        video = Video(
            "boat1",
            root / "anno" / version / "boat1.txt",
            root / "data_seq" / (pictures or version) / "boat1",
        )
        images(video.images, range(1, FRAMES + 1), "{:06d}.jpg")
        return video

    return build


def _nfs(rate: int):
    def build(root: Path) -> Video:
        folder = root / "yoyo" / str(rate)
        images(folder / "yoyo", range(1, FRAMES + 1), "{:05d}.jpg")
        return Video("yoyo", folder / "yoyo.txt", folder / "yoyo", None, '0 {0} {1} {2} {3} 1 0 0 0 "yo yo"')

    return build


def _lasot(name: str):
    def build(root: Path) -> Video:
        folder = root / name.partition("-")[0] / name
        images(folder / "img", range(1, FRAMES + 1), "{:08d}.jpg")
        for flags in ("full_occlusion.txt", "out_of_view.txt"):
            (folder / flags).write_text(",".join("0" * 2 * FRAMES) + "\n")
        return Video(name, folder / "groundtruth.txt", folder / "img")

    return build


def _trackingnet(root: Path) -> Video:
    images(root / "TEST" / "frames" / "abc_0", range(FRAMES), "{}.jpg")
    return Video("abc_0", root / "TEST" / "anno" / "abc_0.txt", root / "TEST" / "frames" / "abc_0")


def _got10k(split: str):
    def build(root: Path) -> Video:
        name = f"GOT-10k_{split.title()}_000001"
        images(root / split / name, range(1, FRAMES + 1), "{:08d}.jpg")
        (root / split / "list.txt").write_text(f"{name}\n")
        folder = root / split / name
        return Video(name, folder / "groundtruth.txt", folder, root / split / "list.txt")

    return build


def _vot(pictures: str, row: str = "{0},{1},{2},{1},{2},{3},{0},{3}"):
    def build(root: Path) -> Video:
        images(root / "bag" / pictures, range(1, FRAMES + 1), "{:08d}.jpg")
        (root / "list.txt").write_text("bag\n")
        return Video("bag", root / "bag" / "groundtruth.txt", root / "bag" / pictures, root / "list.txt", row)

    return build


VIDEOS = {
    "OTB100": _otb,
    "OTB2015": _otb,
    "OTB50": _otb,
    "OTB2013": _otb,
    "TC128": _tc128,
    "UAV123": _uav("UAV123"),
    "UAV123_10fps": _uav("UAV123_10fps"),
    "UAV10fps": _uav("UAV123_10fps"),
    "UAV20L": _uav("UAV20L", "UAV123"),
    "NFS30": _nfs(30),
    "NFS240": _nfs(240),
    "LaSOT": _lasot("person-1"),
    "LaSOT_extension_subset": _lasot("atv-10"),
    "TrackingNet": _trackingnet,
    "GOT-10k": _got10k("val"),
    "GOT-10k_val": _got10k("val"),
    "GOT-10k_test": _got10k("test"),
    "VOT2016": _vot("."),
    "VOT2017": _vot("."),
    "VOT2018": _vot("color"),
    "VOT2019": _vot("color"),
    "VOT2018-LT": _vot("color", "{0},{1},{2},{3}"),
}


def video_of(name: str, root: Path) -> Video:
    """One video of benchmark ``name`` with ``FRAMES`` images and as many lines of ground truth, whole and right."""
    video = VIDEOS[name](root)
    video.truth.parent.mkdir(parents=True, exist_ok=True)
    video.truth.write_text("".join(video.line(k + 1, 2, k + 31, 42) for k in range(FRAMES)))
    return video
