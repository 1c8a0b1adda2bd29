"""What all data sets are: videos with keys, frames in files, and boxes that are read when asked for.

A data set says where frames and boxes lie on disk. It samples nothing and keeps no pixels.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from config.console import say
from config.environment import dataset_dir, var_dir
from config.errors import UserError, nearest
from config.registry import Registry
from config.settings import Settings
from ltr.dataset.frame_index import index_frames

DATASETS = Registry("data set", "ltr.dataset")

_KEPT_ANNOTATIONS = 64


class Annotation(NamedTuple):
    """The boxes of one video of N frames, read-only."""

    bbox: np.ndarray
    """float64 ``[N, 4]``: x, y, w, h in pixels, as published; without meaning where not visible."""
    visible: np.ndarray
    """bool ``[N]``: the box is valid and the benchmark calls the target visible."""


class Video(NamedTuple):
    """Where one video lies."""

    key: str
    """Its name in sampling results: ``LaSOT_person-1``, ``GOT-10k_Train_000001``, ``TrackingNet_00_id``."""
    frames: str
    """Folder of its images."""
    labels: str
    """Folder or file of its annotation."""


class VideoDataset(ABC):
    """The videos of one split, immutable once made.

    The constructor lists folders and parses no annotation; it can be pickled to loader workers.

    Args:
        split: one of the data set's splits.
        root: folder of the benchmark.
        cache_dir: folder for the index of frames.

    Raises:
        UserError: a folder is missing, the split is unknown or holds no video.
    """

    name: ClassVar[str]
    splits: ClassVar[tuple[str, ...]]

    def __init__(self, split: str, root: Path, cache_dir: Path) -> None:
        self.split = self.canonical_split(split)
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(
                f"{self.root}: the folder of data set '{self.name}' is missing; mend its path in the settings"
            )
        self.listed = 0  # videos that the split names, present here or not; 0: it names none
        self.list_file: Path | None = None  # what names them, where that is a file of the benchmark
        self._videos = self._find_videos(Path(cache_dir))
        if not self._videos:
            listed = f" that {self.list_file} names" if self.list_file is not None else ""
            raise UserError(
                f"{self.root}: holds no video of {self.name}:{self.split}{listed}; check the path and the split"
            )
        digest = hashlib.sha256(f"{self.split}\0{self.root.resolve()}".encode()).hexdigest()[:12]
        cache_file = Path(cache_dir) / f"{self.name}_{digest}.json"
        self._frames = index_frames(
            [video.frames for video in self._videos], cache_file, f"{self.name}:{self.split}"
        )
        self._annotations: OrderedDict[int, Annotation] = OrderedDict()
        self.keys = [video.key for video in self._videos]

    @classmethod
    def canonical_split(cls, split: str) -> str:
        """The one spelling of ``split`` that names files; ``UserError`` for an unknown one."""
        if split not in cls.splits:
            raise UserError(f"unknown split '{split}' of {cls.name}: {nearest(split, cls.splits)}")
        return split

    @classmethod
    def split_parts(cls, split: str) -> list[str]:
        """The splits of which ``split`` is made, each with key frames of its own before they are merged."""
        return [cls.canonical_split(split)]

    def __len__(self) -> int:
        return len(self._videos)

    def num_frames(self, i: int) -> int:
        """Number of images of video ``i``."""
        return self._frames[i].length

    def frame_path(self, i: int, frame: int) -> str:
        """Path of the image of 0-based ``frame`` of video ``i``."""
        frames = self._frames[i]
        if not 0 <= frame < frames.length:
            raise IndexError(f"{self.keys[i]} has frames 0 to {frames.length - 1}, not {frame}")
        return f"{self._videos[i].frames}/{frames.name(frame)}"

    def annotation(self, i: int) -> Annotation:
        """Boxes and visibility of video ``i``, parsed on first use; the latest are kept.

        Raises:
            UserError: a missing or broken file, with the line where it breaks.
        """
        if i in self._annotations:
            self._annotations.move_to_end(i)
            return self._annotations[i]
        if not self.num_frames(i):
            raise UserError(f"{self._videos[i].frames}: holds no images; restore them or remove the video")
        annotation = self._read_annotation(self._videos[i], self.num_frames(i))
        for array in annotation:
            array.setflags(write=False)
        self._annotations[i] = annotation
        if len(self._annotations) > _KEPT_ANNOTATIONS:
            self._annotations.popitem(last=False)
        return annotation

    def human_labels(self, annotation: Annotation) -> np.ndarray:
        """Which boxes a person drew, as bool ``[N]``; here all."""
        return np.ones(len(annotation.bbox), dtype=bool)

    def unlabelled(self) -> list[str]:
        """Keys of the videos that have no annotation file; a benchmark annotates every video."""
        return []

    @abstractmethod
    def _find_videos(self, cache_dir: Path) -> list[Video]:
        """The videos of ``self.split`` in their order; listing folders is all it may cost."""

    @abstractmethod
    def _read_annotation(self, video: Video, count: int) -> Annotation:
        """Parse the annotation of a video of ``count`` frames."""


def open_dataset(name: str, split: str, root: Path, cache_dir: Path) -> VideoDataset:
    """The registered data set ``name``; ``UserError`` for an unknown name, split or a missing folder."""
    return DATASETS.get(name)(split, Path(root), Path(cache_dir))


def open_spec(spec: str, settings: Settings, aloud: bool = True) -> VideoDataset:
    """The data set ``"NAME:SPLIT"`` of ``data.datasets``, in the folder that the settings give it.

    Args:
        spec: the text.
        settings: ``paths`` is used.
        aloud: say so where videos are missing; of several processes one does.

    Raises:
        UserError: the spec is malformed, the name or split unknown, or the folder missing.
    """
    name, split = parse_spec(spec)
    dataset = open_dataset(
        name, split, dataset_dir(settings, "train", name), var_dir(settings, "cache", "index")
    )
    if aloud and dataset.listed > len(dataset):
        say(f"{spec}: {len(dataset)} of its {dataset.listed} videos are in {dataset.root}")
    return dataset


def parse_spec(spec: str) -> tuple[str, str]:
    """``"NAME:SPLIT"`` as ``(NAME, SPLIT)``, the name known and the split in its canonical spelling."""
    name, colon, split = spec.partition(":")
    if not colon or not split:
        raise UserError(f"data.datasets: '{spec}' is not NAME:SPLIT, like LaSOT:train or TrackingNet:0-3")
    return name, DATASETS.get(name).canonical_split(split)


def subfolders(folder: Path | str) -> list[str]:
    """Names of the folders in ``folder`` (links to folders too), unsorted, hidden ones left out.

    Raises:
        UserError: ``folder`` is missing or cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except OSError as error:
        raise UserError(
            f"{folder}: folder cannot be read ({error.strerror}); check the path of the data set"
        ) from error
