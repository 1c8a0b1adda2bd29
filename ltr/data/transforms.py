"""Changes to images and their boxes, on the device, whole batches at a time.

Nothing here draws random numbers: what is drawn comes as an argument. Images are float ``[N, 3, H, W]``, boxes
``(x, y, w, h)`` in pixels with the image's left and top edges at 0. Brightness, grey and normalisation are those of
``ltr.data.augment``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import torch
import torch.nn.functional as F

from ltr.data.augment import brighten, gray, standardise, to_unit
from ltr.data.bbox import xywh_to_xyxy


class FrameDraw(IntEnum):
    """Which column of a frame's uniform numbers decides what."""

    BRIGHTNESS = 0
    MIRROR = 1


FRAME_DRAWS = len(FrameDraw)


@dataclass(frozen=True, kw_only=True)
class SequenceAugment:
    """From the uint8 crops of sequences to network inputs (Bhat et al., DiMP, ICCV 2019)."""

    gray: float = 0.05  # probability, one draw for all frames of a sequence
    brightness: float = 0.2  # factor uniform in [1 - b, 1 + b], per frame; 0: unchanged
    mirror: float = 0.0  # probability, per frame

    def __call__(
        self, images: torch.Tensor, draws: torch.Tensor, gray_draw: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Grey, brightness, mirror, normalisation.

        Args:
            images: uint8 ``[F, B, H, W, 3]``.
            draws: ``[F, B, FRAME_DRAWS]`` uniform in [0, 1).
            gray_draw: ``[B]`` uniform in [0, 1).

        Returns:
            float32 ``[F, B, 3, H, W]``, and which images are mirrored, bool ``[F, B]``.
        """
        frames, sequences = images.shape[:2]
        unit = to_unit(images.flatten(0, 1))
        draws = draws.flatten(0, 1)
        factor = 1 + self.brightness * (2 * draws[:, FrameDraw.BRIGHTNESS] - 1)
        mirrored = draws[:, FrameDraw.MIRROR] < self.mirror
        unit = brighten(gray(unit, (gray_draw < self.gray).repeat(frames)), factor)
        if self.mirror:
            unit = mirror_images(unit, mirrored)
        shape = (frames, sequences)
        return standardise(unit).unflatten(0, shape), mirrored.unflatten(0, shape)


def mirror_images(images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Images or masks ``[N, ..., W]``; those ``chosen`` (bool ``[N]``) left-right mirrored."""
    return torch.where(chosen.view(-1, *[1] * (images.ndim - 1)), images.flip(-1), images)


def mirror_boxes(bbox: torch.Tensor, width: int, chosen: torch.Tensor) -> torch.Tensor:
    """Boxes ``[..., 4]`` in mirrored images of a width; ``chosen`` (bool) broadcasts with ``[...]``."""
    x, y, w, h = bbox.unbind(-1)
    return torch.stack([torch.where(chosen, width - x - w, x), y, w, h], -1)


def blur(images: torch.Tensor, sigma: float, chosen: torch.Tensor) -> torch.Tensor:
    """Images; those ``chosen`` (bool ``[N]``) blurred by a normal kernel of ``sigma`` px, their borders continued."""
    radius = math.ceil(2 * sigma)
    x = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    channels = images.shape[1]
    blurred = F.pad(images, (radius,) * 4, mode="replicate")
    blurred = F.conv2d(F.conv2d(blurred, kernel, groups=channels), kernel.mT, groups=channels)
    return torch.where(chosen.view(-1, 1, 1, 1), blurred, images)


def affine_matrices(
    size: tuple[int, int],
    *,
    mirror: torch.Tensor,
    degrees: torch.Tensor,
    shear: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
) -> torch.Tensor:
    """Matrices from coordinates of images to those of changed images, px.

    In this order: shift, mirror, shear, turn and scale, the last three about the image's middle.

    Args:
        size: width and height, px.
        mirror: bool ``[N]``, left-right.
        degrees: ``[N]``, counter-clockwise.
        shear: ``[N, 2]``: of x per y, of y per x.
        scale: ``[N, 2]`` of x and y.
        shift: ``[N]``: towards the top left, in fifths of the width along both axes (as published).

    Returns:
        ``[N, 2, 3]``.
    """
    width, height = size
    radians = torch.deg2rad(degrees)
    one, zero = torch.ones_like(degrees), torch.zeros_like(degrees)
    away = -0.2 * width * shift
    sign = torch.where(mirror, -one, one)
    moved = _matrices([one, zero, away], [zero, one, away])
    mirrored = _matrices([sign, zero, (1 - sign) / 2 * width], [zero, one, zero])
    sheared = _about_middle(size, [one, shear[:, 0]], [shear[:, 1], one])
    # As published, sheared without regard to the other coordinate's middle.
    sheared[:, 0, 2], sheared[:, 1, 2] = -shear[:, 0] * 0.5 * width, -shear[:, 1] * 0.5 * height
    turned = _about_middle(size, [radians.cos(), radians.sin()], [-radians.sin(), radians.cos()])
    scaled = _about_middle(size, [scale[:, 0], zero], [zero, scale[:, 1]])
    return (scaled @ turned @ sheared @ mirrored @ moved)[:, :2]


def _matrices(*rows: list[torch.Tensor]) -> torch.Tensor:
    """Homogeneous matrices ``[N, 3, 3]`` from two rows of numbers ``[N]``."""
    top = torch.stack([torch.stack(row, -1) for row in rows], 1)
    last = top.new_tensor([0.0, 0.0, 1.0]).expand(len(top), 1, 3)
    return torch.cat([top, last], 1)


def _about_middle(size: tuple[int, int], *rows: list[torch.Tensor]) -> torch.Tensor:
    """Linear maps with the image's middle where it is."""
    x, y = size[0] / 2, size[1] / 2
    return _matrices(
        [*rows[0], x - rows[0][0] * x - rows[0][1] * y], [*rows[1], y - rows[1][0] * x - rows[1][1] * y]
    )


def warp(images: torch.Tensor, matrices: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    """Images ``[N, C, H, W]`` changed by ``matrices [N, 2, 3]`` (px, see above), zero outside.

    Args:
        mode: ``bilinear``, or ``nearest`` for masks.
    """
    height, width = images.shape[-2:]
    last = matrices.new_tensor([0.0, 0.0, 1.0]).expand(len(matrices), 1, 3)
    # torch counts from -1 at the left and top edges to 1 at the others
    to_px = matrices.new_tensor([[width / 2, 0, width / 2], [0, height / 2, height / 2], [0, 0, 1]])
    back = to_px.inverse() @ torch.cat([matrices, last], 1).inverse() @ to_px
    grid = F.affine_grid(back[:, :2].to(images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode=mode, padding_mode="zeros", align_corners=False)


def warp_boxes(bbox: torch.Tensor, matrices: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Boxes ``[N, B, 4]`` about the changed corners of boxes in images changed by ``matrices [N, 2, 3]``.

    Their corners are clipped to the image of ``size`` (width, height).
    """
    left, top, right, bottom = xywh_to_xyxy(bbox).unbind(-1)
    x, y = torch.stack([left, right, right, left], -1), torch.stack([top, top, bottom, bottom], -1)
    corners = torch.stack([x, y, torch.ones_like(x)], -1)
    moved = corners @ matrices.to(bbox.dtype).mT[:, None]
    moved = torch.minimum(moved.clamp(min=0), moved.new_tensor(size))
    low, high = moved.amin(-2), moved.amax(-2)
    return torch.cat([low, high - low], -1)
