"""Square crops around a target: the same geometry for training and tracking.

A crop is the square ``[left, left + side) x [top, top + side)`` of the image, resized to
``size x size``. Its side grows with the box: with context ``(factor - 1) * (w + h) / 2`` added to
both dimensions it is the root of the resulting area (Bertinetto et al., SiamFC, 2016; with the area
factors of TransT, Chen et al., CVPR 2021). Boxes are ``(x, y, w, h)`` in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ltr.data.bbox import Array, cxcywh_to_xywh, join, xywh_to_cxcywh

# A square beyond this is sampled without being built: OpenCV would need 200 MB and more for it.
_LARGEST_PADDED = 8192


class CropGeometry(NamedTuple):
    """Where a crop lies. Fields are numbers for one box and arrays ``[...]`` for many."""

    side: np.ndarray  # int64, of the square in the image, px
    left: np.ndarray  # int64, its first column in the image; negative where it begins outside
    top: np.ndarray  # int64, its first row
    factor: np.ndarray  # float64, crop pixels per image pixel: output size / side


def crop_side(bbox: np.ndarray, search_factor: float | np.ndarray) -> np.ndarray:
    """Side of the square around each box ``[..., 4]`` before it is rounded up, px, float64 ``[...]``."""
    box = np.asarray(bbox, np.float64)
    w, h = box[..., 2], box[..., 3]
    context = (search_factor - 1) * (w + h) / 2
    return np.sqrt((w + context) * (h + context))


def crop_geometry(
    bbox: np.ndarray, search_factor: float | np.ndarray, output_size: int | np.ndarray
) -> CropGeometry:
    """The squares that are cut for boxes ``[..., 4]``.

    Args:
        bbox: boxes the crops are made about, image px; negative positions and parts outside are fine.
        search_factor: 4 for search crops, 2 for templates; one for all or ``[...]``.
        output_size: side of the resized crop, px; one for all or ``[...]``.

    Raises:
        ValueError: a box has a non-finite number or no area.
    """
    box = np.asarray(bbox, np.float64)
    if not (np.isfinite(box).all() and (box[..., 2:] > 0).all()):
        raise ValueError(f"no crop about box {box.tolist()}")
    side = np.maximum(np.ceil(crop_side(box, search_factor)), 1.0)
    # As published: the square is centred as if the target's centre were at side / 2, whereas
    # box_to_crop takes (size - 1) / 2. Trained networks know this half pixel.
    corner = np.floor(box[..., :2] + box[..., 2:] / 2 - (side[..., None] + 1) / 2 + 0.5)
    left, top = corner[..., 0].astype(np.int64), corner[..., 1].astype(np.int64)
    return CropGeometry(side.astype(np.int64), left, top, output_size / side)


def crop(
    image: np.ndarray, bbox: np.ndarray, search_factor: float, size: int, pad: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, CropGeometry]:
    """Cut and resize the square around one box.

    Args:
        image: RGB uint8 ``[H, W, 3]``.
        bbox: ``[4]``, image px.
        search_factor: see ``crop_geometry``.
        size: side of the result, px.
        pad: colour outside the image, three levels 0..255 (truncated to integers): a frame's channel mean.

    Returns:
        the crop, RGB uint8 ``[size, size, 3]``, and where it lies.
    """
    geometry = crop_geometry(bbox, search_factor, size)
    return cut(image, geometry, size, pad), geometry


def cut(
    image: np.ndarray,
    geometry: CropGeometry,
    size: int,
    pad: Sequence[float] | np.ndarray,
    origin: tuple[int, int] = (0, 0),
    reduced: int = 1,
) -> np.ndarray:
    """The pixels of one crop, from the whole image or from a part or a reduced copy of it.

    Args:
        image: RGB uint8 ``[h, w, 3]``: the part of the image that begins at ``origin``.
        geometry: the square in the coordinates of the whole image.
        size: side of the result, px.
        pad: colour outside ``image``.
        origin: column and row of the whole image at which ``image`` begins.
        reduced: how many times smaller ``image`` is than the part it shows (1, 2, 4 or 8).
    """
    side, left, top = int(geometry.side), int(geometry.left) - origin[0], int(geometry.top) - origin[1]
    colour = [int(level) for level in pad]
    height, width = image.shape[:2]
    if reduced > 1 or side > _LARGEST_PADDED:
        step = side / size / reduced
        shift_x, shift_y = (left / reduced + step / 2 - 0.5, top / reduced + step / 2 - 0.5)
        to_image = np.array([[step, 0.0, shift_x], [0.0, step, shift_y]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(image, to_image, (size, size), flags=flags, borderValue=colour)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    if x0 >= x1 or y0 >= y1:
        return np.full((size, size, 3), colour, np.uint8)
    square = image[y0:y1, x0:x1]
    borders = (y0 - top, top + side - y1, x0 - left, left + side - x1)
    if any(borders):
        square = cv2.copyMakeBorder(square, *borders, cv2.BORDER_CONSTANT, value=colour)
    if side != size:
        return cv2.resize(square, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.array(square)  # a copy: other frames may be decoded over this one


def box_to_crop(bbox: Array, extract: Array, factor, size) -> Array:
    """Boxes ``[..., 4]`` of the image in the coordinates of crops made about ``extract [..., 4]``.

    Args:
        bbox: image px (numpy or torch; the same kind is returned).
        extract: the boxes about which the crops were made, image px.
        factor: ``CropGeometry.factor``, a number or ``[...]``.
        size: side of the crops, px, a number or ``[...]``; the centre of ``extract`` comes to ``(size - 1) / 2``.
    """
    factor, size = _column(factor), _column(size)
    box, about = xywh_to_cxcywh(bbox), xywh_to_cxcywh(extract)
    centre = (size - 1) / 2 + (box[..., :2] - about[..., :2]) * factor
    return cxcywh_to_xywh(join(centre, box[..., 2:] * factor))


def box_to_image(bbox: Array, extract: Array, factor, size: int) -> Array:
    """The inverse of ``box_to_crop``: boxes ``[..., 4]`` of crops in image px, not clipped."""
    factor = _column(factor)
    box, about = xywh_to_cxcywh(bbox), xywh_to_cxcywh(extract)
    centre = about[..., :2] + (box[..., :2] - (size - 1) / 2) / factor
    return cxcywh_to_xywh(join(centre, box[..., 2:] / factor))


def jitter(
    bbox: np.ndarray, center: float, scale: float, normal: np.ndarray, uniform: np.ndarray
) -> np.ndarray:
    """Move and scale the box about which a crop is made, so that targets are not always in its middle.

    Width and height are multiplied by ``exp(normal * scale)``; then the centre moves by up to
    ``center / 2`` times the new mean side in both directions.

    Args:
        bbox: ``[..., 4]`` px.
        center: jitter of the centre (3 for search crops, 0 for templates).
        scale: jitter of the logarithmic size (0.25, 0).
        normal: standard normal numbers ``[..., 2]`` for width and height.
        uniform: numbers in [0, 1) ``[..., 2]`` for x and y.
    """
    box = xywh_to_cxcywh(np.asarray(bbox, np.float64))
    sides = box[..., 2:] * np.exp(np.asarray(normal, np.float64) * scale)
    reach = sides.mean(-1, keepdims=True) * center
    centre = box[..., :2] + reach * (np.asarray(uniform, np.float64) - 0.5)
    return cxcywh_to_xywh(join(centre, sides))


def _column(factor):
    return factor[..., None] if getattr(factor, "ndim", 0) else factor
