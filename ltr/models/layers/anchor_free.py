"""Geometry of Ocean's maps: cells at stride 8, boxes as distances to the four sides. Zhang et al., ECCV 2020.

The backbones pad so that a crop of ``n`` px has ``(n - 7) // 8`` feature cells a side, cell ``i``
centred at pixel ``8 * i + 7``: 15 of 127 px, 31 of 255 px. Correlation with a template of ``k x k``
cells leaves ``features - k + 1`` of them: 25 for the published 31 and 7. Every odd size works;
at sizes ``16 * n - 1`` the middle cell is the middle pixel.
"""

from __future__ import annotations

import torch

STRIDE = 8
_FIRST = 7  # px, centre of the first cell; the pixels before it are what unpadded convolutions eat


def feature_size(crop_size: int) -> int:
    """Feature cells a side of a crop of that many px."""
    return (crop_size - _FIRST) // STRIDE


def map_size(search_size: int, template_cells: int = 7) -> int:
    """Cells a side of the outputs for a search crop, px, and a template of that many cells a side."""
    return feature_size(search_size) - template_cells + 1


def grid(
    map_size: int, search_size: int, stride: int = STRIDE, *, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the cells of an output map lie.

    Args:
        map_size: cells a side.
        search_size: side of the search crop, px.
        stride: px between cells.

    Returns:
        x of every column and y of every row, search px, float32 ``[map_size]`` each.
    """
    middle = _FIRST + STRIDE * (feature_size(search_size) - 1) / 2
    line = stride * (torch.arange(map_size, dtype=torch.float32, device=device) - (map_size - 1) / 2) + middle
    return line, line


def corners(distances: torch.Tensor, search_size: int) -> torch.Tensor:
    """Boxes of every cell.

    Args:
        distances: left, top, right, bottom, search px, ``[B, 4, map, map]``.
        search_size: side of the search crop, px.

    Returns:
        (x1, y1, x2, y2) in search px, ``[B, 4, map, map]``.
    """
    x, y = grid(distances.shape[-1], search_size, device=distances.device)
    left, top, right, bottom = distances.unbind(1)
    y = y[:, None]
    return torch.stack([x - left, y - top, x + right, y + bottom], 1)


def align_offsets(distances: torch.Tensor) -> torch.Tensor:
    """Offsets that spread the nine points of a 3x3 kernel over the box predicted at each cell.

    The points are moved from their places around the cell to the centre, the corners and the middles
    of the sides of the box (Ocean, section 3.2), as published half a pixel left of and above it.

    Args:
        distances: left, top, right, bottom, search px, ``[B, 4, H, W]``.

    Returns:
        (y, x) in cells for the nine points, rows first, ``[B, 18, H, W]``; finite whatever the distances.
    """
    left, top, right, bottom = (distances / STRIDE).unbind(1)
    pixel = 1 / STRIDE

    def along(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Offsets ``[B, 3, H, W]`` of the three points along one axis."""
        centre = (after - before - pixel) / 2
        reach = (before + after + pixel) / 2 - 1
        return torch.stack([centre - reach, centre, centre + reach], 1)

    y = along(top, bottom)[:, :, None].expand(-1, -1, 3, -1, -1)
    x = along(left, right)[:, None].expand(-1, 3, -1, -1, -1)
    # The operators' kernels compute an index from an offset; one that is no number would crash the process.
    return torch.stack([y, x], 3).flatten(1, 3).nan_to_num()
