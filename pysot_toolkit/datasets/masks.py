"""Mask files of video object segmentation: PNG with one number per pixel, k where object k is, 0 elsewhere.

Pillow reads them because it hands out the numbers of an indexed image; OpenCV hands out its colours.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from config.errors import UserError
from pysot_toolkit.datasets.base import list_images

_VOID = 255  # davis2017-evaluation counts it as background in the annotation
_ONE_NUMBER = ("P", "L", "1")  # indexed, grey, black and white
_MODES = {"RGB": "colour", "RGBA": "colour with alpha", "LA": "grey with alpha"}


def read_mask(path: Path) -> np.ndarray:
    """The numbers in a mask file, uint8 ``[H, W]``.

    Raises:
        ValueError: missing, damaged, no PNG, or not one 8-bit number per pixel.
    """
    with _opened(path) as image:
        _refuse_colours(image)
        return np.asarray(image).astype(np.uint8)


def check_mask(path: Path) -> tuple[int, int]:
    """Width and height in px of a mask file that is whole: its checksums are compared, no pixel is decoded.

    Raises:
        ValueError: as ``read_mask``.
    """
    with _opened(path) as image:
        _refuse_colours(image)
        size = image.size
        image.verify()
    return size


def read_annotation(path: Path, single_object: bool = False) -> np.ndarray:
    """An annotated mask, uint8 ``[H, W]``: object numbers without the void number 255.

    Args:
        single_object: whatever is not 0 is object 1. 255 is the object then, and of a colour image
            the first channel counts, both as in DAVIS 2016's own loader (``_load_annotation``).

    Raises:
        UserError: as ``read_mask``.
    """
    try:
        if not single_object:
            mask = read_mask(path)
            return np.where(mask == _VOID, 0, mask).astype(np.uint8)
        with _opened(path) as image:
            return (np.atleast_3d(np.asarray(image))[..., 0] != 0).astype(np.uint8)
    except ValueError as error:
        raise UserError(f"{path}: {error}; restore the file") from error


def annotated_size(folder: Path) -> tuple[int, int]:
    """Width and height in px of the masks in an annotated video's folder, from the header of the first.

    Raises:
        UserError: there is none, or it is no PNG.
    """
    path = list_masks(folder)[0]
    try:
        with _opened(path) as image:
            return image.size
    except ValueError as error:
        raise UserError(f"{path}: {error}; restore the file") from error


def first_box(mask: np.ndarray) -> np.ndarray:
    """The box (x, y, w, h) in px that covers the lowest-numbered object of a mask, float64 ``[4]``; NaN without one.

    Pixels are squares of size 1: an object of one pixel in the corner is (0, 0, 1, 1).
    """
    objects = mask[mask > 0]
    if not objects.size:
        return np.full(4, np.nan)
    return np.array(cv2.boundingRect((mask == objects.min()).astype(np.uint8)), np.float64)


def list_masks(folder: Path) -> list[Path]:
    """The mask files in ``folder`` by frame number; ``UserError`` without the folder or a mask in it."""
    masks = [Path(path) for path in list_images(folder) if path.lower().endswith(".png")]
    if not masks:
        raise UserError(f"{folder}: holds no masks; restore the folder")
    return masks


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image in a PNG file; everything Pillow raises for a damaged one becomes ``ValueError``."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            yield image
    except _NoMask:
        raise
    except UnidentifiedImageError as error:
        raise ValueError("is no PNG, or damaged at its beginning") from error
    # Pillow's PNG reader reports damage by any of these, according to where in the file it is.
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, Image.DecompressionBombError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise ValueError(f"cannot be read ({error.strerror})") from error
        raise ValueError(f"is damaged ({error})") from error


class _NoMask(ValueError):
    """A whole PNG that is no mask."""


def _refuse_colours(image: Image.Image) -> None:
    if image.mode not in _ONE_NUMBER:
        kind = _MODES.get(image.mode, f"of mode {image.mode}")
        raise _NoMask(f"is {kind}, not an 8-bit indexed PNG")
