"""Boxes around a box: jitter of crops, and proposals from which the box regressors learn.

Everything works on whole arrays of boxes ``(x, y, w, h)`` in pixels and takes its random numbers from a generator.

The *relative* parametrisation of a box is its centre over a reference size, and the logarithms of its width and
height: in it, equal steps mean equally much for large and small targets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ltr.data.bbox import cxcywh_to_xywh, iou_xyxy, xywh_to_cxcywh, xywh_to_xyxy

_TRIES = 100  # after which a perturbed box is taken as it is
_SHRINK = 0.9  # of the perturbation after each try
_SLIVER = (0.15, 0.5)  # share of the box's side that one becomes which would be a pixel or less


class Proposals(Protocol):
    """What makes the proposals of a sample's test frames."""

    def __call__(self, bbox: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """``proposals [F, P, 4]`` around boxes ``[F, 4]`` and what a regressor should say of them ``[F, P]``."""


def jitter(bbox: np.ndarray, center: float, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Boxes ``[..., 4]`` moved and scaled, to make crops about (Danelljan et al., ATOM, CVPR 2019).

    Width and height are multiplied by ``exp(scale * normal)``; then the centre moves by up to ``center / 2``
    times the root of the new area in both directions.
    """
    box = xywh_to_cxcywh(np.asarray(bbox, np.float64))
    shape = (*box.shape[:-1], 2)
    sides = box[..., 2:] * np.exp(scale * rng.standard_normal(shape))
    reach = center * np.sqrt(sides.prod(-1, keepdims=True))
    centre = box[..., :2] + reach * (rng.random(shape) - 0.5)
    return cxcywh_to_xywh(np.concatenate([centre, sides], -1))


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes ``[..., 4]`` with boxes ``[..., 4]`` that broadcast with them: ``[...]``."""
    corners = (xywh_to_xyxy(torch.from_numpy(np.asarray(box, np.float64))) for box in (a, b))
    return iou_xyxy(*corners)[0].numpy()


@dataclass(frozen=True, kw_only=True)
class PerturbedBoxes:
    """Proposals by perturbation (Jiang et al., IoU-Net, ECCV 2018; Danelljan et al., ATOM, CVPR 2019).

    Centre and size get normal noise in proportion to the root of the box's area; noise that leaves too
    little overlap is drawn again, smaller. Published boxes are rounded to whole pixels, ours are not.
    """

    count: int  # proposals per box
    min_iou: float  # with the box; proposals have more
    sigmas: tuple[float, ...]  # one is drawn per proposal

    def __call__(self, bbox: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """``proposals [F, P, 4]`` and ``proposal_iou [F, P]``: ``2 * IoU - 1`` with the box; float32."""
        box = np.asarray(bbox, np.float64)
        truth = np.repeat(box[:, None], self.count, 1).reshape(-1, 4)
        sigma = np.asarray(self.sigmas)[rng.integers(len(self.sigmas), size=len(truth))]
        found = np.empty_like(truth)
        open_ones = np.arange(len(truth))
        for attempt in range(_TRIES):
            tried = _perturbed(truth[open_ones], sigma[open_ones] * _SHRINK**attempt, rng)
            found[open_ones] = tried
            open_ones = open_ones[overlaps(tried, truth[open_ones]) <= self.min_iou]
            if not len(open_ones):
                break
        return _told(found.reshape(len(box), self.count, 4), box)


def _perturbed(bbox: np.ndarray, sigma: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Boxes ``[N, 4]`` with noise of ``sigma [N]`` times the root of their areas."""
    reach = np.sqrt(bbox[:, 2:].prod(1, keepdims=True)) * sigma[:, None]
    noisy = xywh_to_cxcywh(bbox) + reach * rng.standard_normal(bbox.shape)
    sliver = bbox[:, 2:] * rng.uniform(*_SLIVER, (len(bbox), 2))
    noisy[:, 2:] = np.where(noisy[:, 2:] <= 1, sliver, noisy[:, 2:])
    return cxcywh_to_xywh(noisy)


@dataclass(frozen=True, kw_only=True)
class MixtureBoxes:
    """Proposals from a mixture of normal densities in the relative parametrisation.

    Danelljan, Van Gool, Timofte, PrDiMP, CVPR 2020; Gustafsson et al., ECCV 2020.
    """

    count: int  # proposals per box
    sigmas: tuple[tuple[float, float], ...]  # of each component: of the centre, of the logarithmic size
    gt_sigma: tuple[float, float] = (0.0, 0.0)  # of the annotation's density; zeros: it has none
    mean_box: bool = False  # put the box itself first, for maximum likelihood; it comes on top of ``count``

    def __call__(self, bbox: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """``proposals [F, P, 4]``; their ``proposal_density``, ``gt_density`` and ``proposal_iou [F, P]``; float32.

        Densities are over the relative parametrisation with the box's own size. The box itself, where it comes
        first, has proposal density -1 and ground-truth density 1. ``proposal_iou`` is ``2 * IoU - 1``.
        """
        box = np.asarray(bbox, np.float64)
        component = rng.integers(len(self.sigmas), size=(len(box), self.count))
        sigma = np.repeat(np.asarray(self.sigmas, np.float64), 2, 1)[component]
        offset = sigma * rng.standard_normal(sigma.shape)
        size = box[:, None, 2:]
        proposals = from_relative(to_relative(box[:, None], size) + offset, size)
        density = mixture_density(offset, self.sigmas)
        truth = mixture_density(offset, [self.gt_sigma]) if any(self.gt_sigma) else np.zeros_like(density)
        if self.mean_box:
            proposals = np.concatenate([box[:, None], proposals], 1)
            density, truth = (
                np.pad(values, ((0, 0), (1, 0)), constant_values=first)
                for values, first in ((density, -1.0), (truth, 1.0))
            )
        densities = {"proposal_density": density, "gt_density": truth}
        return _told(proposals, box) | {name: value.astype(np.float32) for name, value in densities.items()}


def _told(proposals: np.ndarray, bbox: np.ndarray) -> dict[str, np.ndarray]:
    iou = overlaps(proposals, bbox[:, None])
    return {
        "proposals": proposals.astype(np.float32),
        "proposal_iou": (2 * iou - 1).astype(np.float32),
    }


def mixture_density(offset: np.ndarray, sigmas: Sequence[tuple[float, float]]) -> np.ndarray:
    """The density of a mixture of centred normal densities, all equally likely.

    Args:
        offset: differences of relative boxes ``[..., 4]``.
        sigmas: of each component: of the centre, of the logarithmic size.

    Returns:
        ``[...]``.
    """
    sigma = np.repeat(np.asarray(sigmas, np.float64), 2, 1)
    scaled = np.asarray(offset, np.float64)[..., None, :] / sigma
    return (np.exp(-0.5 * scaled**2) / (math.sqrt(2 * math.pi) * sigma)).prod(-1).mean(-1)


def to_relative(bbox: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Relative boxes ``[..., 4]``: centre over ``size [..., 2]``, logarithms of width and height."""
    box = xywh_to_cxcywh(np.asarray(bbox, np.float64))
    return np.concatenate([box[..., :2] / size, np.log(box[..., 2:])], -1)


def from_relative(relative: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The inverse of ``to_relative``."""
    box = np.asarray(relative, np.float64)
    return cxcywh_to_xywh(np.concatenate([box[..., :2] * size, np.exp(box[..., 2:])], -1))
