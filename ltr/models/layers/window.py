"""Windows that prefer the middle of a score map."""

from __future__ import annotations

import functools

import numpy as np
import torch


@functools.lru_cache(maxsize=32)
def hann_window(size: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Hann window of a square map, ``[size * size]`` float32 in [0, 1], zero at the border; cached."""
    line = np.hanning(size)
    with torch.inference_mode(False):
        return torch.from_numpy(np.outer(line, line).ravel()).float().to(device)
