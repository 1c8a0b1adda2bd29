"""TransT tracking. Chen et al., Transformer Tracking, CVPR 2021."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from config.errors import UserError
from config.settings import Settings
from ltr.admin.checkpoint_reader import Checkpoint, build_recorded, recipe, trained_numbers
from ltr.data.augment import normalise
from ltr.data.crop import crop, crop_geometry
from ltr.models.layers.attention import Attention
from ltr.models.layers.fold import fold_batch_norms
from ltr.models.neck.feature_fusion import batched
from ltr.models.tracking.transt import TransT, decode
from pysot_toolkit.trackers.base import (
    TRACKERS,
    BatchTracker,
    Prediction,
    checked_precision,
    inference_autocast,
    initial_box,
    tracker_args,
)

_CROP_SETTINGS = {name: name for name in ("template_size", "search_size", "template_factor", "search_factor")}
_MIN_SIDE = 10.0  # px; a target never gets smaller, nor larger than the image


@TRACKERS.register("transt")
class TransTTracker(BatchTracker):
    """Crops around the last box, scores every cell, takes the best box. No smoothing, no update.

    Args:
        network: the network; it is copied and the copy is prepared for inference.
        device: where it runs.
        window_penalty: weight of the Hann window in the score.
        template_size: side of the template crop, px.
        search_size: side of the search crop, px.
        template_factor: template crop side over target size.
        search_factor: search crop side over target size.
        precision: float32 or bfloat16.
    """

    def __init__(
        self,
        network: TransT,
        device: torch.device,
        *,
        window_penalty: float = 0.49,
        template_size: int = 128,
        search_size: int = 256,
        template_factor: float = 2.0,
        search_factor: float = 4.0,
        precision: str = "float32",
    ) -> None:
        self.device = device
        self.window_penalty = float(window_penalty)
        self.template_size, self.search_size = int(template_size), int(search_size)
        self.template_factor, self.search_factor = float(template_factor), float(search_factor)
        self.precision = checked_precision(precision)
        self.network = prepare(network, device, precision)
        self.bbox = np.zeros(4)
        self._pad: tuple[float, ...] = (0.0, 0.0, 0.0)

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, path: Path, settings: Settings, device: torch.device
    ) -> TransTTracker:
        """Network arguments and crop sizes as trained for our checkpoints, the published ones for others."""
        name, args = recipe(checkpoint, path) or ("transt", {})
        # the published TransT has no IoU head, the published SP-TransT has one
        args = {"iou_head": any(key.startswith("iou_embed.") for key in checkpoint.net), **args}
        network = build_recorded(checkpoint, name, args, path)
        if not isinstance(network, TransT):
            raise UserError(f"{path}: holds network '{name}', which the tracker transt cannot run")
        crops = trained_numbers(checkpoint, _CROP_SETTINGS, path)
        return cls(network, device, **tracker_args(cls, settings, crops))

    @torch.inference_mode()
    def initialize(self, image: np.ndarray, bbox: np.ndarray) -> None:
        """See ``Tracker.initialize``.

        Raises:
            UserError: the box has no area, or none of it lies in the image.
        """
        self.bbox = box = initial_box(bbox, image)
        self._pad = cv2.mean(image)[:3]
        template, _ = crop(image, box, self.template_factor, self.template_size, self._pad)
        with inference_autocast(self.device, self.precision):
            self._memory = self.network.encode_template(self._input(template[None]))

    def crop(self, image: np.ndarray) -> np.ndarray:
        """See ``BatchTracker.crop``."""
        return crop(image, self.bbox, self.search_factor, self.search_size, self._pad)[0]

    @torch.inference_mode()
    def locate(self, twins: Sequence[TransTTracker], crops: Sequence[np.ndarray]) -> np.ndarray:
        """See ``BatchTracker.locate``; rows of the best cell's box, cxcywh_norm, and its score."""
        memory = batched([twin._memory for twin in twins])
        with inference_autocast(self.device, self.precision):
            outputs = self.network.track(self._input(np.stack(crops)), memory)
        return self.choose(outputs)

    def choose(self, outputs: Mapping[str, torch.Tensor]) -> np.ndarray:
        """What ``TransT.track`` returns for B crops, as ``move`` takes it: float64 ``[B, 5]``."""
        found = decode(outputs, self.window_penalty)
        rows = torch.cat([found.bbox_cxcywh_norm, found.score[:, None]], 1)
        return rows.cpu().numpy().astype(np.float64)  # the only copy to the host

    def move(self, found: np.ndarray, width: int, height: int) -> Prediction:
        """See ``BatchTracker.move``; the score is that of the chosen cell, with the window."""
        if not np.isfinite(found).all():
            raise UserError(
                "the network answers with numbers that are not finite; take another checkpoint or precision"
            )
        side = float(crop_geometry(self.bbox, self.search_factor, self.search_size).side)
        limit = np.array([width, height], np.float64)
        centre = self.bbox[:2] + self.bbox[2:] / 2 - side / 2 + found[:2] * side
        centre = centre.clip(0.0, limit)
        size = np.maximum(np.minimum(found[2:4] * side, limit), _MIN_SIDE)
        self.bbox = np.concatenate([centre - size / 2, size])
        return Prediction(self.bbox.copy(), float(found[4]))

    def _input(self, crops: np.ndarray) -> torch.Tensor:
        """Crops uint8 ``[B, S, S, 3]`` as the network takes them, ``[B, 3, S, S]``."""
        return normalise(torch.from_numpy(crops).to(self.device))


def prepare(network: TransT, device: torch.device, precision: str = "float32") -> TransT:
    """A copy of ``network`` for inference on ``device``: batch norms folded, channels last, without the IoU head.

    For "bfloat16" the weights of all matrix products but the heads' are stored in it; call the copy
    under ``torch.autocast``, which leaves residual sums and norms in float32.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    network.iou_embed = None
    fold_batch_norms(network)
    if precision == "bfloat16":
        for part in (network.backbone, network.input_proj, network.featurefusion_network):
            for module in part.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear, Attention)):
                    for parameter in module.parameters(recurse=False):
                        parameter.data = parameter.data.bfloat16()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.to(device)
