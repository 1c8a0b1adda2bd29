"""A tracker that learns its target: classify to find it, refine a box about it, learn from what was found.

The state is in the convention of pytracking: a position is a pixel's, so that the centre of a box (x, y, w, h) is
``x + (w - 1) / 2``. Positions and sizes are (row, column), float64, on the host.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from ltr.data.augment import standardise
from ltr.models.bbreg.iou_net import Pair
from ltr.models.layers.fold import fold_batch_norms
from ltr.models.tracking.atom import ATOMnet
from ltr.models.tracking.dimp import DiMPnet
from pysot_toolkit.trackers.base import BatchTracker, Prediction, inference_autocast, initial_box
from pysot_toolkit.trackers.online.augmentation import dropped, expanded_size, seen, views
from pysot_toolkit.trackers.online.localize import Flag, Localization, hann, localize, prepared
from pysot_toolkit.trackers.online.memory import SampleMemory, SampleWeights
from pysot_toolkit.trackers.online.parameters import OnlineParameters
from pysot_toolkit.trackers.online.proposal_scorer import ProposalScorer
from pysot_toolkit.trackers.online.refine import consensus, starting_boxes
from pysot_toolkit.trackers.online.sample_patch import Patch, cut_patch, patch_place, resized

Features = dict[str, torch.Tensor]
Network = TypeVar("Network", bound="ATOMnet | DiMPnet")
_MIN_SIDE = 1.0  # px; a target never gets smaller, nor larger than twice the image
_INSIDE = 0.2  # share of the target along each side that stays in the image, when the classifier moves it


class Found(NamedTuple):
    """What the network says of one patch."""

    scores: np.ndarray  # [1, h, w], as they are searched for peaks
    sure: np.ndarray  # [h, w], that the answer's score is taken from
    sample: torch.Tensor  # [1, C, h', w'], as it is kept
    features: Pair  # that boxes are refined by
    box_yxyx: np.ndarray  # [4], of the patch


class OnlineTracker(BatchTracker):
    """The loop that the DiMP family and ATOM share; they differ in their classifier.

    Args:
        network: it is copied and the copy is prepared for inference.
        device: where it runs.
        parameters: None: the class's own.
    """

    defaults: ClassVar[OnlineParameters] = OnlineParameters()
    network: ATOMnet | DiMPnet

    def __init__(
        self, network: ATOMnet | DiMPnet, device: torch.device, parameters: OnlineParameters | None = None
    ) -> None:
        self.parameters = parameters or self.defaults
        self.device = device
        self.network = prepare(network, device, self.parameters.precision)
        self.output = np.full(2, self.parameters.sample_size)
        self.frame = 0
        self.flag = Flag.NORMAL

    # What a classifier is.

    kernel: int  # side of its filter, cells
    filter: torch.Tensor  # [1, C, kernel, kernel]

    @abstractmethod
    def samples(self, features: Features) -> torch.Tensor:
        """What is learned from: ``[N, C, h, w]`` of N images."""

    @abstractmethod
    def begin(self, samples: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Learn a filter from the first frame's samples and boxes ``[N, 4]`` (x, y, w, h, px of the patch);
        returns the samples as they are kept."""

    def kept(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples as they are kept in the memory and classified."""
        return samples

    @abstractmethod
    def classify(self, samples: torch.Tensor) -> torch.Tensor:
        """Scores of samples as they are kept ``[S, C, h, w]``: float32 ``[S, h', w']``."""

    def window(self, size: tuple[int, int]) -> np.ndarray | None:
        """Factors of the first peak in score maps of ``size``."""
        return hann(size) if self.parameters.window else None

    @abstractmethod
    def learn(self, iterations: int) -> None:
        """Learn on from what is in the memory."""

    @abstractmethod
    def map_geometry(self, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cell in the middle of a score map of ``size``, and px of the patch per cell, (row, column) each."""

    # The loop.

    @torch.no_grad()
    def initialize(self, image: np.ndarray, bbox: np.ndarray) -> None:
        """See ``Tracker.initialize``.

        Raises:
            UserError: the box has no area, or none of it lies in the image.
        """
        box = initial_box(bbox, image)
        self.image_size = np.array(image.shape[:2], np.float64)
        corner, given = box[1::-1], box[:1:-1]
        limit = 2 * self.image_size.max()
        self.centre = (corner + (given - 1) / 2).clip(-limit, limit)
        self.size = np.minimum(given, limit)
        p = self.parameters
        self.scale = float(np.sqrt((self.size * p.search_factor).prod())) / p.sample_size
        self.base_size = self.size / self.scale
        self.frame, self.flag = 1, Flag.NORMAL
        self._generator = torch.Generator().manual_seed(p.seed)
        self._begin(image)

    def crop(self, image: np.ndarray) -> Patch:
        """See ``BatchTracker.crop``; it is resized where the network runs."""
        p, (place, size) = self.parameters, self._patch_place(image)
        return cut_patch(image, place, size, self.output, p.border, p.max_shrink)

    @torch.no_grad()
    def locate(self, twins: Sequence[OnlineTracker], crops: Sequence[Patch]) -> list[Found]:
        """See ``BatchTracker.locate``; each twin classifies by its own filter.

        The host waits for the device once, where the score maps are copied to it (and once more for those of
        probabilities, where these are others).
        """
        p = self.parameters
        features = self._extract(self._images(crops))
        samples = self._classifiable(features).split(1)
        third, fourth = (feature.split(1) for feature in self.network.iou_features(features))
        kept = [twin.kept(sample) for twin, sample in zip(twins, samples)]
        raw = torch.cat([twin.classify(sample) for twin, sample in zip(twins, kept)])
        scores = sure = prepared(raw, p.preprocess, p.score_sum).cpu().numpy()
        if p.probabilities and p.preprocess != "softmax":
            sure = prepared(raw, "softmax").cpu().numpy()
        boxes = [crop.box_yxyx for crop in crops]
        return [Found(*of_one) for of_one in zip(scores[:, None], sure, kept, zip(third, fourth), boxes)]

    @torch.no_grad()
    def move(self, found: Found, width: int, height: int) -> Prediction:
        """See ``BatchTracker.move``; ``lost`` where the classifier does not find the target, which stays where it was.

        The host waits for the device once, where the boxes with their scores are copied to it.
        The score is 0.5 at the classifier's ``even_score``, towards 0 below and 1 above: at the score under which
        the target counts as not found, for those sets that have one.
        """
        self.frame += 1
        image_size = np.array([height, width], np.float64)
        self.centre, self.size, self.scale = self._followed(image_size)
        self.image_size = image_size
        places, scales = patch_place(found.box_yxyx[None], self.output)
        place, scale = places[0], float(scales[0])
        where, score = self._peak(found, place, scale)
        self.flag = where.flag
        if where.flag != Flag.NOT_FOUND:
            cell = self.map_geometry(np.array(found.scores.shape[1:]))[1]
            self._move(place + where.displacement * cell * scale)
            self._refine(found.features, place, scale)
        if where.flag in (Flag.NORMAL, Flag.HARD_NEGATIVE):
            self._learn(found.sample, self.patch_box(place, scale), where.flag == Flag.HARD_NEGATIVE)
        corner = self.centre - (self.size - 1) / 2
        bbox = np.concatenate([corner[::-1], self.size[::-1]])
        return Prediction(bbox, score, where.flag == Flag.NOT_FOUND)

    def _begin(self, image: np.ndarray) -> None:
        """Learn the first frame: the classifier's filter and the IoU network's modulation."""
        p = self.parameters
        place = np.rint(self.centre)
        expanded = np.full(2, expanded_size(p.sample_size, p.expansion))
        patch = resized(cut_patch(image, place, self.scale * expanded, expanded), self.device)
        chosen = views(p.augment, p.sample_size, p.random_shift, self._generator)
        features = self._extract(seen(patch, chosen, p.sample_size))
        samples = self._classifiable(features)
        if p.augment.dropouts:
            samples = torch.cat(
                [samples, dropped(samples[:1], p.augment.dropouts, p.augment.dropout_rate, self._generator)]
            )
        self.feature_size = np.array(samples.shape[2:])
        shifts = [view.shift for view in chosen] + [chosen[0].shift] * p.augment.dropouts
        moves = torch.tensor([[columns, rows, 0, 0] for rows, columns in shifts], dtype=torch.float32)
        boxes = (self.patch_box(place, self.scale) + moves).to(self.device)
        weights = SampleWeights(p.memory_size, len(samples), p.learning_rate, p.initial_weight)
        self.memory = SampleMemory(weights, self.begin(samples, boxes), boxes)
        third, fourth = self.network.iou_features(features)
        with inference_autocast(self.device, p.precision):
            modulation = self.network.bb_regressor.get_modulation((third[:1], fourth[:1]), boxes[:1])
        self.modulation = (modulation[0].float(), modulation[1].float())
        self._scorer = ProposalScorer(self.network.bb_regressor, self.modulation)

    def _peak(self, found: Found, place: np.ndarray, scale: float) -> tuple[Localization, float]:
        """The target in a patch's scores, and the answer's score."""
        p, scores = self.parameters, found.scores
        middle, cell = self.map_geometry(np.array(scores.shape[1:]))
        px = scale * cell  # of the image per cell
        target, previous = self.size / px, (self.centre - place) / px
        where = localize(
            scores, p.locate, middle, target[None], previous[None], self.window(scores.shape[1:])
        )
        height = max(float(found.sure[where.cell]), 0.0)
        return where, height / (height + p.even_score)

    def _learn(self, sample: torch.Tensor, box: torch.Tensor, hard_negative: bool) -> None:
        """Keep a sample, and learn from it now where it is a hard one, else when it is time."""
        p = self.parameters
        rate = p.hard_negative_rate if hard_negative else None
        self.memory.add(sample, box.to(self.device, non_blocking=True), rate=rate)
        if hard_negative:
            self.learn(p.hard_negative_iterations)
        elif (self.frame - 1) % p.update_interval == 0:
            self.learn(p.update_iterations)

    def _refine(self, features: Pair, place: np.ndarray, scale: float) -> None:
        """Let boxes about the target climb, and take the best; where none is sensible the target stays."""
        p = self.parameters
        start = starting_boxes(self.patch_box(place, scale), p.refine, self._generator)
        boxes, scores = self._climb(features, start.to(self.device))
        answers = torch.cat([boxes[0], scores[0, :, None]], 1).cpu()  # one copy to the host
        best = consensus(answers[:, :4], answers[:, 4], p.refine)
        if best is None:
            return
        x, y, w, h = best[0].double().tolist()
        centre = np.array([y + h / 2, x + w / 2]) - (self.output - 1) / 2
        self._take(centre * scale + place, np.array([h, w]) * scale)

    def _climb(self, features: Pair, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes ``[1, P, 4]`` and their scores ``[1, P]``, from boxes to start from."""
        slope = self._scorer.near(self._iou_maps, features)
        return self.parameters.refine.climb(slope, start)

    @torch.no_grad()
    def _iou_maps(self, features: Pair) -> Pair:
        """Backbone features to the maps that boxes are scored on, float32."""
        with inference_autocast(self.device, self.parameters.precision):
            third, fourth = self.network.bb_regressor.get_iou_feat(features)
        return third.float(), fourth.float()

    def _take(self, centre: np.ndarray, size: np.ndarray) -> None:
        """Put the target at ``centre`` with ``size``."""
        self.centre, self.size, self.scale = self._held(centre, size, self.image_size)

    def _move(self, centre: np.ndarray) -> None:
        """Put the target at ``centre``, with a part of it inside the image."""
        margin = (_INSIDE - 0.5) * self.size
        self.centre = np.maximum(np.minimum(centre, self.image_size - margin), margin)

    def _held(
        self, centre: np.ndarray, size: np.ndarray, image_size: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Centre and size of a target within what any image can hold, and the scale that goes with them."""
        limit = 2 * image_size.max()
        size = size.clip(_MIN_SIDE, limit)
        return centre.clip(-limit, limit), size, float(np.sqrt(size.prod() / self.base_size.prod()))

    def _followed(self, image_size: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """The target's centre, size and scale; where the video changes its resolution they change with it."""
        if (image_size == self.image_size).all():
            return self.centre, self.size, self.scale
        ratio = image_size / self.image_size
        return self._held((self.centre + 0.5) * ratio - 0.5, self.size * ratio, image_size)

    def _patch_place(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Middle and size of the next patch: at the target, so that its middle comes to the middle of a score."""
        centre, _, scale = self._followed(np.array(image.shape[:2], np.float64))
        size, half = scale * self.output, ((self.feature_size + self.kernel) % 2) / 2
        return centre + half * scale * self.output / self.feature_size, size

    def patch_box(self, place: np.ndarray, scale: float) -> torch.Tensor:
        """The target in a patch about ``place``, float32 ``[4]`` (x, y, w, h) px of the patch."""
        size = self.size / scale
        corner = (self.centre - place) / scale + (self.output - 1) / 2 - (size - 1) / 2
        return torch.from_numpy(np.concatenate([corner[::-1], size[::-1]])).float()

    def _images(self, crops: Sequence[Patch]) -> torch.Tensor:
        """Patches ``[B, 3, S, S]``, 0..255, on the device."""
        return torch.cat([resized(crop, self.device) for crop in crops])

    def _extract(self, images: torch.Tensor) -> Features:
        """Backbone features of images ``[N, 3, H, W]``, 0..255."""
        images = standardise(images / 255).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), inference_autocast(self.device, self.parameters.precision):
            return self.network.extract_backbone(images)

    def _classifiable(self, features: Features) -> torch.Tensor:
        with inference_autocast(self.device, self.parameters.precision):
            return self.samples(features).float()


def prepare(network: Network, device: torch.device, precision: str = "float32") -> Network:
    """A copy of ``network`` for inference on ``device``: batch norms folded, channels last.

    For "bfloat16" the weights of all convolutions that see images are stored in it; call them under
    ``torch.autocast``. What learns and what scores boxes stays in float32.
    """
    prepared_network = copy.deepcopy(network)
    prepared_network.eval().requires_grad_(False)
    fold_batch_norms(prepared_network)
    if precision == "bfloat16":
        for name, module in prepared_network.named_modules():
            if isinstance(module, nn.Conv2d) and not name.startswith("classifier.filter_"):
                module.to(torch.bfloat16)
    prepared_network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return prepared_network
