"""Ocean tracking. Zhang et al., Ocean: Object-aware Anchor-free Tracking, ECCV 2020."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from config.errors import UserError
from config.settings import Settings
from ltr.admin.checkpoint_reader import Checkpoint, load_weights
from ltr.data.augment import normalise
from ltr.data.crop import CropGeometry, crop_side, cut
from ltr.models.layers.anchor_free import corners
from ltr.models.layers.fold import fold_batch_norms
from ltr.models.layers.window import hann_window
from ltr.models.registry import build_network
from ltr.models.tracking.ocean import RATIO, Ocean, scores
from pysot_toolkit.trackers.base import (
    TRACKERS,
    Prediction,
    Tracker,
    checked_precision,
    inference_autocast,
    initial_box,
    tracker_args,
)

_CROP_SETTINGS = ("template_size", "search_size", "template_factor")
_MIN_SIDE = 10.0  # px; a target never gets smaller, nor larger than the image
_SMALL_TARGET = 0.004  # of the image's area


@TRACKERS.register("ocean")
class OceanTracker(Tracker):
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
        recipe, trained = checkpoint.constructor or {}, checkpoint.settings or {}
        ours = "name" in recipe
        original = not ours and checkpoint.net_type is None
        args = dict(recipe["args"]) if ours else _published_args(checkpoint, original)
        network = build_network(recipe["name"] if ours else "ocean", args)
        if not isinstance(network, Ocean):
            raise UserError(f"{path}: holds network '{recipe['name']}', which the tracker ocean cannot run")
        load_weights(network, checkpoint.net, path)
        defaults: dict[str, Any] = {"raw_bgr": True, "small_target_search_size": 271} if original else {}
        data = trained.get("data", {}) if ours else {}
        defaults |= {name: data[name] for name in _CROP_SETTINGS if name in data}
        return cls(network, device, **tracker_args(cls, settings, defaults))

    @torch.inference_mode()
    def initialize(self, image: np.ndarray, bbox: np.ndarray) -> None:
        """See ``Tracker.initialize``.

        Raises:
            UserError: the box has no area.
        """
        self.bbox = box = initial_box(bbox)
        self._pad = cv2.mean(image)[:3]
        small = box[2] * box[3] < _SMALL_TARGET * image.shape[0] * image.shape[1]
        self._search_size = self.small_target_search_size if small else self.search_size
        template = cut(image, self.template_geometry(), self.template_size, self._pad)
        with inference_autocast(self.device, self.precision):
            self._memory = self.network.encode_template(self._input(template))

    @torch.inference_mode()
    def track(self, image: np.ndarray) -> Prediction:
        """See ``Tracker.track``; the score is that of the chosen cell, without penalty and window."""
        search = cut(image, self.search_geometry(), self._search_size, self._pad)
        with inference_autocast(self.device, self.precision):
            outputs = self.network.track(self._input(search), self._memory)
        return self.update(outputs, image.shape[1], image.shape[0])

    def template_geometry(self) -> CropGeometry:
        """The square of the template crop about the current box."""
        side = np.rint(crop_side(self.bbox, self.template_factor))
        return _square(self.bbox, side, self.template_size)

    def search_geometry(self) -> CropGeometry:
        """The square of the search crop about the current box: at the template's scale, before that is rounded."""
        side = np.floor(self._search_size / self._scale() + 0.5)
        return _square(self.bbox, side, self._search_size)

    def update(self, outputs: Mapping[str, torch.Tensor], width: int, height: int) -> Prediction:
        """Move the box to where the network's outputs for the search crop about the last box say.

        Args:
            outputs: what ``Ocean.track`` returns for one crop.
            width: of the image, px.
            height: of the image, px.
        """
        scale = self._scale()
        last = self.bbox[2:]
        score = scores(outputs, self.ratio)[0]
        x1, y1, x2, y2 = corners(outputs["pred_boxes"].float(), self._search_size)[0].flatten(1)
        penalty = self._penalty(x2 - x1, y2 - y1, *(last * scale).tolist())
        window = hann_window(outputs["pred_boxes"].shape[-1], score.device)
        ranking = penalty * score * (1 - self.window_influence) + self.window_influence * window
        cells = torch.stack([x1 + x2, y1 + y2, x2 - x1, y2 - y1, score, penalty, ranking])
        best_cell = cells.index_select(1, ranking.argmax(keepdim=True))
        chosen = best_cell[:, 0].tolist()  # the only copy to the host
        if not np.isfinite(chosen).all():
            raise UserError(
                "the network answers with numbers that are not finite; take another checkpoint or precision"
            )
        box, (best, kept) = np.array(chosen[:4]), chosen[4:6]

        limit = np.array([width, height], np.float64)
        centre = self.bbox[:2] + last / 2 + (box[:2] / 2 - (self._search_size - 1) / 2) / scale
        centre = centre.clip(0.0, limit)
        # As published: the size that has moved by the rate is averaged with the last one by it again.
        rate = (kept * best * self.lr) ** 2
        size = last * (1 - rate) + box[2:] / scale * rate
        size = np.maximum(np.minimum(size, limit), _MIN_SIDE)
        self.bbox = np.concatenate([centre - size / 2, size])
        return Prediction(self.bbox.copy(), best)

    def _scale(self) -> float:
        """Crop px per image px."""
        return self.template_size / float(crop_side(self.bbox, self.template_factor))

    def _penalty(self, w: torch.Tensor, h: torch.Tensor, last_w: float, last_h: float) -> torch.Tensor:
        """``exp(-penalty_k * (change of shape * change of size - 1))``, sizes in search px; 1 for the last box."""
        last_side = float(crop_side(np.array([0, 0, last_w, last_h]), 2.0))
        side = ((w + (w + h) / 2) * (h + (w + h) / 2)).sqrt() / last_side
        shape = (last_w / last_h) * h / w
        change = torch.maximum(side, 1 / side) * torch.maximum(shape, 1 / shape)
        return torch.exp(-(change - 1) * self.penalty_k)

    def _input(self, image: np.ndarray) -> torch.Tensor:
        """A crop uint8 ``[S, S, 3]`` as the network takes it, ``[1, 3, S, S]``."""
        crops = torch.from_numpy(image)[None].to(self.device)
        return crops.flip(3).permute(0, 3, 1, 2).float() if self.raw_bgr else normalise(crops)


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
