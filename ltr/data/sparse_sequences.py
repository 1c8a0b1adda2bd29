"""From labelled pairs and unsupervised instances to sequences of one train and one test frame, for the DiMP family.

Which frames a sample has is decided as for every sparse training (``ltr.data.sampler``). The crops are those that the
family's trackers see (``ltr.data.adaptive_crop``): of the same size for train and test frames, border pixels repeated,
edges at 0. A batch of ``ltr.data.loader`` has (boxes xywh px in the crop; P proposals)::

    batch["sup"]    template, search uint8 [n, H, H, 3] RGB, template_bbox, search_bbox float32 [n, 4],
                    noise float32 [n, P, 4] for ``proposals_about``, draws, index
    batch["unsup"]  key, relay, unlabeled, aug uint8 [m, H, H, 3], key_bbox, relay_bbox float32 [m, 4],
                    unlabeled_bbox float32 [m, 4], the coarse box,
                    unlabeled_rectangle, aug_rectangle float64 [m, 4] image px, what the crops show,
                    aug_mean float32 [m, 3] channel mean of the frame, 0..255,
                    image_size float32 [m, 2] width, height,
                    row, frame int64 [m] of the sampler state, noise, draws, index
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch

from ltr.data.adaptive_crop import boxes_to_crop, crop_rectangles, cut_rectangle
from ltr.data.augment import DRAWS
from ltr.data.bbox import cxcywh_to_xywh, iou_xyxy, xywh_to_cxcywh, xywh_to_xyxy
from ltr.data.image_loader import BadImage, read_image
from ltr.data.loader import Draws, Key, TrackingSamples
from ltr.data.processing import Sample
from ltr.data.processing_ltr import Jitter
from ltr.data.proposals import jitter
from ltr.data.sampler import FrameBox, LabelledPair, SparseInstance

_STREAM = 18  # of random numbers; ltr.data.loader uses 16, ltr.data.processing_ltr 17
_HALVINGS = 5  # of a proposal's noise; the normal numbers of a sample are hardly ever too large for that


class _Crop(NamedTuple):
    pixels: np.ndarray  # uint8 [size, size, 3]
    bbox: np.ndarray  # float32 [4], the frame's box in the crop
    rectangle: np.ndarray  # float64 [4], image px


class SparseSequenceProcessing:
    """Makes the two kinds of sample.

    Args:
        size: side of the crops, px.
        search_factor: side of the crop over that of the target.
        train_jitter: of the box about which the student's train frame is cut.
        test_jitter: of the box about which the student's test frame is cut. The teacher's crops have none.
        proposals: boxes per test frame.
        sigmas: of the proposals' noise; one is drawn per proposal.
    """

    def __init__(
        self,
        *,
        size: int,
        search_factor: float,
        train_jitter: Jitter,
        test_jitter: Jitter,
        proposals: int,
        sigmas: Sequence[float],
    ) -> None:
        self._size, self._factor = size, search_factor
        self._train, self._test = train_jitter, test_jitter
        self._noise = (proposals, np.asarray(sigmas, np.float64))

    def pair(self, pair: LabelledPair, rng: np.random.Generator) -> Sample:
        """The arrays of a labelled pair, without ``index``.

        Raises:
            BadImage: a file cannot be decoded, or a box has no area.
        """
        images = {frame.path: read_image(frame.path) for frame in pair}
        template = self._crop(pair.template, images, self._train, rng)
        search = self._crop(pair.search, images, self._test, rng)
        return {
            "template": template.pixels,
            "search": search.pixels,
            "template_bbox": template.bbox,
            "search_bbox": search.bbox,
            **self._drawn(rng),
        }

    def instance(self, instance: SparseInstance, rng: np.random.Generator) -> Sample:
        """The arrays of an unsupervised instance, without ``index``; errors as for ``pair``."""
        frame = instance.unlabeled
        images = {f.path: read_image(f.path) for f in (instance.key, instance.relay, frame)}
        key = self._crop(instance.key, images)
        relay = self._crop(instance.relay, images, self._train, rng)
        unlabeled = self._crop(frame, images)
        aug = self._crop(frame, images, self._test, rng)
        image = images[frame.path]
        return {
            "key": key.pixels,
            "relay": relay.pixels,
            "unlabeled": unlabeled.pixels,
            "aug": aug.pixels,
            "key_bbox": key.bbox,
            "relay_bbox": relay.bbox,
            "unlabeled_bbox": unlabeled.bbox,
            "unlabeled_rectangle": unlabeled.rectangle,
            "aug_rectangle": aug.rectangle,
            "aug_mean": np.array(cv2.mean(image)[:3], np.float32),
            "image_size": np.array(image.shape[1::-1], np.float32),
            "row": np.int64(instance.row),
            "frame": np.int64(instance.frame),
            **self._drawn(rng),
        }

    def _crop(
        self,
        frame: FrameBox,
        images: dict[str, np.ndarray],
        amount: Jitter | None = None,
        rng: np.random.Generator | None = None,
    ) -> _Crop:
        image, size = images[frame.path], (self._size, self._size)
        about = frame.bbox if amount is None or rng is None else jitter(frame.bbox, *amount, rng=rng)
        try:
            rectangle = crop_rectangles(about, image.shape[1::-1], self._factor, size)
        except ValueError as error:
            raise BadImage(frame.path, str(error)) from error
        bbox = boxes_to_crop(np.asarray(frame.bbox, np.float64), rectangle, np.array(size))
        return _Crop(
            cut_rectangle(image, rectangle, size), bbox.astype(np.float32), rectangle.astype(np.float64)
        )

    def _drawn(self, rng: np.random.Generator) -> Sample:
        count, sigmas = self._noise
        sigma = sigmas[rng.integers(len(sigmas), size=count)]
        noise = sigma[:, None] * rng.standard_normal((count, 4))
        return {"noise": noise.astype(np.float32), "draws": rng.random(DRAWS, np.float32)}


class SparseSequenceSamples(TrackingSamples):
    """The samples of this module, addressed by ``Key``: what ``TrackingSamples`` are for pairs.

    Args:
        pairs: labelled pairs.
        instances: unsupervised instances, None for supervised training.
        processing: makes crops.
        seed: of the run.
    """

    def __init__(
        self, pairs: Draws, instances: Draws | None, processing: SparseSequenceProcessing, seed: int
    ) -> None:
        self._pairs, self._instances, self._make_sample, self._seed = pairs, instances, processing, seed

    def _make(self, key: Key, attempt: int) -> Sample:
        rng = np.random.default_rng([self._seed, key.epoch, key.index, attempt, _STREAM])
        if key.kind == "sup":
            sample = self._make_sample.pair(self._pairs.draw(key.epoch, key.index, attempt), rng)
        else:
            assert self._instances is not None, "this training has no unsupervised instances"
            sample = self._make_sample.instance(self._instances.draw(key.epoch, key.index, attempt), rng)
        return sample | {"index": np.int64(key.index)}


def proposals_about(
    bbox: torch.Tensor, noise: torch.Tensor, min_iou: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes about boxes that only the device knows, by noise that the loader drew.

    The centre moves by the noise times the root of the box's area, the size grows by its exponential. Noise that
    leaves too little overlap is halved until it leaves enough, five times at most.

    Args:
        bbox: ``[B, 4]``.
        noise: ``[B, P, 4]``, of centre and logarithmic size.
        min_iou: proposals have more.

    Returns:
        proposals ``[B, P, 4]`` and their IoU with the box ``[B, P]``.
    """
    bbox = bbox[:, None]
    proposals, overlap = _moved(bbox, noise)
    for _ in range(_HALVINGS):
        noise = torch.where(overlap[..., None] > min_iou, noise, noise / 2)
        proposals, overlap = _moved(bbox, noise)
    return proposals, overlap


def _moved(bbox: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    centre, size = xywh_to_cxcywh(bbox).split(2, -1)
    reach = size.prod(-1, keepdim=True).sqrt()
    boxes = cxcywh_to_xywh(torch.cat([centre + reach * noise[..., :2], size * noise[..., 2:].exp()], -1))
    return boxes, iou_xyxy(xywh_to_xyxy(boxes), xywh_to_xyxy(bbox))[0]
