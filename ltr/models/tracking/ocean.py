"""Ocean with an IoU head. Zhang et al., Ocean: Object-aware Anchor-free Tracking, ECCV 2020; the head as in SPOT, TIP 2024."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import nn

from ltr.models.backbone.ocean_resnet import OceanBackbone
from ltr.models.backbone.registry import BACKBONES
from ltr.models.layers.anchor_free import corners
from ltr.models.layers.window import hann_window
from ltr.models.neck.ocean_fusion import LEAST_TEMPLATE, AlignHead, Connection, Neck, TemplateKernels
from ltr.models.registry import NETWORKS
from ltr.models.tracking.transt import Decoded

RATIO = 0.94  # share of the classification in a score; the rest is the object-aware branch's


@NETWORKS.register("ocean")
class Ocean(nn.Module):
    """Template features, correlated with those of the search crop, give scores and a box per cell.

    Parameter names are the published ones. ``features`` is the backbone and ``features.features`` its
    body, the module whose state dict files with ImageNet weights hold.

    Args:
        backbone: "ocean_resnet50", "ocean_resnet50_online" or "ocean_tiny".
        hidden_dim: channels after the neck.
        iou_head: predict the IoU of each box too (SPOT needs it, the original Ocean has none).
        align: with the object-aware branch.
        towers: convolutions before each prediction.
        template_margin: feature cells cut off each side of the template, of which at least 5 must be
            left: 15 to 7 cells for the published 127 px. For 63 px take 1.
        log_limit: upper limit of the logarithm of a box distance, px (SPOT's 4.7 is 110 px); None: none,
            as in the original.
    """

    def __init__(
        self,
        *,
        backbone: str = "ocean_resnet50",
        hidden_dim: int = 256,
        iou_head: bool = True,
        align: bool = True,
        towers: int = 4,
        template_margin: int = 4,
        log_limit: float | None = 4.7,
    ) -> None:
        super().__init__()
        trunk = BACKBONES.get(backbone)()
        if not isinstance(trunk, OceanBackbone):
            raise ValueError(f"backbone '{backbone}' has not the geometry of Ocean's; take 'ocean_resnet50'")
        if towers < 1 or hidden_dim < 1 or template_margin < 0:
            raise ValueError(
                f"towers {towers} and hidden_dim {hidden_dim} must be at least 1, template_margin {template_margin} at least 0"
            )
        self.template_margin = template_margin
        self.features = trunk
        self.neck = Neck(trunk.channels, hidden_dim)
        self.connect_model = Connection(hidden_dim, towers, iou_head, log_limit)
        self.align_head = AlignHead(hidden_dim) if align else None

    def forward(self, template: torch.Tensor, search: torch.Tensor) -> dict[str, torch.Tensor]:
        """Locate the target of ``template`` in ``search``.

        Args:
            template: normalised RGB crops ``[B, 3, h, h]`` (for TracKit's weights raw BGR, 0..255).
            search: crops ``[B, 3, H, H]`` of the same scale: as many crop px per image px.

        Returns:
            For the cells of the map (``ltr.models.layers.anchor_free`` says how many and where):
            ``pred_logits`` ``[B, 1, map, map]``, target against background;
            ``pred_boxes`` ``[B, 4, map, map]``, distances left, top, right, bottom in search px;
            ``align_logits`` ``[B, 1, map, map]``, the same as ``pred_logits`` by the object-aware
            branch, only with ``align``;
            ``pred_ious`` ``[B, 1, map, map]`` in [0, 1], only with an IoU head, whose input is detached.

        Raises:
            ValueError: the template has too few cells, or more than the search crop.
        """
        return self.track(search, self.encode_template(template))

    def encode_template(self, template: torch.Tensor) -> TemplateKernels:
        """Everything that depends on the template ``[B, 3, h, h]`` alone, for many calls of ``track``."""
        features = self.features(template)
        left = features.shape[-1] - 2 * self.template_margin
        if left < LEAST_TEMPLATE:
            raise ValueError(
                f"a template {list(template.shape)} has {left} cells a side without its margin of {self.template_margin}, "
                f"at least {LEAST_TEMPLATE} are needed; take a larger template or a smaller template_margin"
            )
        return self.connect_model.remember(self.neck(features, self.template_margin))

    def track(self, search: torch.Tensor, memory: TemplateKernels) -> dict[str, torch.Tensor]:
        """As ``forward``, with the template given by ``encode_template``."""
        features = self.neck(self.features(search))
        if features.shape[-1] < memory.cls11.shape[-1] + 2:
            raise ValueError(f"a search crop {list(search.shape)} has fewer cells than the template")
        outputs, boxed = self.connect_model(features, memory)
        if self.align_head is not None:
            with torch.autocast(search.device.type, enabled=False):
                outputs["align_logits"] = self.align_head(boxed, outputs["pred_boxes"])
        return outputs

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that train at the backbone's learning rate."""
        return self.features.parameters()

    def set_trainable(self, stages: Collection[str]) -> None:
        """Train exactly these stages of the backbone ("stem", "layer1", ...); see ``OceanBackbone.set_trainable``."""
        self.features.set_trainable(stages)


def scores(outputs: Mapping[str, torch.Tensor], ratio: float = RATIO) -> torch.Tensor:
    """``ratio * classification + (1 - ratio) * object-aware`` probability of every cell, ``[B, map * map]``."""
    probability = outputs["pred_logits"].float().sigmoid().flatten(1)
    aligned = outputs.get("align_logits")
    if aligned is None:
        return probability
    return ratio * probability + (1 - ratio) * aligned.float().sigmoid().flatten(1)


def decode(
    outputs: Mapping[str, torch.Tensor], window_penalty: float, search_size: int, ratio: float = RATIO
) -> Decoded:
    """The box at the maximum of ``window_penalty * Hann + (1 - window_penalty) * scores``.

    Args:
        outputs: what ``Ocean`` returns.
        window_penalty: weight of the window, in [0, 1].
        search_size: side of the search crop, px.
        ratio: see ``scores``.
    """
    plain = scores(outputs, ratio)
    window = hann_window(outputs["pred_logits"].shape[-1], plain.device)
    score, index = (window_penalty * window + (1 - window_penalty) * plain).max(1)
    cell = index[:, None]
    boxes = corners(outputs["pred_boxes"].float(), search_size).flatten(2)
    x1, y1, x2, y2 = boxes.gather(2, cell[:, None].expand(-1, 4, 1))[..., 0].unbind(1)
    box = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1) / search_size
    ious = outputs.get("pred_ious")
    confidence = plain if ious is None else ious.float().flatten(1)
    return Decoded(box, score, confidence.gather(1, cell)[:, 0], index)
