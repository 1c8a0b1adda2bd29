"""Small constants on a device."""

from __future__ import annotations

import functools

import torch


@functools.lru_cache(maxsize=64)
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Numbers ``[n]`` on a device, made once: copying them there for every step would wait for all work before them."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
