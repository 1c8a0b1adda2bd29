"""TransT with an IoU head. Chen et al., Transformer Tracking, CVPR 2021; the head as in SPOT, TIP 2024."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import nn

from ltr.models.backbone.registry import BACKBONES
from ltr.models.layers.mlp import MLP
from ltr.models.layers.position import sine_positions
from ltr.models.layers.window import hann_window
from ltr.models.neck.feature_fusion import FeatureFusion, TemplateMemory
from ltr.models.registry import NETWORKS


@NETWORKS.register("transt")
class TransT(nn.Module):
    """Backbone features of template and search crop, fused by attention, give a score, box and IoU per cell.

    Parameter names are the published ones.

    Args:
        backbone: a registered backbone.
        hidden_dim: channels of a token, a multiple of 4 and of ``nheads``.
        nheads: attention heads.
        dim_feedforward: hidden channels of the feed-forward parts.
        featurefusion_layers: fusion layers in the encoder.
        dropout: in training mode.
        iou_head: predict the IoU of each box too (SPOT needs it, the published TransT has none).
    """

    def __init__(
        self,
        *,
        backbone: str = "resnet50",
        hidden_dim: int = 256,
        nheads: int = 8,
        dim_feedforward: int = 2048,
        featurefusion_layers: int = 4,
        dropout: float = 0.1,
        iou_head: bool = True,
    ) -> None:
        super().__init__()
        if hidden_dim % 4:
            raise ValueError(f"hidden_dim {hidden_dim} is not a multiple of 4")
        trunk = BACKBONES.get(backbone)()
        self.hidden_dim = hidden_dim
        self.stride: int = trunk.stride
        self.backbone = nn.Sequential(trunk)  # published names are backbone.0.body.*
        self.input_proj = nn.Conv2d(trunk.channels, hidden_dim, 1)
        self.featurefusion_network = FeatureFusion(
            hidden_dim, nheads, dim_feedforward, dropout, featurefusion_layers
        )
        self.class_embed = MLP(hidden_dim, hidden_dim, 2, 3)
        self.bbox_embed = MLP(hidden_dim, hidden_dim, 4, 3)
        self.iou_embed = MLP(hidden_dim, hidden_dim, 1, 3) if iou_head else None

    def forward(self, template: torch.Tensor, search: torch.Tensor) -> dict[str, torch.Tensor]:
        """Locate the target of ``template`` in ``search``.

        Args:
            template: normalised RGB crops ``[B, 3, h, w]``.
            search: normalised RGB crops ``[B, 3, H, W]``.

        Returns:
            For the N = (H / stride) * (W / stride) cells of the search crop, row by row:
            ``pred_logits`` ``[B, N, 2]``, class 0 is the target, 1 the background;
            ``pred_boxes`` ``[B, N, 4]``, (centre x, centre y, w, h) as fractions of the search crop;
            ``pred_ious`` ``[B, N, 1]`` in [0, 1], only with an IoU head, whose input is detached.
        """
        return self.track(search, self.encode_template(template))

    def encode_template(self, template: torch.Tensor) -> TemplateMemory:
        """Everything that depends on the template ``[B, 3, h, w]`` alone, for many calls of ``track``."""
        return self.featurefusion_network.remember(*self._tokens(template))

    def track(self, search: torch.Tensor, memory: TemplateMemory) -> dict[str, torch.Tensor]:
        """As ``forward``, with the template given by ``encode_template``."""
        tokens, position = self._tokens(search)
        fused = self.featurefusion_network(memory, tokens, position)
        # Boxes need more digits than bfloat16 has, and the heads take 2 % of the time.
        with torch.autocast(fused.device.type, enabled=False):
            fused = fused.to(self.class_embed.layers[0].weight.dtype)
            outputs = {"pred_logits": self.class_embed(fused), "pred_boxes": self.bbox_embed(fused).sigmoid()}
            if self.iou_embed is not None:
                outputs["pred_ious"] = self.iou_embed(fused.detach()).sigmoid()
        return outputs

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that train at the backbone's learning rate."""
        return self.backbone.parameters()

    def _tokens(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens ``[B, N, C]`` of images ``[B, 3, H, W]``, and their positions ``[1, N, C]``."""
        features = self.input_proj(self.backbone(images))
        height, width = features.shape[-2:]
        tokens = features.flatten(2).transpose(1, 2)
        return tokens, sine_positions(height, width, self.hidden_dim, tokens.device, tokens.dtype)


class Decoded(NamedTuple):
    """The best box of each sample, on the device of the outputs."""

    bbox_cxcywh_norm: torch.Tensor  # [B, 4] fractions of the search crop
    score: torch.Tensor  # [B] windowed target probability of the chosen cell
    confidence: torch.Tensor  # [B] its predicted IoU; without an IoU head its target probability
    index: torch.Tensor  # type: ignore[assignment]  # int64 [B], the chosen cell


def map_side(cells: int) -> int:
    """The side of a square map with that many cells."""
    side = math.isqrt(cells)
    if side * side != cells:
        raise ValueError(f"{cells} cells are not a square map")
    return side


def windowed_scores(outputs: Mapping[str, torch.Tensor], window_penalty: float) -> torch.Tensor:
    """``window_penalty * Hann + (1 - window_penalty) * probability`` of the target for every cell, ``[B, N]``."""
    probability = _probability(outputs)
    window = hann_window(map_side(probability.shape[1]), probability.device)
    return window_penalty * window + (1 - window_penalty) * probability


def decode(outputs: Mapping[str, torch.Tensor], window_penalty: float) -> Decoded:
    """The box at the maximum of ``windowed_scores``.

    Args:
        outputs: what ``TransT`` returns, for a square search crop.
        window_penalty: weight of the window, in [0, 1].
    """
    score, index = windowed_scores(outputs, window_penalty).max(1)
    cell = index[:, None]
    box = outputs["pred_boxes"].float().gather(1, cell[..., None].expand(-1, 1, 4))[:, 0]
    ious = outputs.get("pred_ious")
    confidence = _probability(outputs) if ious is None else ious.float()[..., 0]
    return Decoded(box, score, confidence.gather(1, cell)[:, 0], index)


def _probability(outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return outputs["pred_logits"].float().softmax(-1)[..., 0]
