"""Feature fusion of TransT. Chen et al., Transformer Tracking, CVPR 2021."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import nn

from ltr.models.layers.attention import Attention


class TemplateMemory(NamedTuple):
    """All that depends on the template alone: its stream as far as that goes without the search crop."""

    tokens: torch.Tensor  # [B, M, C] after the first layer's self attention
    position: torch.Tensor  # [1, M, C]
    query: torch.Tensor  # [B, M, C] with which the template looks at the search crop in the first layer
    key: torch.Tensor  # [B, M, C] the template as the search stream of the first layer sees it
    value: torch.Tensor  # [B, M, C]


def batched(memories: Sequence[TemplateMemory]) -> TemplateMemory:
    """The memories of several templates of one size as that of a batch."""
    if len(memories) == 1:
        return memories[0]
    tokens, _, query, key, value = (torch.cat(parts) for parts in zip(*memories))
    return TemplateMemory(tokens, memories[0].position, query, key, value)


class FusionLayer(nn.Module):
    """Self attention in both streams, cross attention between them, feed-forward; norms come last.

    Stream 1 is the template, stream 2 the search crop (the names are the published ones).
    """

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.self_attn1 = Attention(dim, heads, dropout)
        self.self_attn2 = Attention(dim, heads, dropout)
        self.multihead_attn1 = Attention(dim, heads, dropout)
        self.multihead_attn2 = Attention(dim, heads, dropout)
        self.linear11 = nn.Linear(dim, feedforward)
        self.linear12 = nn.Linear(feedforward, dim)
        self.linear21 = nn.Linear(dim, feedforward)
        self.linear22 = nn.Linear(feedforward, dim)
        self.norm11 = nn.LayerNorm(dim)
        self.norm12 = nn.LayerNorm(dim)
        self.norm13 = nn.LayerNorm(dim)
        self.norm21 = nn.LayerNorm(dim)
        self.norm22 = nn.LayerNorm(dim)
        self.norm23 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def remember(self, template: torch.Tensor, position: torch.Tensor) -> TemplateMemory:
        """The part of the layer that sees only the template ``[B, M, C]``."""
        placed = template + position
        tokens = self.norm11(template + self.dropout(self.self_attn1(placed, placed, template)))
        placed = tokens + position
        query = self.multihead_attn1.query(placed)
        return TemplateMemory(tokens, position, query, *self.multihead_attn2.memory(placed, tokens))

    def forward(
        self, memory: TemplateMemory, search: torch.Tensor, position: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The rest, for search tokens ``[B, N, C]``: new template ``[B, M, C]`` and search ``[B, N, C]``."""
        placed = search + position
        search = self.norm21(search + self.dropout(self.self_attn2(placed, placed, search)))
        template = memory.tokens
        placed = search + position
        from_search = self.multihead_attn1.attend(memory.query, *self.multihead_attn1.memory(placed, search))
        from_template = self.multihead_attn2.attend(
            self.multihead_attn2.query(placed), memory.key, memory.value
        )
        template = self.norm12(template + self.dropout(from_search))
        search = self.norm22(search + self.dropout(from_template))
        template = self.norm13(template + self.dropout(self._feed(template, self.linear11, self.linear12)))
        search = self.norm23(search + self.dropout(self._feed(search, self.linear21, self.linear22)))
        return template, search

    def _feed(self, x: torch.Tensor, widen: nn.Linear, narrow: nn.Linear) -> torch.Tensor:
        return narrow(self.dropout(F.relu(widen(x), inplace=True)))


class FusionEncoder(nn.Module):
    """A stack of fusion layers."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float, layers: int) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError("feature fusion needs at least one layer")
        self.layers = nn.ModuleList(FusionLayer(dim, heads, feedforward, dropout) for _ in range(layers))

    def forward(
        self, memory: TemplateMemory, search: torch.Tensor, position: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both streams after all layers; ``memory`` is the first layer's."""
        first, *rest = self._layers()
        template, search = first(memory, search, position)
        for layer in rest:
            template, search = layer(layer.remember(template, memory.position), search, position)
        return template, search

    def remember(self, template: torch.Tensor, position: torch.Tensor) -> TemplateMemory:
        """What the first layer makes of the template ``[B, M, C]`` alone."""
        return self._layers()[0].remember(template, position)

    def _layers(self) -> list[FusionLayer]:
        return cast("list[FusionLayer]", list(self.layers))


class DecoderLayer(nn.Module):
    """Search tokens attend to the template once more."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.multihead_attn = Attention(dim, heads, dropout)
        self.linear1 = nn.Linear(dim, feedforward)
        self.linear2 = nn.Linear(feedforward, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        search: torch.Tensor,
        template: torch.Tensor,
        position: torch.Tensor,
        template_position: torch.Tensor,
    ) -> torch.Tensor:
        """Search tokens ``[B, N, C]``, template tokens ``[B, M, C]`` to ``[B, N, C]``."""
        found = self.multihead_attn(search + position, template + template_position, template)
        search = self.norm1(search + self.dropout(found))
        fed = self.linear2(self.dropout(F.relu(self.linear1(search), inplace=True)))
        return self.norm2(search + self.dropout(fed))


class FusionDecoder(nn.Module):
    """One decoder layer and a norm."""

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer(dim, heads, feedforward, dropout)])
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        search: torch.Tensor,
        template: torch.Tensor,
        position: torch.Tensor,
        template_position: torch.Tensor,
    ) -> torch.Tensor:
        """Search tokens ``[B, N, C]``, template tokens ``[B, M, C]`` to ``[B, N, C]``."""
        for layer in self.layers:
            search = layer(search, template, position, template_position)
        return self.norm(search)


class FeatureFusion(nn.Module):
    """Template and search tokens to one token per search position.

    Args:
        dim: channels of a token.
        heads: attention heads.
        feedforward: hidden channels of the feed-forward parts.
        dropout: in training mode.
        layers: number of encoder layers.
    """

    def __init__(self, dim: int, heads: int, feedforward: int, dropout: float, layers: int) -> None:
        super().__init__()
        self.encoder = FusionEncoder(dim, heads, feedforward, dropout, layers)
        self.decoder = FusionDecoder(dim, heads, feedforward, dropout)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def remember(self, template: torch.Tensor, position: torch.Tensor) -> TemplateMemory:
        """The work that the template ``[B, M, C]`` needs once; ``position`` is ``[1, M, C]``."""
        return self.encoder.remember(template, position)

    def forward(self, memory: TemplateMemory, search: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Fused tokens ``[B, N, C]`` for search tokens ``[B, N, C]`` with positions ``[1, N, C]``."""
        template, search = self.encoder(memory, search, position)
        return self.decoder(search, template, position, memory.position)
