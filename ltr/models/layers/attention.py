"""Multi-head attention over batch-first tokens. Vaswani et al., Attention Is All You Need, NeurIPS 2017."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Multi-head attention with the parameter names of ``torch.nn.MultiheadAttention`` and no masks.

    Args:
        dim: channels of a token, a multiple of ``heads``.
        heads: number of heads.
        dropout: of the attention weights, in training mode.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{dim} channels do not divide into {heads} heads")
        self.heads = heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Queries ``[B, N, C]``, keys and values ``[B, M, C]`` to ``[B, N, C]``."""
        if query is key:
            q, k = self._project(query, 0, 2).chunk(2, -1)
        else:
            q, k = self.query(query), self._project(key, 1, 2)
        return self.attend(q, k, self._project(value, 2, 3))

    def query(self, query: torch.Tensor) -> torch.Tensor:
        """What ``attend`` needs of queries ``[B, N, C]``: projected once, used for many keys."""
        return self._project(query, 0, 1)

    def memory(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What ``attend`` needs of keys and values ``[B, M, C]``: projected once, used for many queries."""
        return self._project(key, 1, 2), self._project(value, 2, 3)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """As ``forward``, with what ``query`` and ``memory`` have made of its arguments."""
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def _project(self, x: torch.Tensor, first: int, last: int) -> torch.Tensor:
        dim = x.shape[-1]
        rows = slice(first * dim, last * dim)
        return F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])
