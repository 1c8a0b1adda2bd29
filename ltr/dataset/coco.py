"""COCO: Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014; image pairs for trackers."""

from __future__ import annotations

import hashlib
import os
import struct
import tokenize
import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from zipfile import BadZipFile

import numpy as np
import orjson

from config.console import say, warn
from config.errors import UserError, nearest
from config.files import atomic_writer, refuse_newer
from ltr.dataset.base import DATASETS, Annotation

_VERSION = 1


@DATASETS.register("COCO")
class MSCOCOSeq:
    """``annotations/instances_{split}.json`` and ``images/{split}/`` (or ``{split}/``).

    Each annotated object is a video of one frame, as in LTR: a tracker sees it in different crops. Groups of
    objects (``iscrowd``) and boxes without a size are left out, and so are images that are not in the folder.

    It speaks the language of ``VideoDataset``. The annotation file, of hundreds of megabytes, is parsed once;
    its boxes are kept in the cache until the file changes.

    Args:
        split: ``train2017``, ``val2017``, ``train2014`` or ``val2014``.
        root: folder of the benchmark.
        cache_dir: folder for the parsed annotation.

    Raises:
        UserError: a folder or the annotation file is missing or broken, or no object is left.
    """

    name: ClassVar[str] = "COCO"
    splits: ClassVar[tuple[str, ...]] = ("train2017", "val2017", "train2014", "val2014")

    def __init__(self, split: str, root: Path, cache_dir: Path) -> None:
        self.split = self.canonical_split(split)
        self.root = Path(root)
        candidates = self.root / "images" / self.split, self.root / self.split
        self._images = str(next((path for path in candidates if path.is_dir()), candidates[0]))
        try:
            present = set(os.listdir(self._images))
        except OSError as error:
            raise UserError(
                f"{self._images}: the images of COCO:{self.split} cannot be read ({error.strerror}); "
                "check the path of the data set"
            ) from error
        path = self.root / "annotations" / f"instances_{self.split}.json"
        objects = _objects(path, Path(cache_dir))
        self.listed = len(objects["id"])
        here = np.isin(objects["names"], list(present))[objects["image"]]
        self._names = objects["names"]
        self._ids, self._image, self._bbox = (objects[key][here] for key in ("id", "image", "bbox"))
        if not len(self):
            raise UserError(
                f"{self._images}: holds no image with an object of {path}; check the path, or download it again"
            )

    @classmethod
    def canonical_split(cls, split: str) -> str:
        """``split`` itself; ``UserError`` for an unknown one."""
        if split not in cls.splits:
            raise UserError(f"unknown split '{split}' of {cls.name}: {nearest(split, cls.splits)}")
        return split

    @classmethod
    def split_parts(cls, split: str) -> list[str]:
        """The split alone."""
        return [cls.canonical_split(split)]

    @cached_property
    def keys(self) -> list[str]:
        """Names of the objects: ``COCO_train2017_{annotation id}``."""
        return [f"COCO_{self.split}_{number}" for number in self._ids.tolist()]

    def __len__(self) -> int:
        return len(self._ids)

    def num_frames(self, i: int) -> int:
        """One, the image of object ``i``."""
        return 1

    def frame_path(self, i: int, frame: int) -> str:
        """Path of the image of object ``i``; ``frame`` is 0."""
        if frame:
            raise IndexError(f"COCO_{self.split}_{self._ids[i]} has frame 0 only, not {frame}")
        return f"{self._images}/{self._names[self._image[i]]}"

    def annotation(self, i: int) -> Annotation:
        """The box of object ``i``."""
        annotation = Annotation(self._bbox[i : i + 1].copy(), np.ones(1, dtype=bool))
        for array in annotation:
            array.setflags(write=False)
        return annotation

    def human_labels(self, annotation: Annotation) -> np.ndarray:
        """Which boxes a person drew: all."""
        return np.ones(len(annotation.bbox), dtype=bool)

    def unlabelled(self) -> list[str]:
        """Keys of objects without an annotation: none."""
        return []


def _objects(path: Path, cache_dir: Path) -> dict[str, np.ndarray]:
    """What is needed of an annotation file of N objects in M images, from the cache where it is fresh.

    Returns:
        ``id`` int64 [N] of the annotations, ``image`` int64 [N] index into ``names`` [M], ``bbox`` float64 [N, 4].
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(
            f"{path}: annotation cannot be read ({error.strerror}); restore it or check the path of the data set"
        ) from error
    stamp = np.array([_VERSION, status.st_mtime_ns, status.st_size])
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    cache = cache_dir / f"COCO_{path.stem}_{digest}.npz"
    try:
        held = _cached(cache)
    except (
        OSError,
        ValueError,
        LookupError,
        EOFError,
        RuntimeError,
        SyntaxError,
        MemoryError,
        OverflowError,
        tokenize.TokenError,
        BadZipFile,
        zlib.error,
        struct.error,
    ):
        held = {}  # not there, or not ours: made anew
    if held:
        refuse_newer(
            cache, int(held["stamp"][0]), _VERSION, "cache", ", or remove this file: it is made anew"
        )
        if np.array_equal(held["stamp"], stamp):
            return held
    say(f"{path}: reading the annotation once")
    objects = _parse(path)
    try:
        with atomic_writer(cache) as file:
            ids, image, names, bbox = (objects[name] for name in ("id", "image", "names", "bbox"))
            np.savez(file, stamp=stamp, id=ids, image=image, names=names, bbox=bbox)
    except UserError as error:
        warn(f"the parsed annotation is not kept: {error}")
    return objects


def _cached(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a cache file; one of numpy's or zipfile's errors where it holds something else."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # ``np.savez`` does not compress: a file that unpacks to more than it has could unpack to anything.
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("is no cache of ours")
    with np.load(path) as file:
        held = {name: file[name] for name in ("stamp", "id", "image", "names", "bbox")}
    if not all(isinstance(array, np.ndarray) and array.ndim for array in held.values()):
        raise ValueError("is no cache of ours")  # numpy hands out as bytes what has no header of its own
    count = len(held["id"])
    shapes = [held[name].shape for name in ("stamp", "id", "image", "bbox")]
    kinds = [held[name].dtype.kind for name in ("stamp", "id", "image", "names", "bbox")]
    image = held["image"]
    if shapes != [(3,), (count,), (count,), (count, 4)] or kinds != ["i", "i", "i", "U", "f"]:
        raise ValueError("is no cache of ours")
    if held["names"].ndim != 1 or (count and not 0 <= image.min() <= image.max() < len(held["names"])):
        raise ValueError("is no cache of ours")
    return held


def _parse(path: Path) -> dict[str, np.ndarray]:
    try:
        content: Any = orjson.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: annotation cannot be read ({error.strerror}); restore it") from error
    except ValueError as error:
        raise UserError(f"{path}: is no JSON file ({error}); download it again") from error
    try:
        place = {image["id"]: number for number, image in enumerate(content["images"])}
        names = np.array([image["file_name"] for image in content["images"]], dtype=np.str_)
        single = [item for item in content["annotations"] if not item["iscrowd"]]
        ids = np.array([item["id"] for item in single], np.int64)
        image = np.array([place[item["image_id"]] for item in single], np.int64)
        bbox = np.array([item["bbox"] for item in single], np.float64).reshape(len(single), 4)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{path}: is no annotation of COCO's objects ({type(error).__name__}: {error}); download it again"
        ) from error
    sized = np.isfinite(bbox).all(1) & (bbox[:, 2:] > 0).all(1)
    return {"id": ids[sized], "image": image[sized], "names": names, "bbox": bbox[sized]}
