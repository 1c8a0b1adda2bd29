"""Learned functions of the distance from a point. Bhat et al., DiMP, ICCV 2019, section 3.4."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def radial_functions(
    values: torch.Tensor, spacing: float, centres: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """Maps of functions that are piecewise linear in the distance from a centre.

    The published networks sum triangular basis functions of the distance; their sum is linear between the
    knots and constant after the last, so that it is interpolated here, without a map per basis function.

    Args:
        values: ``[M, K]``, of each function at distances 0, spacing, ..., (K - 1) * spacing; K at least 2.
        spacing: cells.
        centres: ``[N, 2]`` (row, column), cells; they take no gradient.
        size: rows and columns of the maps.

    Returns:
        ``[M, N, rows, columns]``.
    """
    centres = centres.detach().to(values.dtype)
    rows, columns = (
        torch.arange(n, dtype=centres.dtype, device=centres.device) - centres[:, axis, None]
        for axis, n in enumerate(size)
    )
    last = values.shape[1] - 1
    distance = (rows[:, :, None].square() + columns[:, None].square()).sqrt() / spacing
    distance = distance.clamp(max=last).nan_to_num(
        last
    )  # the box of a diverged network is far from everywhere
    knot = distance.floor().clamp(max=last - 1)
    low, high = (F.embedding(knot.long() + step, values.t()) for step in (0, 1))
    return torch.lerp(low, high, (distance - knot)[..., None]).movedim(-1, 0)
