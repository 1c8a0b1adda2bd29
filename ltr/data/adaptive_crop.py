"""Crops that may be moved and shrunk so that they show the image and little beyond it: the DiMP family's.

A crop is a rectangle ``(x, y, w, h)`` of whole pixels of the image, resized to ``(width, height)``. Its area is
``search_factor`` squared times that of the box it is made about (Danelljan et al., ATOM, CVPR 2019). Where it
reaches beyond the image the border pixels are repeated. Boxes are ``(x, y, w, h)`` in pixels, and the crop's
left and top edges are at 0: a pixel's centre lies half a pixel from its edges, in the image as in the crop.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from config.errors import UserError, nearest
from ltr.data.bbox import Array
from ltr.data.image_loader import Frame, Part, Region, reduction

CENTRED, REPLICATE, INSIDE, INSIDE_MAJOR = "centred", "replicate", "inside", "inside_major"
MODES = (CENTRED, REPLICATE, INSIDE, INSIDE_MAJOR)

_LARGEST_PADDED = 8192**2  # pixels; larger rectangles are sampled without being built


def crop_rectangles(
    about: np.ndarray,
    image_size: np.ndarray | tuple[int, int],
    search_factor: float,
    output_size: tuple[int, int],
    mode: str = REPLICATE,
    max_scale_change: float = math.inf,
) -> np.ndarray:
    """The rectangles that are cut for boxes.

    Args:
        about: boxes ``[..., 4]`` the crops are made about, image px.
        image_size: width and height ``[..., 2]``.
        search_factor: root of the crop's area over that of the box.
        output_size: width and height of the resized crops, px; the rectangles have the same proportions.
        mode: ``centred`` on the box wherever it is; ``replicate``: moved into the image, as far as it fits;
            ``inside``: also shrunk until it fits; ``inside_major``: shrunk until one of its sides fits.
        max_scale_change: how many times smaller the last two make it at most.

    Returns:
        int64 ``[..., 4]``. Along an axis on which a rectangle does not fit, the image is in its middle.

    Raises:
        UserError: an unknown mode.
        ValueError: a box has a non-finite number or no area.
    """
    if mode not in MODES:
        raise UserError(f"crop mode '{mode}': {nearest(mode, MODES)}")
    box = np.asarray(about, np.float64)
    if not (np.isfinite(box).all() and (box[..., 2:] > 0).all()):
        raise ValueError(f"no crop about box {box.tolist()}")
    image, output = np.asarray(image_size, np.int64), np.asarray(output_size, np.float64)
    area = box[..., 2:].prod(-1, keepdims=True)
    sides = np.ceil(output * np.sqrt(area / output.prod()) * search_factor)
    if mode in (INSIDE, INSIDE_MAJOR):
        excess = sides / image
        shrink = excess.max(-1) if mode == INSIDE else excess.min(-1)
        sides = np.floor(sides / np.clip(shrink, 1, max_scale_change)[..., None])
    corner = np.rint(box[..., :2] + box[..., 2:] / 2 - sides / 2).astype(np.int64)
    sides = sides.astype(np.int64)
    if mode != CENTRED:
        spare = image - sides
        corner = np.where(spare < 0, -(-spare // 2), np.clip(corner, 0, np.maximum(spare, 0)))
    return np.concatenate([corner, sides], -1)


def decode_frames(
    frames: Sequence[Frame],
    rectangles: np.ndarray,
    output_size: tuple[int, int],
    whole: Frame | None = None,
) -> list[Region]:
    """What each crop needs of its frame, for ``cut_rectangle``; crops of one frame share what is decoded once.

    Args:
        frames: of n crops; see ``ltr.data.image_loader``.
        rectangles: ``[n, 4]``.
        output_size: width and height of the resized crops, px.
        whole: the frame of which everything is needed, for its channel mean.

    Raises:
        BadImage: as ``Frame.region``.
    """
    regions = {}
    for frame in dict.fromkeys(frames):
        own = rectangles[[other is frame for other in frames]]
        reduced = min(map(reduction, own[:, 2:].min(0).tolist(), output_size))
        part = Part(*own[:, :2].min(0).tolist(), *(own[:, :2] + own[:, 2:]).max(0).tolist())
        regions[frame] = frame.region(None if frame is whole else part, reduced)
    return [regions[frame] for frame in frames]


def cut_rectangle(
    image: np.ndarray,
    rectangle: np.ndarray,
    output_size: tuple[int, int],
    border: int = cv2.BORDER_REPLICATE,
    interpolation: int = cv2.INTER_LINEAR,
    origin: tuple[int, int] = (0, 0),
    reduced: int = 1,
) -> np.ndarray:
    """The pixels of one crop.

    Args:
        image: ``[H, W]`` or ``[H, W, C]``: the frame, or a part that has all that the rectangle has of the frame.
        rectangle: whole numbers ``[4]``; parts outside the image are fine.
        output_size: width and height of the result, px.
        border: what lies outside: ``cv2.BORDER_REPLICATE``, or ``cv2.BORDER_CONSTANT`` for zeros (masks).
        interpolation: ``cv2.INTER_LINEAR``, or ``cv2.INTER_NEAREST`` for masks of several objects.
        origin: column and row of the frame where ``image`` begins.
        reduced: how many times smaller ``image`` is than the frame in which ``rectangle`` lies (1, 2, 4 or 8).

    Returns:
        ``[height, width]`` or ``[height, width, C]`` of the image's type.
    """
    x, y, w, h = (int(number) for number in rectangle)
    x, y = x - origin[0], y - origin[1]
    height, width = image.shape[:2]
    left, top, right, bottom = max(-x, 0), max(-y, 0), max(x + w - width, 0), max(y + h - height, 0)
    outside = left >= w or top >= h or right >= w or bottom >= h
    if outside or reduced > 1 or w * h > _LARGEST_PADDED:
        step_x, step_y = w / output_size[0] / reduced, h / output_size[1] / reduced
        first_x, first_y = x / reduced + step_x / 2 - 0.5, y / reduced + step_y / 2 - 0.5
        to_image = np.array([[step_x, 0, first_x], [0, step_y, first_y]])
        flags = interpolation | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(image, to_image, output_size, flags=flags, borderMode=border)
    part = image[y + top : y + h - bottom, x + left : x + w - right]
    if left or top or right or bottom:
        part = cv2.copyMakeBorder(part, top, bottom, left, right, border)
    return cv2.resize(part, output_size, interpolation=interpolation)


def boxes_to_crop(bbox: Array, rectangle: Array, output_size: Array) -> Array:
    """Boxes ``[..., 4]`` of the image in the coordinates of crops.

    Args:
        bbox: image px (numpy or torch; the same kind is returned).
        rectangle: ``[..., 4]`` of ``crop_rectangles``.
        output_size: width and height of the crops ``[..., 2]``, px.
    """
    moved = bbox + 0.0
    moved[..., :2] -= rectangle[..., :2]
    scale = output_size / rectangle[..., 2:]
    moved[..., :2] *= scale
    moved[..., 2:] *= scale
    return moved


def boxes_to_image(bbox: Array, rectangle: Array, output_size: Array) -> Array:
    """The inverse of ``boxes_to_crop``: boxes ``[..., 4]`` of crops in image px, not clipped."""
    moved = bbox + 0.0
    scale = rectangle[..., 2:] / output_size
    moved[..., :2] *= scale
    moved[..., 2:] *= scale
    moved[..., :2] += rectangle[..., :2]
    return moved
