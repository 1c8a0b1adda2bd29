"""YouTube-VOS 2018 and 2019 (Xu et al., ECCV 2018): the splits train, valid and test.

Quirks:

* Every fifth frame of a video is annotated and needs a result, named by its number in the video:
  00000, 00005, 00010, ... Methods that saw all frames write more masks, which are not scored.
* Objects appear later. In valid and test only the masks in which one appears are public, the rest
  is on the server; in train all are.
* Videos of valid may have images before the first annotated one (authors of methods remove them
  first): no tracker can start there, so they are left out.
* ``meta.json`` names a first frame of each object that is too early for six objects of train (those
  pytracking's reader corrects), so the masks say when an object appears, not this file.
"""

from __future__ import annotations

import functools
from pathlib import Path

from config.errors import UserError
from config.files import read_json
from pysot_toolkit.datasets.base import (
    BENCHMARKS,
    Annotation,
    BenchmarkFormat,
    Sequence,
    frame_number,
    list_images,
)
from pysot_toolkit.datasets.masks import annotated_size, first_box, list_masks, read_annotation

LATE_OBJECTS = frozenset({"YouTube-VOS"})  # benchmarks whose objects need not be in the first mask


@BENCHMARKS.register("YouTube-VOS")
class YouTubeVOS(BenchmarkFormat):
    """``meta.json``, ``JPEGImages/{name}`` and ``Annotations/{name}``.

    The folder is that of one split, or the one above: then ``valid`` is read, else ``test`` or
    ``train``. Only ``train`` can be scored here.
    """

    protocols = ("davis",)
    results = "masks"

    def read_folder(self, root: Path) -> list[Sequence]:
        places = (root, root / "valid", root / "test", root / "train")
        split = next((place for place in places if (place / "meta.json").is_file()), None)
        if split is None:
            raise UserError(
                f"{root}: has no meta.json, nor have its valid, test and train; give YouTube-VOS's folder"
            )
        meta = read_json(split / "meta.json", "list of videos")
        if not isinstance(meta, dict) or not isinstance(meta.get("videos"), dict):
            raise UserError(f"{split / 'meta.json'}: has no 'videos'; restore the file")
        return [
            _sequence(split / "JPEGImages" / name, split / "Annotations" / name) for name in meta["videos"]
        ]


def _sequence(images: Path, masks: Path) -> Sequence:
    return Sequence(
        images.name,
        frames=functools.partial(_frames, images, masks),
        annotation=functools.partial(_annotation, images, masks),
        size=functools.partial(annotated_size, masks),
        extra_frames=True,
    )


def _frames(images: Path, masks: Path) -> list[str]:
    start = frame_number(str(_shown(list_masks(masks))[0]))
    return [image for image in list_images(images) if frame_number(image) >= start]


def _annotation(images: Path, folder: Path) -> Annotation:
    """The box of the first mask, and the masks from there on where every image has one, else that mask alone."""
    every = list_masks(folder)
    public = {path.stem for path in every} == {Path(image).stem for image in list_images(images)}
    masks = _shown(every)
    box = first_box(read_annotation(masks[0]))
    return Annotation(box[None], masks=tuple(masks if public else masks[:1]))


def _shown(masks: list[Path]) -> list[Path]:
    """The masks from the first that shows an object on."""
    for start, path in enumerate(masks):
        if read_annotation(path).any():
            return masks[start:]
    raise UserError(f"{masks[0].parent}: no mask shows an object; restore the folder")
