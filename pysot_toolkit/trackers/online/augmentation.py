"""The first frame seen in other ways: what a filter is learned from before there is a second frame.

A patch larger than the network's input is changed (mirrored, blurred, turned) and its middle is taken, moved by a
shift, so that what comes in from the sides is image, not padding (Danelljan et al., ATOM, CVPR 2019, 4.1).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F


@dataclass(frozen=True, kw_only=True)
class Augmentations:
    """Which samples the first frame makes, beside the plain one."""

    relative_shifts: tuple[tuple[float, float], ...] = ((0.6, 0.6), (-0.6, 0.6), (0.6, -0.6), (-0.6, -0.6))
    """rows and columns, in halves of the sample."""
    mirror: bool = True
    blurs: tuple[tuple[float, float], ...] = ((3, 1), (1, 3), (2, 2))
    """sigma of rows and columns, px of the sample."""
    rotations: tuple[float, ...] = (10, -10, 45, -45)
    """degrees."""
    dropouts: int = 2
    """plain samples more, with channels of the features left out."""
    dropout_rate: float = 0.2


class View(NamedTuple):
    """One way to see the patch."""

    change: Callable[[torch.Tensor], torch.Tensor]  # [1, C, H, W] to [1, C, H', W']
    shift: tuple[int, int] = (0, 0)  # rows, columns: where the content is moved to, px


def views(
    chosen: Augmentations,
    size: int,
    random_shift: float,
    generator: torch.Generator,
    base: tuple[int, int] = (0, 0),
) -> list[View]:
    """The plain view first, then the shifted, mirrored, blurred and turned ones; dropout is the features' matter.

    Args:
        size: side of the samples, px.
        random_shift: the mirrored, blurred and turned ones move by up to half this share of ``size``.
        generator: of the random shifts.
        base: shift of all, px.
    """

    def moved() -> tuple[int, int]:
        draws = (torch.rand(2, generator=generator) - 0.5) * size * random_shift
        return (int(draws[0] + base[0]), int(draws[1] + base[1]))

    found = [View(plain, base)]
    for rows, columns in chosen.relative_shifts:
        found.append(View(plain, (base[0] + int(rows * size / 2), base[1] + int(columns * size / 2))))
    changes: list[Callable[[torch.Tensor], torch.Tensor]] = [mirrored] if chosen.mirror else []
    changes += [functools.partial(blurred, sigma=sigma) for sigma in chosen.blurs]
    changes += [functools.partial(rotated, degrees=angle) for angle in chosen.rotations]
    return found + [View(change, moved()) for change in changes]


def expanded_size(size: int, factor: float) -> int:
    """Side of the patch that is changed: ``factor`` times ``size``, with as much to spare on both sides."""
    expanded = int(size * factor)
    return expanded + (expanded - size) % 2


def seen(patch: torch.Tensor, chosen: list[View], size: int) -> torch.Tensor:
    """All views of a patch ``[1, C, H, W]``: samples ``[N, C, size, size]``."""
    return torch.cat([middle(view.change(patch), size, view.shift) for view in chosen])


def middle(patch: torch.Tensor, size: int | None, shift: tuple[int, int] = (0, 0)) -> torch.Tensor:
    """The ``size x size`` middle of a patch ``[1, C, H, W]`` (None: all of it), content moved by ``shift`` (rows,
    columns) px; the border's pixels are repeated where the patch ends."""
    height, width = patch.shape[2:]
    spare = [0.0 if size is None else (size - side) / 2 for side in (height, width)]
    before = [math.floor(half) + by for half, by in zip(spare, shift)]
    after = [math.ceil(half) - by for half, by in zip(spare, shift)]
    return F.pad(patch, (before[1], after[1], before[0], after[0]), mode="replicate")


def plain(patch: torch.Tensor) -> torch.Tensor:
    """The patch as it is."""
    return patch


def mirrored(patch: torch.Tensor) -> torch.Tensor:
    """Left and right exchanged."""
    return patch.flip(3)


def upside_down(patch: torch.Tensor) -> torch.Tensor:
    """Top and bottom exchanged."""
    return patch.flip(2)


def blurred(patch: torch.Tensor, sigma: tuple[float, float]) -> torch.Tensor:
    """Gaussian blur with ``sigma`` (rows, columns) px, cut at ``ceil(2 sigma)``, black outside."""
    channels = patch.shape[1]
    for axis, width in zip((2, 3), sigma):
        radius = math.ceil(2 * width)
        offset = torch.arange(-radius, radius + 1, dtype=patch.dtype, device=patch.device)
        weights = torch.exp(-(offset**2) / (2 * width**2))
        shape, padding = [1, 1, 1, 1], [0, 0]
        shape[axis], padding[axis - 2] = -1, radius
        kernel = (weights / weights.sum()).view(shape).expand(channels, -1, -1, -1)
        patch = F.conv2d(patch, kernel, padding=padding, groups=channels)
    return patch


def scaled(patch: torch.Tensor, factor: float) -> torch.Tensor:
    """Smaller by ``factor``, bilinear; the side changes by an even number of px."""
    size = [round(side / factor) for side in patch.shape[2:]]
    size = [new + (new - side) % 2 for new, side in zip(size, patch.shape[2:])]
    return F.interpolate(patch, size, mode="bilinear", align_corners=False)


def rotated(patch: torch.Tensor, degrees: float) -> torch.Tensor:
    """Turned counter-clockwise about its middle, bilinear, the border's pixels repeated."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    height, width = patch.shape[2:]
    # grid_sample counts from -1 to 1 between the middles of the outermost pixels
    ratio = (height - 1) / (width - 1)
    turn = np.array([[[cos, -sin * ratio, 0.0], [sin / ratio, cos, 0.0]]])
    theta = torch.from_numpy(turn).to(patch.device, patch.dtype)
    grid = F.affine_grid(theta, list(patch.shape), align_corners=True)
    return F.grid_sample(patch, grid, mode="bilinear", padding_mode="border", align_corners=True)


def dropped(features: torch.Tensor, count: int, rate: float, generator: torch.Generator) -> torch.Tensor:
    """``count`` copies of features ``[1, C, h, w]``, each without a random share ``rate`` of its channels; the rest is
    enlarged so that sums stay: ``[count, C, h, w]``."""
    kept = torch.rand(count, features.shape[1], 1, 1, generator=generator) >= rate
    return features * (kept.to(features.device, features.dtype) / (1 - rate))
