"""The kernels' arithmetic, compiled by a C++ compiler, as implementations of the operators on the CPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import torch

GUARD = 64  # numbers around each tensor: NaN, so that whoever reads there is found out, and NaN still after a write


class Host:
    """The operators' CPU implementation by the headers' functions, compiled to a shared library."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    @classmethod
    def compiled(cls, source: Path, folder: Path) -> Host:
        """Compile ``host.cpp`` into the folder; needs ``compiler()``."""
        path = folder / "host.so"
        strict = ["-Wall", "-Wextra", "-Werror"]
        command = [compiler(), "-std=c++17", "-O1", *strict, "-shared", "-fPIC", source, "-o", path]
        subprocess.run(command, check=True)
        return cls(ctypes.CDLL(str(path)))

    def call(
        self,
        name: str,
        inputs: list[torch.Tensor | None],
        numbers: list[list[int] | float],
        *outputs: torch.Tensor,
    ) -> None:
        """Call a function of ``host.cpp``, which writes into ``outputs``; all tensors are of one type."""
        kind = outputs[0].dtype
        buffers = []
        for value in (*inputs, *outputs):
            if value is None:
                buffers.append(None)
                continue
            assert value.dtype == kind
            buffer = torch.full((value.numel() + 2 * GUARD,), torch.nan, dtype=kind)
            buffer[GUARD : GUARD + value.numel()] = value.flatten()
            buffers.append(buffer)
        tensors = [
            ctypes.c_void_p(None if buffer is None else buffer[GUARD:].data_ptr()) for buffer in buffers
        ]
        passed = [(ctypes.c_int * len(n))(*n) if isinstance(n, list) else ctypes.c_double(n) for n in numbers]
        function = getattr(self.library, f"{name}_{str(kind).removeprefix('torch.')}")
        function(*tensors[: len(inputs)], *passed, *tensors[len(inputs) :])
        for buffer, value in zip(buffers[len(inputs) :], outputs):
            end = GUARD + value.numel()
            assert buffer[:GUARD].isnan().all() and buffer[end:].isnan().all(), "wrote outside"
            value.copy_(buffer[GUARD:end].view(value.shape))

    def prroi_pool(self, features, rois, rows, columns, scale):
        out = features.new_full((len(rois), features.shape[1], rows, columns), torch.nan)
        sizes = [*features.shape, len(rois), rows, columns]
        self.call("prroi_pool", [features, rois], [sizes, scale], out)
        return out

    def prroi_pool_grad_features(self, grad, features, rois, scale):
        out = features.new_zeros(features.shape)
        unread = torch.full_like(features, torch.nan)
        sizes = [*features.shape, len(rois), *grad.shape[2:]]
        self.call("prroi_pool_grad_features", [grad, unread, rois], [sizes, scale], out)
        return out

    def prroi_pool_grad_rois(self, grad, features, rois, scale):
        out = rois.new_zeros(rois.shape)
        sizes = [*features.shape, len(rois), *grad.shape[2:]]
        self.call("prroi_pool_grad_rois", [grad, features, rois], [sizes, scale], out)
        return out

    def deform_columns(self, features, offset, mask, *geometry):
        rows, columns = geometry[0]
        places = offset.shape[0] * offset.shape[2] * offset.shape[3]
        out = features.new_full((features.shape[1] * rows * columns, places), torch.nan)
        sizes = self._sizes(features, offset, geometry)
        self.call("deform_columns", [features, offset, mask], [sizes], out)
        return out

    def deform_columns_grad(self, grad, features, offset, mask, *geometry):
        found = [value.new_zeros(value.shape) for value in (features, offset)]
        found.append(features.new_zeros(0 if mask is None else mask.shape))
        sizes = self._sizes(features, offset, geometry)
        self.call("deform_columns_grad", [grad, features, offset, mask], [sizes], *found)
        return tuple(found)

    @staticmethod
    def _sizes(features, offset, geometry) -> list[int]:
        rows, columns = geometry[0]
        moves = offset.shape[1] // (2 * rows * columns)
        return [*features.shape, moves, *offset.shape[2:], *(number for pair in geometry for number in pair)]


def compiler() -> str | None:
    return next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
