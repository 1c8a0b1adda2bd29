"""Sine position encoding. Carion et al., End-to-End Object Detection with Transformers, ECCV 2020."""

from __future__ import annotations

import functools
import math

import torch


def sine_positions(
    height: int, width: int, dim: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """The code of each cell of a map, ``[1, height * width, dim]``, rows first; cached per size.

    The first half of the channels encodes y, the second x. A coordinate is its count from 1 over
    the side, times 2 pi; channel pairs (sin, cos) divide it by 10000^(2 i / (dim / 2)).

    Args:
        dim: number of channels, a multiple of 4.
    """
    if dim % 4:
        raise ValueError(
            f"{dim} channels cannot hold sine and cosine of two coordinates, take a multiple of 4"
        )
    # What torch.compile captures computes them anew: it can look into no cache, and warns where it meets one.
    make = _codes if torch.compiler.is_compiling() else _cached_codes
    return make(height, width, dim, torch.device(device), dtype)


def _codes(height: int, width: int, dim: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    half = dim // 2
    # Cached tensors outlive the caller's mode: one made in inference mode could not be trained with later.
    with torch.inference_mode(False), torch.no_grad():
        frequency = 10000.0 ** (2 * torch.arange(half // 2, dtype=torch.float64) / half)

        def code(side: int) -> torch.Tensor:
            count = torch.arange(1, side + 1, dtype=torch.float64)
            angle = (count / (side + 1e-6) * 2 * math.pi)[:, None] / frequency
            return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)

        rows = code(height)[:, None].expand(height, width, half)
        columns = code(width)[None].expand(height, width, half)
        return torch.cat([rows, columns], -1).reshape(1, height * width, dim).to(device, dtype)


_cached_codes = functools.lru_cache(maxsize=32)(_codes)
