"""Applying one filter per sequence to features, and the transpose of that.

A filter of k x k taps is k * k linear maps of the channels, whose outputs are shifted and added. So both functions
are one matrix product that reads the features once, and a shift of maps that have one channel per tap. (A grouped
convolution computes the same; with its one output channel per group it takes 7 to 15 times as long on a CPU.)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

Size = tuple[int, int]  # rows and columns


def score_size(size: Size, kernel: Size, dilation: int = 1) -> Size:
    """The size of the scores of features: without dilation the same, one more along the sides of an even filter."""
    rows, columns = (
        cells + 2 * (taps // 2 + dilation - 1) - dilation * (taps - 1) for cells, taps in zip(size, kernel)
    )
    return rows, columns


def apply_filter(features: torch.Tensor, filters: torch.Tensor, dilation: int = 1) -> torch.Tensor:
    """Scores: the cross-correlation of the features of S sequences with their filters, zeros outside.

    The score at (y, x) of a k x k filter is that of the features from (y, x) - k // 2 on (centred by the dilation).

    Args:
        features: ``[F, S, C, H, W]``, the same filters for all F frames of a sequence.
        filters: ``[S, C, k, l]``, or N per sequence ``[S, N, C, k, l]``.
        dilation: distance of neighbouring taps, in cells.

    Returns:
        ``[F, S, H', W']`` or ``[F, S, N, H', W']``, at least float32; H' and W' as ``score_size`` says.
    """
    frames, sequences, channels, *size = features.shape
    kernel = (filters.shape[-2], filters.shape[-1])
    several = filters.shape[1:-3]
    # [S, N * k * l, C]; the last tap comes first, because it reaches the scores furthest up and left
    taps = filters.reshape(sequences, -1, channels, *kernel).flip(-2, -1).movedim(2, -1).flatten(1, 3)
    answers = taps @ features.flatten(3)
    answers = answers.to(torch.promote_types(answers.dtype, torch.float32))
    scores = F.fold(
        answers.reshape(-1, kernel[0] * kernel[1], answers.shape[-1]),
        score_size((size[0], size[1]), kernel, dilation),
        kernel,
        dilation,
        _padding(kernel, dilation),
    )
    return scores.view(frames, sequences, *several, *scores.shape[-2:])


def apply_transpose(
    features: torch.Tensor, scores: torch.Tensor, kernel: Size, dilation: int = 1
) -> torch.Tensor:
    """The transpose of ``apply_filter`` as a map of filters: from the derivative by scores to that by filters.

    Args:
        features: ``[F, S, C, H, W]``.
        scores: ``[F, S, H', W']`` or ``[F, S, N, H', W']``, in the type of ``features``.
        kernel: rows and columns of the filters.
        dilation: as for ``apply_filter``.

    Returns:
        ``[S, C, k, l]`` or ``[S, N, C, k, l]``, summed over the frames.
    """
    frames, sequences, channels = features.shape[:3]
    several = scores.shape[2:-2]
    taps = F.unfold(scores.reshape(-1, 1, *scores.shape[-2:]), kernel, dilation, _padding(kernel, dilation))
    taps = taps.view(frames * sequences, -1, taps.shape[-1])  # [F * S, N * k * l, H * W]
    products = torch.bmm(taps, features.reshape(frames * sequences, channels, -1).transpose(1, 2))
    filters = products.view(frames, sequences, -1, *kernel, channels).sum(0).flip(-3, -2).movedim(-1, 2)
    return filters.reshape(sequences, *several, channels, *kernel)


def _padding(kernel: Size, dilation: int) -> Size:
    """What a shift of tap answers drops before the scores begin."""
    rows, columns = (dilation * (taps - 1) - (taps // 2 + dilation - 1) for taps in kernel)
    return rows, columns
