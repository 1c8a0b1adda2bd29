"""What the cells of a score map should say, for whole batches, on any device.

A map has ``rows x columns`` cells that lie ``image / features`` pixels apart. A filter with an even side gives a
map that is one cell larger than the features and half a cell off. Boxes are ``(x, y, w, h)`` in pixels of the
image that the features are of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ltr.data.bbox import xywh_to_cxcywh, xywh_to_xyxy


@dataclass(frozen=True, kw_only=True)
class GaussianLabel:
    """A bump at the target's centre (Danelljan et al., ATOM, CVPR 2019; Bhat et al., DiMP, ICCV 2019).

    As a density it is normal, for the losses of ``ltr.models.loss.kl`` (Danelljan et al., PrDiMP, CVPR 2020).
    """

    sigma: float  # over the root of the number of features
    kernel: int  # side of the filter, cells
    features: tuple[int, int]  # columns and rows of the features
    image: tuple[int, int]  # width and height, px
    pad_even: bool = True  # for an even filter: the map's last row and column too
    density: bool = False
    bias: float = 0.0  # added; to a density: the share of the uniform density
    threshold: float = 0.0  # of a density: what is not above it becomes 0
    normalise: bool = False  # a density: to the sum 1; one with hardly any sum becomes uniform
    shrink: float = 0.0  # of a density: the share that is taken off

    def __call__(self, bbox: torch.Tensor) -> torch.Tensor:
        """Maps ``[..., rows, columns]`` of boxes ``[..., 4]``."""
        even = self.kernel % 2 == 0
        sigma = self.sigma * math.sqrt(math.prod(self.features))
        centre = xywh_to_cxcywh(bbox)[..., :2]
        bumps = []
        for axis, (cells, side) in enumerate(zip(self.features, self.image)):
            middle = cells * (centre[..., axis] / side - 0.5) + 0.5 * even
            count = cells + (even and self.pad_even)
            k = torch.arange(count, device=bbox.device, dtype=bbox.dtype) - (cells - 1) / 2
            bumps.append(torch.exp(-0.5 * ((k - middle[..., None]) / sigma) ** 2))
        label = bumps[1][..., :, None] * bumps[0][..., None, :]
        return self._density(label / (2 * math.pi * sigma**2)) if self.density else label + self.bias

    def _density(self, label: torch.Tensor) -> torch.Tensor:
        cells = label.shape[-1] * label.shape[-2]
        label = (1 - self.bias) * label + self.bias / cells
        label = torch.where(label > self.threshold, label, 0.0)
        if self.normalise:
            total = label.sum((-2, -1), keepdim=True)
            label = torch.where(total > 0.01, label / total, 1 / cells)
        return label * (1 - self.shrink)


def box_distances(bbox: torch.Tensor, cells: tuple[int, int], stride: int) -> torch.Tensor:
    """Distances of each cell's centre from the box's left, top, right and bottom, negative beyond it.

    Args:
        bbox: ``[..., 4]``.
        cells: columns and rows of the map.
        stride: px from cell to cell.

    Returns:
        ``[..., 4, rows, columns]``, px.
    """
    columns, rows = cells
    x, y = (
        (torch.arange(count, device=bbox.device, dtype=bbox.dtype) + 0.5) * stride
        for count in (columns, rows)
    )
    left, top, right, bottom = xywh_to_xyxy(bbox)[..., None, None].unbind(-3)
    sides = x - left, y[:, None] - top, right - x, bottom - y[:, None]
    return torch.stack([side.expand(*bbox.shape[:-1], rows, columns) for side in sides], -3)


def sampling_region(
    bbox: torch.Tensor, cells: tuple[int, int], stride: int, radius: float = 0.0
) -> torch.Tensor:
    """Which cells learn the box: those strictly within it and near its centre (Tian et al., FCOS, ICCV 2019).

    Args:
        bbox, cells, stride: as for ``box_distances``.
        radius: cells from the centre, in either direction; 0: the whole box.

    Returns:
        bool ``[..., 1, rows, columns]``.
    """
    inside = box_distances(bbox, cells, stride).amin(-3, keepdim=True) > 0
    if not radius:
        return inside
    centre = xywh_to_cxcywh(bbox)[..., :2]
    reach = torch.full_like(centre, radius * stride)
    around = torch.cat([centre - reach, 2 * reach], -1)
    return inside & (box_distances(around, cells, stride).amin(-3, keepdim=True) > 0)


def boxes_of_masks(masks: torch.Tensor) -> torch.Tensor:
    """The smallest boxes ``[..., 4]`` that hold the non-zero pixels of masks ``[..., H, W]``, float32.

    A mask without any has the box ``0, 0, 0, 0``.
    """
    first, last = [], []
    for axis in (-1, -2):
        used = (masks != 0).any(-3 - axis)
        count = used.shape[-1]
        index = torch.arange(count, device=masks.device)
        first.append(torch.where(used, index, count).amin(-1))
        last.append(torch.where(used, index + 1, 0).amax(-1))
    size = torch.stack(last, -1) - torch.stack(first, -1)
    found = (size > 0).all(-1, keepdim=True)
    return torch.where(found, torch.cat([torch.stack(first, -1), size], -1), 0).float()


def local_maxima(scores: torch.Tensor, threshold: float, side: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """The peaks of one map (Mayer et al., KeepTrack, ICCV 2021).

    Args:
        scores: ``[rows, columns]``.
        threshold: peaks are higher.
        side: of the square in which a peak is the highest, cells, odd.

    Returns:
        row and column of each ``[n, 2]``, and their scores ``[n]``; the highest first.
    """
    highest = F.max_pool2d(scores[None, None], side, stride=1, padding=side // 2)[0, 0]
    peaks = ((scores == highest) & (scores > threshold)).nonzero()
    values, order = scores[peaks[:, 0], peaks[:, 1]].sort(descending=True, stable=True)
    return peaks[order], values
