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

import numpy as np
import torch

from ltr.data.adaptive_crop import boxes_to_crop, crop_rectangles, cut_rectangle, decode_frames
from ltr.data.augment import DRAWS
from ltr.data.bbox import cxcywh_to_xywh, iou_xyxy, xywh_to_cxcywh, xywh_to_xyxy
from ltr.data.image_loader import BadImage, Frame, Region, channel_mean, open_frame
from ltr.data.loader import Draws, Key, TrackingSamples
from ltr.data.processing import Sample
from ltr.data.processing_ltr import Jitter
from ltr.data.proposals import jitter
from ltr.data.sampler import FrameBox, LabelledPair, SparseInstance

_STREAM = 18  # of random numbers; ltr.data.loader uses 16, ltr.data.processing_ltr 17
_HALVINGS = 5  # of a proposal's noise; the normal numbers of a sample are hardly ever too large for that


class _Place(NamedTuple):
    path: str
    bbox: np.ndarray  # float32 [4], the frame's box in the crop
    rectangle: np.ndarray  # int64 [4], image px


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
        opened = {frame.path: open_frame(frame.path) for frame in pair}
        places = [
            self._place(pair.template, opened, self._train, rng),
            self._place(pair.search, opened, self._test, rng),
        ]
        template, search = (pixels for pixels, _ in self._cut(places, opened))
        return {
            "template": template,
            "search": search,
            "template_bbox": places[0].bbox,
            "search_bbox": places[1].bbox,
            **self._drawn(rng),
        }

    def instance(self, instance: SparseInstance, rng: np.random.Generator) -> Sample:
        """The arrays of an unsupervised instance, without ``index``; errors as for ``pair``."""
        frame = instance.unlabeled
        opened = {f.path: open_frame(f.path) for f in (instance.key, instance.relay, frame)}
        places = {
            "key": self._place(instance.key, opened),
            "relay": self._place(instance.relay, opened, self._train, rng),
            "unlabeled": self._place(frame, opened),
            "aug": self._place(frame, opened, self._test, rng),
        }
        crops = dict(zip(places, self._cut(list(places.values()), opened, whole=opened[frame.path])))
        return {
            **{name: pixels for name, (pixels, _) in crops.items()},
            **{f"{name}_bbox": places[name].bbox for name in ("key", "relay", "unlabeled")},
            **{
                f"{name}_rectangle": places[name].rectangle.astype(np.float64)
                for name in ("unlabeled", "aug")
            },
            "aug_mean": channel_mean(crops["aug"][1]).astype(np.float32),
            "image_size": np.array([opened[frame.path].width, opened[frame.path].height], np.float32),
            "row": np.int64(instance.row),
            "frame": np.int64(instance.frame),
            **self._drawn(rng),
        }

    def _place(
        self,
        frame: FrameBox,
        opened: dict[str, Frame],
        amount: Jitter | None = None,
        rng: np.random.Generator | None = None,
    ) -> _Place:
        size = (self._size, self._size)
        image_size = (opened[frame.path].width, opened[frame.path].height)
        about = frame.bbox if amount is None or rng is None else jitter(frame.bbox, *amount, rng=rng)
        try:
            rectangle = crop_rectangles(about, image_size, self._factor, size)
        except ValueError as error:
            raise BadImage(frame.path, str(error)) from error
        bbox = boxes_to_crop(np.asarray(frame.bbox, np.float64), rectangle, np.array(size))
        return _Place(frame.path, bbox.astype(np.float32), rectangle)

    def _cut(
        self, places: list[_Place], opened: dict[str, Frame], whole: Frame | None = None
    ) -> list[tuple[np.ndarray, Region]]:
        """The pixels of each crop uint8 ``[size, size, 3]``, and what was decoded of its frame."""
        size = (self._size, self._size)
        rectangles = np.stack([place.rectangle for place in places])
        regions = decode_frames([opened[place.path] for place in places], rectangles, size, whole)
        return [
            (cut_rectangle(region.pixels, where, size, origin=region.origin, reduced=region.reduced), region)
            for region, where in zip(regions, rectangles)
        ]

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
