"""From uint8 crops to network inputs, on the device, whole batches at a time.

Nothing here draws random numbers: the loader makes ``DRAWS`` uniform numbers per sample from
``(seed, epoch, index)``, so that a sample looks the same on any device and on any number of ranks.
"""

from __future__ import annotations

from enum import IntEnum

import torch

from config.settings import Settings
from ltr.data.bbox import cxcywh_to_xywh, xywh_to_cxcywh
from ltr.ops.constant import constant

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's training images, RGB in [0, 1]
STD = (0.229, 0.224, 0.225)
LUMINANCE = (0.2989, 0.5870, 0.1140)  # ITU-R BT.601


class Draw(IntEnum):
    """Which column of a sample's uniform numbers decides what."""

    TEMPLATE_BRIGHTNESS = 0
    SEARCH_BRIGHTNESS = 1
    GRAY = 2
    UPSIDE_DOWN = 3
    ANGLE = 4
    MIRROR = 5


DRAWS = len(Draw)


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """Images uint8 ``[B, H, W, 3]`` as float32 ``[B, 3, H, W]`` in [0, 1] (memory stays channels-last)."""
    return images.permute(0, 3, 1, 2).float() / 255


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Crops uint8 ``[B, H, W, 3]`` as float32 ``[B, 3, H, W]``, normalised, otherwise unchanged: the teacher's input."""
    return standardise(to_unit(images))


def standardise(images: torch.Tensor) -> torch.Tensor:
    """Images ``[B, 3, H, W]`` or colours ``[B, 3]`` in [0, 1], minus ``MEAN``, over ``STD``."""
    mean, std = (_channels(values, images) for values in (MEAN, STD))
    return (images - mean) / std


def brighten(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Images ``[B, 3, ...]`` in [0, 1] times ``factor [B]``, limited to [0, 1]."""
    return (images * _samples(factor, images)).clamp(0, 1)


def gray(images: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Images ``[B, 3, ...]``; those ``chosen`` (bool ``[B]``) show their luminance in all three channels."""
    luminance = (images * _channels(LUMINANCE, images)).sum(1, keepdim=True)
    return torch.where(_samples(chosen, images), luminance, images)


def rotate(
    images: torch.Tensor,
    bbox: torch.Tensor,
    fill: torch.Tensor,
    angle: torch.Tensor,
    upside_down: torch.Tensor,
    mirror: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mirror images left-right where chosen, then turn them counter-clockwise about pixel ``(W/2, H/2)``.

    Pixels are taken from the nearest one. The box becomes the bounding box of the turned ellipse that
    is inscribed in it: targets fill their boxes more like ellipses than like rectangles.

    Args:
        images: float ``[B, 3, H, W]``.
        bbox: ``[B, 4]`` xywh px in the image.
        fill: colour of what comes from outside, ``[B, 3]``, in the scale of ``images``.
        angle: degrees ``[B]``.
        upside_down: bool ``[B]``: turn by 180 degrees more.
        mirror: bool ``[B]``.

    Returns:
        images of the same shape, and boxes ``[B, 4]``, which may reach beyond the image.
    """
    height, width = images.shape[-2:]
    radians = torch.deg2rad(angle.to(bbox.dtype))
    sign = 1.0 - 2.0 * upside_down.to(bbox.dtype)  # exact, where cos and sin of 180 degrees are not
    cos, sin = radians.cos() * sign, radians.sin() * sign

    x = torch.arange(width, device=images.device, dtype=bbox.dtype) - width / 2
    y = (torch.arange(height, device=images.device, dtype=bbox.dtype) - height / 2)[:, None]
    column = (_samples(cos, x, 3) * x - _samples(sin, x, 3) * y + width / 2).round().long()
    row = (_samples(sin, x, 3) * x + _samples(cos, x, 3) * y + height / 2).round().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column = torch.where(_samples(mirror, x, 3), width - 1 - column, column)
    source = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).flatten(1)
    # Pixels are whole rows of three in channels-last memory, so one index per pixel serves them all.
    pixels = images.permute(0, 2, 3, 1).flatten(1, 2).gather(1, source[..., None].expand(-1, -1, 3))
    turned = torch.where(inside.flatten(1)[..., None], pixels, fill[:, None].to(images.dtype))

    cx, cy, w, h = xywh_to_cxcywh(bbox).unbind(-1)
    cx = torch.where(mirror, width - 1 - cx, cx) - width / 2
    cy = cy - height / 2
    box = [
        cos * cx + sin * cy + width / 2,
        cos * cy - sin * cx + height / 2,
        ((w * cos) ** 2 + (h * sin) ** 2).sqrt(),
        ((w * sin) ** 2 + (h * cos) ** 2).sqrt(),
    ]
    return turned.unflatten(1, (height, width)).permute(0, 3, 1, 2), cxcywh_to_xywh(torch.stack(box, -1))


class StudentAugment:
    """The changes to the student's inputs.

    Args:
        settings: ``brightness`` (factor uniform in [1 - b, 1 + b], per crop), ``gray`` (probability, one
            decision for both crops of a pair), ``mirror``, ``upside_down`` (probabilities, aug crop only)
            and ``max_angle`` (degrees, integer angle uniform in [-a, a], aug crop only).
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def pair(
        self, template: torch.Tensor, search: torch.Tensor, draws: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Brightness, grey and normalisation.

        Args:
            template: uint8 ``[B, h, w, 3]``.
            search: uint8 ``[B, H, W, 3]``.
            draws: ``[B, DRAWS]`` uniform in [0, 1).

        Returns:
            float32 ``[B, 3, h, w]`` and ``[B, 3, H, W]``, normalised.
        """
        return (
            self._prepare(to_unit(template), draws, Draw.TEMPLATE_BRIGHTNESS),
            self._prepare(to_unit(search), draws, Draw.SEARCH_BRIGHTNESS),
        )

    def unlabelled_pair(
        self,
        relay: torch.Tensor,
        aug: torch.Tensor,
        bbox: torch.Tensor,
        aug_mean: torch.Tensor,
        draws: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As ``pair``, and the aug crop is mirrored and rotated with its box.

        Args:
            relay: uint8 ``[B, h, w, 3]``.
            aug: uint8 ``[B, H, W, 3]``.
            bbox: ``[B, 4]`` xywh px in the aug crop.
            aug_mean: channel means of the aug crops' frames, 0..255 ``[B, 3]``; fills the corners.
            draws: ``[B, DRAWS]`` uniform in [0, 1).

        Returns:
            relay, aug (float32 ``[B, 3, ...]``, normalised) and boxes ``[B, 4]``, not clipped.
        """
        relay, aug = self.pair(relay, aug, draws)
        fill = self._prepare(aug_mean.float() / 255, draws, Draw.SEARCH_BRIGHTNESS)
        angles = 2 * self.settings.max_angle + 1
        angle = (draws[:, Draw.ANGLE] * angles).floor().clamp(max=angles - 1) - self.settings.max_angle
        upside_down = draws[:, Draw.UPSIDE_DOWN] < self.settings.upside_down
        mirror = draws[:, Draw.MIRROR] < self.settings.mirror
        aug, bbox = rotate(aug, bbox, fill, angle, upside_down, mirror)
        return relay, aug, bbox

    def _prepare(self, images: torch.Tensor, draws: torch.Tensor, brightness: Draw) -> torch.Tensor:
        factor = 1 + self.settings.brightness * (2 * draws[:, brightness] - 1)
        chosen = draws[:, Draw.GRAY] < self.settings.gray
        return standardise(gray(brighten(images, factor), chosen))


def _channels(values: tuple[float, ...], like: torch.Tensor) -> torch.Tensor:
    """Three numbers, shaped to broadcast along dimension 1 of ``like``."""
    return constant(values, like.dtype, like.device).view(1, 3, *[1] * (like.ndim - 2))


def _samples(values: torch.Tensor, like: torch.Tensor, ndim: int | None = None) -> torch.Tensor:
    """One number per sample ``[B]``, shaped to broadcast along dimension 0 of ``like`` or of ``ndim`` dimensions."""
    return values.view(-1, *[1] * ((ndim or like.ndim) - 1))
