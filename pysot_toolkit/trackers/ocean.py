"""Ocean tracking. Zhang et al., Ocean: Object-aware Anchor-free Tracking, ECCV 2020."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from config.errors import UserError
from config.settings import Settings
from ltr.admin.checkpoint_reader import Checkpoint, build_recorded, recipe, trained_numbers
from ltr.data.augment import normalise
from ltr.data.crop import CropGeometry, crop_side, cut
from ltr.models.layers.anchor_free import corners
from ltr.models.layers.fold import fold_batch_norms
from ltr.models.layers.window import hann_window
from ltr.models.neck.ocean_fusion import batched
from ltr.models.tracking.ocean import RATIO, Ocean, scores
from pysot_toolkit.trackers.base import (
    TRACKERS,
    BatchTracker,
    Prediction,
    checked_precision,
    inference_autocast,
    initial_box,
    tracker_args,
)

_CROP_SETTINGS = {name: name for name in ("template_size", "search_size", "template_factor")}
_MIN_SIDE = 10.0  # px; a target never gets smaller, nor larger than the image
_SMALL_TARGET = 0.004  # of the image's area


@TRACKERS.register("ocean")
class OceanTracker(BatchTracker):
    """Crops around the last box, scores every cell, prefers the middle and boxes like the last one.

    Args:
        network: the network; it is copied and the copy is prepared for inference.
        device: where it runs.
        penalty_k: how fast the score falls with the change of size and shape.
        window_influence: weight of the Hann window in the score.
        lr: how fast the size follows: the new size has the weight ``(lr * penalty * score) ** 2``.
        ratio: share of the classification in the score, the rest is the object-aware branch's.
        template_size: side of the template crop, px.
        search_size: side of the search crop, px; both crops have the same scale.
        small_target_search_size: the same for a target that covers less than 0.4 % of the first
            image; None: no difference.
        template_factor: template crop side over target size.
        raw_bgr: crops go in as BGR levels 0..255, not as normalised RGB.
        precision: float32 or bfloat16.
    """

    def __init__(
        self,
        network: Ocean,
        device: torch.device,
        *,
        penalty_k: float = 0.062,
        window_influence: float = 0.38,
        lr: float = 0.765,
        ratio: float = RATIO,
        template_size: int = 127,
        search_size: int = 255,
        small_target_search_size: int | None = None,
        template_factor: float = 2.0,
        raw_bgr: bool = False,
        precision: str = "float32",
    ) -> None:
        self.device = device
        self.penalty_k, self.window_influence = float(penalty_k), float(window_influence)
        self.lr, self.ratio = float(lr), float(ratio)
        self.template_size, self.search_size = int(template_size), int(search_size)
        self.small_target_search_size = int(small_target_search_size or search_size)
        self.template_factor = float(template_factor)
        self.raw_bgr = bool(raw_bgr)
        self.precision = checked_precision(precision)
        self.network = prepare(network, device, precision)
        self.bbox = np.zeros(4)
        self._pad: tuple[float, ...] = (0.0, 0.0, 0.0)
        self._search_size = self.search_size

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, path: Path, settings: Settings, device: torch.device
    ) -> OceanTracker:
        """Network arguments and crop sizes as trained for our checkpoints, the published ones for others.

        Files of the original Ocean (TracKit), which name no network type, get what that has: raw BGR
        input, boxes without a limit and search crops of 271 px for small targets. The other defaults
        are its numbers for VOT2019; those for other benchmarks are settings of ``tracker``:
        GOT-10k penalty_k 0.022, lr 0.799, window_influence 0.118, small_target_search_size 255;
        LaSOT 0.11, 0.7, 0.2, 255. The branch for an online classifier is loaded and not used.
        """
        own = recipe(checkpoint, path)
        original = own is None and checkpoint.net_type is None
        name, args = own or ("ocean", _published_args(checkpoint, original))
        network = build_recorded(checkpoint, name, args, path)
        if not isinstance(network, Ocean):
            raise UserError(f"{path}: holds network '{name}', which the tracker ocean cannot run")
        defaults: dict[str, Any] = {"raw_bgr": True, "small_target_search_size": 271} if original else {}
        defaults |= trained_numbers(checkpoint, _CROP_SETTINGS, path)
        return cls(network, device, **tracker_args(cls, settings, defaults))

    @torch.inference_mode()
    def initialize(self, image: np.ndarray, bbox: np.ndarray) -> None:
        """See ``Tracker.initialize``.

        Raises:
            UserError: the box has no area, or none of it lies in the image.
        """
        self.bbox = box = initial_box(bbox, image)
        self._pad = cv2.mean(image)[:3]
        small = box[2] * box[3] < _SMALL_TARGET * image.shape[0] * image.shape[1]
        self._search_size = self.small_target_search_size if small else self.search_size
        template = cut(image, self.template_geometry(), self.template_size, self._pad)
        with inference_autocast(self.device, self.precision):
            self._memory = self.network.encode_template(self._input(template[None]))

    def crop(self, image: np.ndarray) -> np.ndarray:
        """See ``BatchTracker.crop``."""
        return cut(image, self.search_geometry(), self._search_size, self._pad)

    @torch.inference_mode()
    def locate(self, twins: Sequence[OceanTracker], crops: Sequence[np.ndarray]) -> np.ndarray:
        """See ``BatchTracker.locate``."""
        memory = batched([twin._memory for twin in twins])
        with inference_autocast(self.device, self.precision):
            outputs = self.network.track(self._input(np.stack(crops)), memory)
        return self.choose(outputs, twins)

    def template_geometry(self) -> CropGeometry:
        """The square of the template crop about the current box."""
        side = np.rint(crop_side(self.bbox, self.template_factor))
        return _square(self.bbox, side, self.template_size)

    def search_geometry(self) -> CropGeometry:
        """The square of the search crop about the current box: at the template's scale, before that is rounded."""
        side = np.floor(self._search_size / self._scale() + 0.5)
        return _square(self.bbox, side, self._search_size)

    def choose(self, outputs: Mapping[str, torch.Tensor], twins: Sequence[OceanTracker]) -> np.ndarray:
        """The best cell of each crop, as ``move`` takes it.

        Args:
            outputs: what ``Ocean.track`` returns for B crops.
            twins: whose crops they are.

        Returns:
            float64 ``[B, 7]``: the box (x1 + x2, y1 + y2, w, h, search px), its score without penalty and window,
            its penalty, and its rank with both.
        """
        score = scores(outputs, self.ratio)
        boxes = corners(outputs["pred_boxes"].float(), twins[0]._search_size)
        x1, y1, x2, y2 = boxes.flatten(2).unbind(1)
        w, h = x2 - x1, y2 - y1
        penalty = self._penalty(w, h, twins)
        window = hann_window(boxes.shape[-1], score.device)
        ranking = penalty * score * (1 - self.window_influence) + self.window_influence * window
        cells = torch.stack([x1 + x2, y1 + y2, w, h, score, penalty, ranking], 2)
        best = ranking.argmax(1)[:, None, None].expand(-1, -1, cells.shape[2])
        rows = cells.gather(1, best)[:, 0].cpu()  # the only copy to the host
        return rows.numpy().astype(np.float64)

    def move(self, found: np.ndarray, width: int, height: int) -> Prediction:
        """See ``BatchTracker.move``; the score is that of the chosen cell, without penalty and window."""
        if not np.isfinite(found).all():
            raise UserError(
                "the network answers with numbers that are not finite; take another checkpoint or precision"
            )
        scale, last = self._scale(), self.bbox[2:]
        limit = np.array([width, height], np.float64)
        centre = self.bbox[:2] + last / 2 + (found[:2] / 2 - (self._search_size - 1) / 2) / scale
        centre = centre.clip(0.0, limit)
        best, kept = found[4:6]
        # As published: the size that has moved by the rate is averaged with the last one by it again.
        rate = (kept * best * self.lr) ** 2
        size = last * (1 - rate) + found[2:4] / scale * rate
        size = np.maximum(np.minimum(size, limit), _MIN_SIDE)
        self.bbox = np.concatenate([centre - size / 2, size])
        return Prediction(self.bbox.copy(), float(best))

    def _scale(self) -> float:
        """Crop px per image px."""
        return self.template_size / float(crop_side(self.bbox, self.template_factor))

    def _last_size(self) -> tuple[float, float]:
        """Of the last box in search px: the side of a square about it, and w / h."""
        w, h = self.bbox[2:] * self._scale()
        return float(crop_side(np.array([0, 0, w, h]), 2.0)), w / h

    def _penalty(self, w: torch.Tensor, h: torch.Tensor, twins: Sequence[OceanTracker]) -> torch.Tensor:
        """``exp(-penalty_k * (change of shape * change of size - 1))`` of sizes ``[B, N]``, search px; 1 for the last box."""
        last = np.array([twin._last_size() for twin in twins], np.float32)
        last_side, last_shape = torch.from_numpy(last).to(w.device, non_blocking=True)[..., None].unbind(1)
        side = ((w + (w + h) / 2) * (h + (w + h) / 2)).sqrt() / last_side
        shape = last_shape * h / w
        change = torch.maximum(side, 1 / side) * torch.maximum(shape, 1 / shape)
        return torch.exp(-(change - 1) * self.penalty_k)

    def _input(self, crops: np.ndarray) -> torch.Tensor:
        """Crops uint8 ``[B, S, S, 3]`` as the network takes them, ``[B, 3, S, S]``."""
        pixels = torch.from_numpy(crops).to(self.device)
        return pixels.flip(3).permute(0, 3, 1, 2).float() if self.raw_bgr else normalise(pixels)


def _square(bbox: np.ndarray, side: np.ndarray, size: int) -> CropGeometry:
    """The square of ``side`` about a box, its corner rounded half to even, for a crop of ``size`` px."""
    side = np.maximum(side, 1.0)
    left, top = np.rint(bbox[:2] + bbox[2:] / 2 - (side + 1) / 2).astype(np.int64)
    return CropGeometry(side.astype(np.int64), left, top, size / side)


def _published_args(checkpoint: Checkpoint, original: bool) -> dict[str, Any]:
    """Arguments of the network that a foreign checkpoint holds."""

    def holds(prefix: str) -> bool:
        return any(name.startswith(prefix) for name in checkpoint.net)

    args: dict[str, Any] = {"iou_head": holds("connect_model.iou_pred."), "align": holds("align_head.")}
    if holds("features.features.layeronline."):
        args["backbone"] = "ocean_resnet50_online"
    if original:
        args["log_limit"] = None
    return args


def prepare(network: Ocean, device: torch.device, precision: str = "float32") -> Ocean:
    """A copy of ``network`` for inference on ``device``: batch norms folded, without the IoU head.

    For "bfloat16" the weights of all convolutions but those that predict are stored in it; call the
    copy under ``torch.autocast``.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    connect = network.connect_model
    connect.iou_pred_tower = connect.iou_pred = None
    fold_batch_norms(network)
    if precision == "bfloat16":
        encoders = (connect.cls_encode, connect.reg_encode)
        for part in (network.features, network.neck, *encoders, connect.cls_tower, connect.bbox_tower):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    module.bfloat16()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.to(device)
