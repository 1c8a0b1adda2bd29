"""From train and test frames to a batch of the DiMP family: ATOM, DiMP, PrDiMP, SuperDiMP.

In a worker, ``SequenceProcessing`` makes crops and proposals; ``SequenceSamples`` are the samples for
``ltr.data.loader``. A sample's arrays, and with a first dimension for the sequences those of ``batch["sup"]``
(F train and G test frames of crops ``H x W``, P proposals; boxes xywh px in the crop, whose edges are at 0)::

    train_images, test_images    uint8 [F, H, W, 3], [G, H, W, 3] RGB
    train_bbox, test_bbox        float32 [F, 4], [G, 4]
    proposals                    float32 [G, P, 4] around test_bbox
    proposal_iou                 float32 [G, P]: 2 * IoU - 1 with test_bbox
    proposal_density, gt_density float32 [G, P]   (mixture proposals only; see ltr.data.proposals)
    train_draws, test_draws      float32 [F, FRAME_DRAWS], [G, FRAME_DRAWS] uniform, for ltr.data.transforms
    gray_draw                    float32, uniform
    index                        int64, of the sample

On the device, ``prepare`` turns that into what networks and objectives take (B sequences; frames come first)::

    train_images, test_images    float32 [F, B, 3, H, W], [G, B, 3, H, W], augmented and normalised
    train_bbox, test_bbox        float32 [F, B, 4], [G, B, 4], mirrored with their images
    proposals                    float32 [G, B, P, 4], mirrored with their images
    proposal_iou, proposal_density, gt_density   float32 [G, B, P]
    every label asked for        float32 [F or G, B, rows, columns]
    index                        int64 [B]

The published styles differ in their parts:

===========  ===============================  =============================  ==================================
style        crops                            proposals                      labels
===========  ===============================  =============================  ==================================
ATOM         ``centred``                      ``PerturbedBoxes`` or Mixture  none
DiMP         ``replicate``                    ``PerturbedBoxes``             ``test_label``
KL (PrDiMP)  ``replicate``                    ``MixtureBoxes``               ``test_label_density``
SuperDiMP    ``inside_major``, change <= 1.5  ``MixtureBoxes``               ``test_label``
===========  ===============================  =============================  ==================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ltr.data.adaptive_crop import REPLICATE, boxes_to_crop, crop_rectangles, cut_rectangle, decode_frames
from ltr.data.image_loader import BadImage, Frame, open_frame
from ltr.data.loader import Draws, Key, TrackingSamples
from ltr.data.processing import Sample
from ltr.data.proposals import Proposals, jitter
from ltr.data.sampler import FrameBox
from ltr.data.sampler_ltr import SequenceFrames
from ltr.data.transforms import FRAME_DRAWS, SequenceAugment, mirror_boxes

_STREAM = 17  # of random numbers; ltr.data.loader uses 16

Label = Callable[[torch.Tensor], torch.Tensor]  # boxes [..., 4] to maps [..., rows, columns]


class Jitter(NamedTuple):
    """How far the box about which a crop is made is moved and scaled; see ``ltr.data.proposals.jitter``."""

    center: float
    scale: float


class SequenceProcessing:
    """Makes the sample of one sequence.

    Args:
        size: width and height of the crops, px.
        search_factor: side of the crop over that of the target.
        train_jitter, test_jitter: of the box a crop is made about.
        proposals: makes the proposals of test frames.
        mode, max_scale_change: of the crops; see ``ltr.data.adaptive_crop.crop_rectangles``.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int],
        search_factor: float,
        train_jitter: Jitter,
        test_jitter: Jitter,
        proposals: Proposals,
        mode: str = REPLICATE,
        max_scale_change: float = math.inf,
    ) -> None:
        self._size, self._factor, self._proposals = size, search_factor, proposals
        self._jitters = {"train": train_jitter, "test": test_jitter}
        self._mode, self._change = mode, max_scale_change

    def __call__(self, frames: SequenceFrames, rng: np.random.Generator) -> Sample:
        """The arrays listed above, without ``index``.

        Raises:
            BadImage: a file cannot be decoded, or a box has no area.
        """
        every = [*frames.train, *frames.test]
        opened = {frame.path: open_frame(frame.path) for frame in every}
        train, train_bbox = self._places(frames.train, opened, self._jitters["train"], rng)
        test, test_bbox = self._places(frames.test, opened, self._jitters["test"], rng)
        rectangles = np.concatenate([train, test])
        regions = decode_frames([opened[frame.path] for frame in every], rectangles, self._size)
        crops = [
            cut_rectangle(region.pixels, where, self._size, origin=region.origin, reduced=region.reduced)
            for region, where in zip(regions, rectangles)
        ]
        return {
            "train_images": np.stack(crops[: len(train)]),
            "test_images": np.stack(crops[len(train) :]),
            "train_bbox": train_bbox.astype(np.float32),
            "test_bbox": test_bbox.astype(np.float32),
            **self._proposals(test_bbox, rng),
            "train_draws": rng.random((len(train), FRAME_DRAWS), np.float32),
            "test_draws": rng.random((len(test), FRAME_DRAWS), np.float32),
            "gray_draw": np.float32(rng.random()),
        }

    def _places(
        self,
        frames: Sequence[FrameBox],
        opened: Mapping[str, Frame],
        amount: Jitter,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rectangles of the crops about the jittered boxes ``[F, 4]``, and the boxes in the crops ``[F, 4]``."""
        bbox = np.stack([frame.bbox for frame in frames])
        shapes = np.array([(opened[frame.path].width, opened[frame.path].height) for frame in frames])
        about = jitter(bbox, *amount, rng=rng)
        try:
            rectangles = crop_rectangles(about, shapes, self._factor, self._size, self._mode, self._change)
        except ValueError as error:
            raise BadImage(frames[0].path, str(error)) from error
        return rectangles, boxes_to_crop(bbox, rectangles, np.array(self._size))


class SequenceSamples(TrackingSamples):
    """The samples of sequences, addressed by ``Key``: what ``TrackingSamples`` are for pairs.

    Args:
        sequences: draws the frames; see ``ltr.data.sampler_ltr``.
        processing: makes crops and proposals.
        seed: of the run.
    """

    def __init__(self, sequences: Draws, processing: SequenceProcessing, seed: int) -> None:
        self._sequences, self._make_sample, self._seed = sequences, processing, seed

    def _make(self, key: Key, attempt: int) -> Sample:
        rng = np.random.default_rng([self._seed, key.epoch, key.index, attempt, _STREAM])
        frames = self._sequences.draw(key.epoch, key.index, attempt)
        return self._make_sample(frames, rng) | {"index": np.int64(key.index)}


def prepare(
    part: Mapping[str, torch.Tensor], augment: SequenceAugment, labels: Mapping[str, Label]
) -> dict[str, torch.Tensor]:
    """Network inputs and targets of a batch, on its device.

    Args:
        part: ``batch["sup"]``, on the device.
        augment: the changes to the images.
        labels: name to what makes it (``ltr.data.labels``), from the boxes of train or test frames: ``test_label``.

    Returns:
        the tensors listed above.
    """
    ready = {name: value.transpose(0, 1) if value.ndim > 1 else value for name, value in part.items()}
    gray_draw = ready.pop("gray_draw")
    mirrored = {}
    for frames in ("train", "test"):
        images, draws = ready.pop(f"{frames}_images"), ready.pop(f"{frames}_draws")
        width = images.shape[-2]
        ready[f"{frames}_images"], mirrored[frames] = augment(images, draws, gray_draw)
        ready[f"{frames}_bbox"] = mirror_boxes(ready[f"{frames}_bbox"], width, mirrored[frames])
    ready["proposals"] = mirror_boxes(ready["proposals"], width, mirrored["test"][..., None])
    for name, label in labels.items():
        ready[name] = label(ready[f"{name.partition('_')[0]}_bbox"])
    return ready
