"""Patches about a target as the DiMP family cuts them: by a position and a size in px, resized to the network's input.

The geometry is that of visionml/pytracking, which published weights were tuned with: whole pixels, a large patch
thinned out by a whole step before it is resized, and one of three ways at the image's border. Halves of a patch are
whole numbers as they were before torch 1.6, where the published results come from; under later versions the same
published code cuts patches that are a pixel larger or smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

Border = Literal["replicate", "inside", "inside_major"]
BORDERS: tuple[Border, ...] = ("replicate", "inside", "inside_major")
_SMALLEST = 2  # px; a patch is never smaller before it is resized


class PatchWindow(NamedTuple):
    """The pixels that become a patch: rows and columns ``first <= i < last`` of every ``step``-th pixel from ``offset``."""

    first: np.ndarray  # int64 [2]; may lie outside
    last: np.ndarray  # int64 [2]
    offset: np.ndarray  # int64 [2], px of the image
    step: int
    box_yxyx: np.ndarray  # [4]: y0, x0, y1, x1 in the image, y1 and x1 exclusive


class Patch(NamedTuple):
    """A patch before it is resized."""

    pixels: np.ndarray  # uint8 [rows, columns, 3], RGB
    box_yxyx: np.ndarray  # [4], as in ``PatchWindow``
    shape: tuple[int, int]  # rows and columns that it is resized to, px


def patch_window(
    image_size: Sequence[float] | np.ndarray,
    centre: np.ndarray,
    size: np.ndarray,
    output: np.ndarray | None,
    border: Border = "replicate",
    max_shrink: float | None = None,
) -> PatchWindow:
    """Where a patch lies.

    Args:
        image_size: ``[2]`` rows and columns.
        centre: ``[2]`` px, truncated to whole numbers.
        size: ``[2]`` px of the image that the patch shows.
        output: ``[2]`` px that it is resized to, for the step; None where it is not resized.
        border: "replicate" repeats the border's pixels outside; "inside" shrinks the patch until it fits and
            moves it inside; "inside_major" shrinks it until one side fits.
        max_shrink: the patch is shrunk by at most this factor.
    """
    # float32, because the truncation of the shrunk size depends on the rounding before it
    image, size = np.asarray(image_size, np.float32), np.asarray(size, np.float32)
    at = np.trunc(centre).astype(np.int64)
    if border != "replicate":
        ratio = size / image
        shrink = ratio.max() if border == "inside" else ratio.min()
        size = np.trunc(size / np.clip(shrink, np.float32(1), max_shrink and np.float32(max_shrink)))
    step = 1 if output is None else max(int(float((size / np.asarray(output, np.float32)).min()) - 0.1), 1)
    offset = at % step
    at = (at - offset) // step
    length = np.maximum(np.rint(size / np.float32(step)), _SMALLEST).astype(np.int64)
    first, last = at - (length - 1) // 2, at + length // 2 + 1
    if border != "replicate":
        limit = thinned(image_size, offset, step)
        shift = np.maximum(-first, 0) - np.maximum(last - limit, 0)
        first, last = first + shift, last + shift
        # a side longer than the image: the image comes to its middle
        outside = (np.maximum(-first, 0) + np.maximum(last - limit, 0)) // 2
        shift = np.where(outside > 0, -first - outside, 0)
        first, last = first + shift, last + shift
    # The offset is not added, as published: the box is up to a step less one px too far up and left.
    return PatchWindow(first, last, offset, step, step * np.concatenate([first, last]))


def thinned(image_size: Sequence[float] | np.ndarray, offset: np.ndarray, step: int) -> np.ndarray:
    """Rows and columns of every ``step``-th pixel from ``offset``, int64 ``[2]``."""
    return -((offset - np.asarray(image_size, np.int64)) // step)


def cut_patch(
    image: np.ndarray,
    centre: np.ndarray,
    size: np.ndarray,
    output: np.ndarray | None = None,
    border: Border = "replicate",
    max_shrink: float | None = None,
) -> Patch:
    """Cut one patch of an image, RGB uint8 ``[H, W, 3]``; for the other arguments see ``patch_window``."""
    window = patch_window(image.shape[:2], centre, size, output, border, max_shrink)
    rows, columns = _indices(image, window)
    pixels = np.ascontiguousarray(image[rows][:, columns])
    height, width = pixels.shape[:2] if output is None else (int(side) for side in output)
    return Patch(pixels, window.box_yxyx, (height, width))


def resized(patch: Patch, device: torch.device | str = "cpu") -> torch.Tensor:
    """A patch in its final size, float32 ``[1, 3, rows, columns]``, 0..255, on ``device``, where it is resized."""
    pixels = torch.from_numpy(patch.pixels).to(device, non_blocking=True)[None].permute(0, 3, 1, 2).float()
    if pixels.shape[2:] == patch.shape:
        return pixels
    return F.interpolate(pixels, patch.shape, mode="bilinear", align_corners=False)


def sample_mask(mask: np.ndarray, centre: np.ndarray, size: np.ndarray, output: np.ndarray) -> torch.Tensor:
    """The patch of a mask ``[H, W]``: zero outside, the nearest pixel's value, float32 ``[1, 1, rows, columns]``."""
    window = patch_window(mask.shape, centre, size, output)
    padded = np.pad(mask, 1)
    limit = thinned(mask.shape, window.offset, window.step)
    rows, columns = (
        np.where((i >= 0) & (i < n), i * window.step + offset + 1, 0)
        for i, n, offset in zip(_spans(window), limit, window.offset)
    )
    patch = torch.from_numpy(padded[rows][:, columns]).float()[None, None]
    return F.interpolate(patch, [int(side) for side in output], mode="nearest")


def patch_place(boxes_yxyx: np.ndarray, output: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres ``[S, 2]`` (row, column, px) and scales ``[S]`` (px of the image per px of the patch) of patches ``[S, 4]``."""
    first, last = boxes_yxyx[:, :2].astype(np.float64), boxes_yxyx[:, 2:]
    return (first + last - 1) / 2, np.sqrt(((last - first) / output).prod(1))


def _spans(window: PatchWindow) -> list[np.ndarray]:
    return [np.arange(first, last) for first, last in zip(window.first, window.last)]


def _indices(image: np.ndarray, window: PatchWindow) -> list[np.ndarray | slice]:
    """What to take of the image's rows and columns: slices, where nothing lies outside."""
    limit = thinned(image.shape[:2], window.offset, window.step)
    chosen: list[np.ndarray | slice] = []
    for span, n, offset, size in zip(_spans(window), limit, window.offset, image.shape):
        if span[0] >= 0 and span[-1] < n:
            start = int(span[0]) * window.step + int(offset)
            chosen.append(slice(start, int(span[-1]) * window.step + int(offset) + 1, window.step))
        else:
            # in an image smaller than a step nothing may be left of it
            nearest = span.clip(0, max(int(n) - 1, 0)) * window.step + offset
            chosen.append(nearest.clip(max=size - 1))
    return chosen
