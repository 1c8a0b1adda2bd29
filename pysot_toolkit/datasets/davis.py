"""DAVIS 2016 (Perazzi et al., CVPR 2016) and DAVIS 2017 (Pont-Tuset et al., arXiv 1704.00675), 480p.

Quirks:

* DAVIS 2016 has one object per video. Read from the package of 2017, which splits it into parts,
  the parts count as one; its own package has masks of 0 and 255 (davis-2017, ``DAVISLoader`` with
  ``single_object``).
* The package of 2016 lists pairs of paths in ``ImageSets/480p/val.txt``, that of 2017 names of
  videos in ``ImageSets/2016/val.txt`` (STCN and XMem read 2016 by the list of 2017 for that reason).
* Of test-dev and test-challenge the first mask alone is public (davischallenge.org).
* 255 in a mask of 2017 is void and counts as background (davis2017-evaluation, ``_get_all_elements``).
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from config.errors import UserError
from config.files import read_bytes
from pysot_toolkit.datasets.base import BENCHMARKS, Annotation, BenchmarkFormat, Sequence, list_images
from pysot_toolkit.datasets.masks import annotated_size, first_box, list_masks, read_annotation

SINGLE_OBJECT = frozenset({"DAVIS2016"})  # benchmarks whose objects all count as one


class _Davis(BenchmarkFormat):
    name: str
    lists: tuple[str, ...]  # of videos, the first that exists is read
    protocols = ("davis",)
    results = "masks"

    def read_folder(self, root: Path) -> list[Sequence]:
        videos = next((root / "ImageSets" / path for path in self.lists if _is_file(root, path)), None)
        if videos is None:
            wanted = " or ".join(f"ImageSets/{path}" for path in self.lists)
            raise UserError(f"{root}: has no {wanted}; give the folder of {self.name}")
        public = videos.stem == "val"
        return [self._sequence(root, name, public) for name in _names(videos)]

    def _sequence(self, root: Path, name: str, public: bool) -> Sequence:
        images, masks = (root / kind / "480p" / name for kind in ("JPEGImages", "Annotations"))
        return Sequence(
            name,
            frames=functools.partial(list_images, images),
            annotation=functools.partial(_annotation, images, masks, self.name in SINGLE_OBJECT, public),
            size=functools.partial(annotated_size, masks),
        )


@BENCHMARKS.register("DAVIS2016")
class Davis2016(_Davis):
    """``JPEGImages/480p/{name}``, ``Annotations/480p/{name}`` and ``ImageSets/2016/val.txt``.

    In the package of 2016 the list is ``ImageSets/480p/val.txt``.
    """

    name = "DAVIS2016"
    lists = ("2016/val.txt", "480p/val.txt")


@BENCHMARKS.register("DAVIS2017")
class Davis2017(_Davis):
    """``JPEGImages/480p/{name}``, ``Annotations/480p/{name}`` and ``ImageSets/2017/val.txt``.

    The test packages have ``test-dev.txt`` or ``test-challenge.txt`` instead.
    """

    name = "DAVIS2017"
    lists = ("2017/val.txt", "2017/test-dev.txt", "2017/test-challenge.txt")


def _is_file(root: Path, path: str) -> bool:
    return (root / "ImageSets" / path).is_file()


def _names(path: Path) -> list[str]:
    """Names of videos in the order of a list, which has a name or the path of an image first in each line."""
    lines = read_bytes(path, "list of videos").decode("utf-8", "replace").splitlines()
    words = [Path(line.split()[0]) for line in lines if line.strip()]
    return list(dict.fromkeys(word.parent.name if word.suffix else word.name for word in words))


def _annotation(images: Path, folder: Path, single_object: bool, public: bool) -> Annotation:
    """The masks, and the box of the first.

    Boxes of all frames would mean decoding every mask before the first frame is tracked.
    """
    masks = list_masks(folder)
    if public and images.is_dir():  # the score needs the masks alone
        _refuse_gaps(list_images(images), masks, folder)
    box = first_box(read_annotation(masks[0], single_object))
    if np.isnan(box).any():
        raise UserError(f"{masks[0]}: shows no object; restore the file")
    return Annotation(box[None], masks=tuple(masks))


def _refuse_gaps(images: list[str], masks: list[Path], folder: Path) -> None:
    frames, annotated = {Path(image).stem for image in images}, {mask.stem for mask in masks}
    if frames != annotated:
        odd = min(frames ^ annotated)
        wrong = f"no mask {odd}.png" if odd in frames else f"{odd}.png is the mask of no image"
        raise UserError(f"{folder}: {wrong}; restore the missing files")
