"""From frames with boxes to the crops of one training sample.

A frame is read once, however many of a sample's crops it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from config.settings import Settings
from ltr.data.augment import DRAWS
from ltr.data.crop import CropGeometry, box_to_crop, crop_geometry, cut, jitter
from ltr.data.image_loader import BadImage, Frame, Part, Scratch, channel_mean, open_frame, reduction

if TYPE_CHECKING:
    from ltr.data.sampler import FrameBox, LabelledPair, SparseInstance

Sample = dict[str, Any]  # name -> array or number, one sample's share of a batch


class Request(NamedTuple):
    """One crop to be made."""

    frame: FrameBox
    about: np.ndarray  # [4] xywh px, the (jittered) box about which the crop is made
    search_factor: float
    size: int  # side of the crop, px
    need_mean: bool = False  # of the frame, whether or not the crop reaches beyond it


class Crop(NamedTuple):
    """One crop that was made."""

    pixels: np.ndarray  # RGB uint8 [size, size, 3]
    bbox: np.ndarray  # [4] xywh px, the frame's box in the crop
    about: np.ndarray  # [4] xywh px, from the request
    factor: float  # crop px per image px
    mean: np.ndarray  # [3] the frame's channel mean, 0..255; zeros where it was not needed
    image_size: tuple[int, int]  # width, height of the frame, px


def make_crops(requests: Sequence[Request], scratch: Scratch) -> list[Crop]:
    """Make the crops, reading each file once.

    Args:
        requests: at least one.
        scratch: memory to decode the frames into, one after the other.

    Raises:
        BadImage: a file cannot be decoded, or a box has no area.
    """
    about = np.stack([request.about for request in requests])
    sizes = np.array([request.size for request in requests])
    geometry = _geometry(requests, about, sizes)
    bboxes = box_to_crop(
        np.stack([request.frame.bbox for request in requests]), about, geometry.factor, sizes
    )
    side, left, top, factor = (field.tolist() for field in geometry)  # numbers, as they are used one by one
    crops: dict[int, Crop] = {}
    by_path: dict[str, list[int]] = {}
    for number, request in enumerate(requests):
        by_path.setdefault(request.frame.path, []).append(number)
    for path, numbers in by_path.items():
        frame = open_frame(path)
        reduced = min(reduction(side[n], requests[n].size) for n in numbers)
        part = Part(
            min(left[n] for n in numbers),
            min(top[n] for n in numbers),
            max(left[n] + side[n] for n in numbers),
            max(top[n] + side[n] for n in numbers),
        )
        # What lies outside has the colour of the mean.
        all_of_it = _reaches_beyond(frame, part) or any(requests[n].need_mean for n in numbers)
        region = frame.region(None if all_of_it else part, reduced, scratch)
        mean = channel_mean(region) if region.whole else np.zeros(3)
        for n in numbers:
            square = CropGeometry(side[n], left[n], top[n], factor[n])
            pixels = cut(region.pixels, square, requests[n].size, mean, region.origin, region.reduced)
            crops[n] = Crop(pixels, bboxes[n], about[n], factor[n], mean, (frame.width, frame.height))
    return [crops[number] for number in range(len(requests))]


def _geometry(requests: Sequence[Request], about: np.ndarray, sizes: np.ndarray) -> CropGeometry:
    factors = np.array([request.search_factor for request in requests])
    try:
        return crop_geometry(about, factors, sizes)
    except ValueError:
        for request in requests:
            try:
                crop_geometry(request.about, request.search_factor, request.size)
            except ValueError as error:
                raise BadImage(request.frame.path, str(error)) from error
        raise


def _reaches_beyond(frame: Frame, part: Part) -> bool:
    return part.left < 0 or part.top < 0 or part.right > frame.width or part.bottom > frame.height


class Processing:
    """Makes the two kinds of training sample with the sizes and jitter of ``settings.data``."""

    def __init__(self, settings: Settings) -> None:
        data = settings.data
        self._search = (data.search_factor, data.search_size)
        self._template = (data.template_factor, data.template_size)
        self._jitter = (data.center_jitter_search, data.scale_jitter_search)
        self._scratch = Scratch()  # of this process: a worker gets its own

    def pair(self, pair: LabelledPair, rng: np.random.Generator) -> Sample:
        """A labelled pair: template crop, jittered search crop, the boxes in both."""
        about = self._jittered(pair.search.bbox, rng)
        template, search = make_crops(
            [
                Request(pair.template, pair.template.bbox, *self._template),
                Request(pair.search, about, *self._search),
            ],
            self._scratch,
        )
        return {
            "template": template.pixels,
            "search": search.pixels,
            "template_bbox": template.bbox.astype(np.float32),
            "search_bbox": search.bbox.astype(np.float32),
            "draws": rng.random(DRAWS, np.float32),
        }

    def instance(self, instance: SparseInstance, rng: np.random.Generator) -> Sample:
        """An unsupervised instance: key and relay as templates, two crops of the frame to locate."""
        frame = instance.unlabeled
        about = self._jittered(frame.bbox, rng)
        key, relay, unlabeled, aug = make_crops(
            [
                Request(instance.key, instance.key.bbox, *self._template),
                Request(instance.relay, instance.relay.bbox, *self._template),
                Request(frame, frame.bbox, *self._search),
                Request(frame, about, *self._search, need_mean=True),
            ],
            self._scratch,
        )
        return {
            "key": key.pixels,
            "relay": relay.pixels,
            "unlabeled": unlabeled.pixels,
            "aug": aug.pixels,
            "key_bbox": key.bbox.astype(np.float32),
            "relay_bbox": relay.bbox.astype(np.float32),
            "unlabeled_extract": np.asarray(unlabeled.about, np.float64),
            "unlabeled_factor": np.float64(unlabeled.factor),
            "aug_extract": np.asarray(aug.about, np.float64),
            "aug_factor": np.float64(aug.factor),
            "aug_mean": aug.mean.astype(np.float32),
            "image_size": np.array(aug.image_size, np.float32),
            "row": np.int64(instance.row),
            "frame": np.int64(instance.frame),
            "draws": rng.random(DRAWS, np.float32),
        }

    def _jittered(self, bbox: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return jitter(bbox, *self._jitter, normal=rng.standard_normal(2), uniform=rng.random(2))
