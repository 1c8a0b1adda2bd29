"""TransT's published formulation over the same weights: what the tracker's speed is measured against.

Tokens come sequence first, every attention goes through ``torch.nn.functional.multi_head_attention_forward``
with a padding mask and returns its weights, position codes are computed from the mask for every image,
batch norms stay, and only the template's backbone features are kept between frames.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ltr.models.layers.attention import Attention
from ltr.models.neck.feature_fusion import DecoderLayer, FusionLayer
from ltr.models.tracking.transt import TransT


class Features(NamedTuple):
    """Projected features of an image, tokens first."""

    tokens: torch.Tensor  # [N, B, C]
    position: torch.Tensor  # [N, B, C]
    mask: torch.Tensor  # bool [B, N], all False


class PlainTransT:
    """The published formulation of a ``TransT`` in evaluation mode; outputs as ``TransT.track``."""

    def __init__(self, network: TransT) -> None:
        self.network = network

    def features(self, images: torch.Tensor) -> Features:
        """Backbone and projection of images ``[B, 3, H, W]``."""
        features = self.network.input_proj(self.network.backbone(images))
        mask = torch.zeros(features.shape[0], *features.shape[-2:], dtype=torch.bool, device=features.device)
        position = _position(mask, self.network.hidden_dim).to(features.dtype)
        return Features(
            features.flatten(2).permute(2, 0, 1), position.flatten(2).permute(2, 0, 1), mask.flatten(1)
        )

    def fuse(self, template: Features, search: Features) -> torch.Tensor:
        """Fused search tokens ``[B, N, C]``."""
        fusion = self.network.featurefusion_network
        one, two = template.tokens, search.tokens
        for layer in fusion.encoder.layers:
            one, two = _encode(layer, one, two, template, search)  # type: ignore[arg-type]
        for layer in fusion.decoder.layers:
            two = _decode(layer, two, one, template, search)  # type: ignore[arg-type]
        return fusion.decoder.norm(two).transpose(0, 1)

    def heads(self, fused: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits, boxes and IoUs of fused tokens."""
        outputs = {
            "pred_logits": self.network.class_embed(fused),
            "pred_boxes": self.network.bbox_embed(fused).sigmoid(),
        }
        if self.network.iou_embed is not None:
            outputs["pred_ious"] = self.network.iou_embed(fused).sigmoid()
        return outputs

    def __call__(self, template: torch.Tensor, search: torch.Tensor) -> dict[str, torch.Tensor]:
        """As ``TransT.forward``."""
        return self.heads(self.fuse(self.features(template), self.features(search)))


def _encode(
    layer: FusionLayer, one: torch.Tensor, two: torch.Tensor, template: Features, search: Features
) -> tuple[torch.Tensor, torch.Tensor]:
    placed = one + template.position
    one = layer.norm11(one + _attend(layer.self_attn1, placed, placed, one, template.mask))
    placed = two + search.position
    two = layer.norm21(two + _attend(layer.self_attn2, placed, placed, two, search.mask))
    placed_one, placed_two = one + template.position, two + search.position
    from_two = _attend(layer.multihead_attn1, placed_one, placed_two, two, search.mask)
    from_one = _attend(layer.multihead_attn2, placed_two, placed_one, one, template.mask)
    one, two = layer.norm12(one + from_two), layer.norm22(two + from_one)
    one = layer.norm13(one + layer.linear12(F.relu(layer.linear11(one))))
    two = layer.norm23(two + layer.linear22(F.relu(layer.linear21(two))))
    return one, two


def _decode(
    layer: DecoderLayer, two: torch.Tensor, one: torch.Tensor, template: Features, search: Features
) -> torch.Tensor:
    placed = one + template.position
    two = layer.norm1(two + _attend(layer.multihead_attn, two + search.position, placed, one, template.mask))
    return layer.norm2(two + layer.linear2(F.relu(layer.linear1(two))))


def _attend(
    module: Attention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    out, _ = F.multi_head_attention_forward(
        query, key, value, query.shape[-1], module.heads, module.in_proj_weight, module.in_proj_bias, None, None, False,
        0.0, module.out_proj.weight, module.out_proj.bias, training=False, key_padding_mask=mask, need_weights=True,
    )  # fmt: skip
    return out


def _position(mask: torch.Tensor, dim: int) -> torch.Tensor:
    """Sine code ``[B, dim, H, W]`` from the cells that are not masked ``[B, H, W]``."""
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=mask.device)
    period = 10000 ** (2 * index.div(2, rounding_mode="floor") / half)
    codes = []
    for axis in (1, 2):
        count = (~mask).cumsum(axis, dtype=torch.float32)
        angle = (count / (count.amax(axis, keepdim=True) + 1e-6) * 2 * math.pi)[..., None] / period
        codes.append(torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], -1).flatten(-2))
    return torch.cat(codes, -1).permute(0, 3, 1, 2)
