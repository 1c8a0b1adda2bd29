"""What a benchmark is: sequences with frames, ground truth and attributes, and how they lie on disk."""

from __future__ import annotations

import functools
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from config.errors import UserError, nearest
from config.files import is_file_name, read_bytes
from config.registry import Registry

BENCHMARKS = Registry("benchmark", "pysot_toolkit.datasets")

_IMAGES = (".jpg", ".jpeg", ".png", ".bmp")


class Annotation(NamedTuple):
    """What a benchmark publishes on the frames of one sequence."""

    bbox: np.ndarray  # float64 [N, 4], (x, y, w, h) px; NaN where the target is absent
    present: np.ndarray | None = None  # bool [N], where the benchmark says so (LaSOT)
    cover: np.ndarray | None = None  # int [N], visible eighths of the target 0..8 (GOT-10k)
    polygon: np.ndarray | None = None  # float64 [N, 8], where the truth is no rectangle (VOT)
    tags: Mapping[str, np.ndarray] | None = None  # tag to int [N], 1 where the frame carries it (VOT)
    masks: tuple[
        Path, ...
    ] = ()  # per frame an 8-bit indexed PNG, object k where it is k (DAVIS, YouTube-VOS)


class Sequence:
    """One video of a benchmark. Nothing is read before it is asked for.

    Args:
        name: as in the benchmark's own lists and result files.
        frames: returns the image paths.
        annotation: returns the annotation.
        attributes: challenge labels of the whole sequence.
        size: returns the image (width, height) where a file states it; else the first image is read.
        extra_frames: the benchmark has more images than annotated frames (LaSOT's monkey-17);
            longer results are then right, and what is beyond the annotation is not scored.
    """

    def __init__(
        self,
        name: str,
        frames: Callable[[], list[str]],
        annotation: Callable[[], Annotation],
        attributes: list[str] | None = None,
        size: Callable[[], tuple[int, int] | None] | None = None,
        extra_frames: bool = False,
    ) -> None:
        self.name = name
        self.attributes = attributes or []
        self.extra_frames = extra_frames
        self._read_frames, self._read_annotation, self._read_size = frames, annotation, size

    @functools.cached_property
    def frames(self) -> list[str]:
        """Image paths in order.

        Raises:
            UserError: no images, or more or fewer than the annotation has frames.
        """
        frames = self._read_frames()
        annotated = len(self.ground_truth)
        fits = len(frames) >= annotated if self.extra_frames or annotated == 1 else len(frames) == annotated
        if not fits:
            where = os.path.dirname(frames[0]) if frames else "its list of images"
            raise UserError(
                f"sequence '{self.name}': {len(frames)} images but {annotated} annotated frames ({where});"
                " restore the images and the ground truth of this sequence"
            )
        return frames

    @functools.cached_property
    def annotation(self) -> Annotation:
        """Everything published on the frames; ``UserError`` naming the file if it is broken."""
        annotation = self._read_annotation()
        if not len(annotation.bbox):
            raise UserError(f"sequence '{self.name}': its annotation is empty; restore the file")
        return annotation

    @property
    def ground_truth(self) -> np.ndarray:
        """Boxes (x, y, w, h) in px, float64 ``[N, 4]``; NaN where absent.

        Sequences of a test server have the box of the first frame only.
        """
        return self.annotation.bbox

    @property
    def present(self) -> np.ndarray | None:
        """Frames in which the target can be seen, bool ``[N]``; None where the benchmark does not say."""
        return self.annotation.present

    @property
    def init_bbox(self) -> np.ndarray:
        """The box (x, y, w, h) the tracker starts from, float64 ``[4]``."""
        return self.ground_truth[0]

    @functools.cached_property
    def image_size(self) -> tuple[int, int]:
        """Image width and height in px."""
        stated = self._read_size() if self._read_size is not None else None
        if stated is not None:
            return stated
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(self.frames[0]) as header:  # decodes nothing
                    return header.size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(
                f"{self.frames[0]}: the first image of sequence '{self.name}' is missing or no image; restore the file"
            ) from error

    def __repr__(self) -> str:
        return f"Sequence({self.name!r})"


class BenchmarkFormat(ABC):
    """How one benchmark lies on disk and how its results are named and scored."""

    protocols: tuple[str, ...] = ("pysot-ope",)  # the first one ranks the trackers
    # How results lie in a tracker's folder: "boxes" {sequence}.txt; "repeated" {sequence}/{sequence}_001.txt;
    # "vot" baseline/{sequence}/{sequence}_001.txt; "votlt" longterm/...; "masks" {sequence}/00000.png.
    results: str = "boxes"
    nan_is_absent = (
        False  # rows of NaN mean that the target is not there (UAV123, VOT2018-LT); else they are damage
    )

    @abstractmethod
    def read_folder(self, root: Path) -> list[Sequence]:
        """The sequences found in the benchmark's own folder."""

    def result_names(self, name: str) -> list[str]:
        """File names (without ending) under which toolkits store results of sequence ``name``, best first."""
        return [name]

    def complete(self, root: Path, name: str, annotation: Annotation) -> Annotation:
        """Add to an annotation from a JSON file what only the benchmark's folder holds."""
        return annotation

    def stated_size(self, root: Path, name: str) -> tuple[int, int] | None:
        """Image width and height where a file of the benchmark states them."""
        return None

    def has_extra_frames(self, name: str) -> bool:
        """Whether sequence ``name`` is known to have more images than annotated frames."""
        return False


class Benchmark:
    """The sequences of one benchmark, in its own order."""

    def __init__(self, name: str, sequences: list[Sequence], layout: BenchmarkFormat, source: Path) -> None:
        self.name, self.sequences, self.layout = name, sequences, layout
        self.source = source  # the JSON file or the folder that was read
        self._by_name = {sequence.name: sequence for sequence in sequences}

    def __len__(self) -> int:
        return len(self.sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self.sequences)

    def __getitem__(self, name: str) -> Sequence:
        if name not in self._by_name:
            raise UserError(f"{self.name} has no sequence '{name}': {nearest(name, self._by_name)}")
        return self._by_name[name]

    def attributes(self) -> dict[str, list[str]]:
        """Attribute to the names of the sequences that carry it, sorted by attribute."""
        table: dict[str, list[str]] = {}
        for sequence in self.sequences:
            for attribute in sequence.attributes:
                table.setdefault(attribute, []).append(sequence.name)
        return dict(sorted(table.items()))


def check_names(sequences: list[Sequence], source: Path) -> None:
    """Refuse names of sequences that cannot name a result file: those that lead elsewhere, or none.

    Raises:
        UserError: naming ``source``, where they are written.
    """
    for sequence in sequences:
        if not is_file_name(sequence.name):
            raise UserError(
                f"{source}: sequence '{sequence.name[:60]}': its name cannot name a file; restore {source.name}"
            )


def listed_folders(path: Path) -> list[Path]:
    """The folders that a text file names, one per line, all of them beside the file.

    Raises:
        UserError: unreadable, or one of the folders is missing.
    """
    names = read_bytes(path, "list of sequences").decode("utf-8", "replace").split()
    folders = [path.parent / name for name in names]
    missing = [
        folder for name, folder in zip(names, folders) if not is_file_name(name) or not os.path.isdir(folder)
    ]
    if missing:
        raise UserError(
            f"{path}: lists '{missing[0].name[:60]}' ({len(missing)} in all), which is not beside it; restore it"
        )
    return folders


def list_folders(folder: Path) -> list[Path]:
    """The folders in ``folder``, sorted by name."""
    return sorted(
        Path(entry.path) for entry in _entries(folder) if entry.is_dir() and not entry.name.startswith(".")
    )


def list_images(folder: Path, span: tuple[int, int] | None = None) -> list[str]:
    """Paths of the images in ``folder``, by frame number where names are numbers, else by name.

    Args:
        folder: of one video.
        span: only the images with these frame numbers, first and last included.

    Raises:
        UserError: no such folder, or no such images in it.
    """
    names = [entry.name for entry in _entries(folder) if entry.name.lower().endswith(_IMAGES)]
    if not names:
        raise UserError(f"{folder}: holds no images; restore the folder")
    numbered = all(os.path.splitext(name)[0].isdecimal() for name in names)
    if span is not None:
        names = [name for name in names if numbered and span[0] <= frame_number(name) <= span[1]]
        if not names:
            raise UserError(
                f"{folder}: holds no images numbered {span[0]} to {span[1]}, which are the benchmark's part of"
                " this video; restore the folder"
            )
    names.sort(key=frame_number if numbered else None)
    return [f"{folder}/{name}" for name in names]


def frame_number(path: str) -> int:
    """``".../0300.jpg"`` -> 300."""
    return int(os.path.splitext(os.path.basename(path))[0])


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{folder}: cannot be read ({reason}); restore the folder") from error
