"""Boxes drawn on the frames of a sequence: a contact sheet and a video."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np

from config.errors import UserError
from config.files import atomic_writer
from pysot_toolkit.datasets import Sequence
from pysot_toolkit.visualization.colours import COLORS, TRUTH, rgb

_TRUTH = rgb(TRUTH)
_TRACKERS = tuple(rgb(colour) for colour in COLORS)
MAX_TRACKERS = len(COLORS)  # that one picture can tell apart
_FONT = cv2.FONT_HERSHEY_DUPLEX
_BAR = 26  # height of the legend above a picture, px
_PAPER, _INK = (255, 255, 255), (40, 40, 40)

Colour: TypeAlias = tuple[int, int, int]


def draw_frame(
    sequence: Sequence,
    index: int,
    predictions: Mapping[str, np.ndarray],
    scale: float = 1.0,
    label: bool = True,
) -> np.ndarray:
    """Frame ``index`` with the true box and those of the trackers, RGB uint8 ``[H * scale, W * scale, 3]``.

    Args:
        sequence: whose frame is read.
        index: 0-based.
        predictions: tracker to boxes (x, y, w, h) in px of the image, ``[n, 4]``; NaN is not drawn; at most
            ``MAX_TRACKERS``.
        scale: of the picture; boxes keep their line width.
        label: write the number of the frame into its corner.

    Raises:
        UserError: the frame is missing or no image.
    """
    path = sequence.frames[index]
    image = cv2.imread(path)
    if image is None:
        raise UserError(f"{path}: is missing or no image; restore the file")
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    image = np.ascontiguousarray(
        cv2.cvtColor(cv2.resize(image, size, interpolation=interpolation), cv2.COLOR_BGR2RGB)
    )
    for (_, boxes), colour in zip(predictions.items(), _TRACKERS):
        if index < len(boxes):
            draw_box(image, boxes[index] * scale, colour)
    present = sequence.present
    if index < len(sequence.ground_truth) and (present is None or present[index]):
        draw_box(image, sequence.ground_truth[index] * scale, _TRUTH)  # last: a good tracker would hide it
    if label:
        draw_label(image, f"#{index + 1}")
    return image


def contact_sheet(
    path: Path,
    sequence: Sequence,
    predictions: Mapping[str, np.ndarray],
    columns: int = 4,
    rows: int = 2,
    tile_width: int = 320,
) -> Path:
    """A PNG with frames spread evenly over a sequence, the true box and those of the trackers; returns ``path``."""
    count = min(columns * rows, len(sequence.frames))
    picks = np.linspace(0, len(sequence.frames) - 1, count).round().astype(int)
    width = sequence.image_size[0]
    tiles = [draw_frame(sequence, int(pick), predictions, scale=tile_width / width) for pick in picks]
    gap = 4
    height = max(tile.shape[0] for tile in tiles)
    columns = min(columns, count)
    lines = -(-count // columns)
    sheet = np.full((_BAR + lines * (height + gap), columns * (tile_width + gap) - gap, 3), _PAPER, np.uint8)
    _legend(sheet, sequence.name, predictions)
    for number, tile in enumerate(tiles):
        top = _BAR + number // columns * (height + gap)
        left = number % columns * (tile_width + gap)
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile[:, :tile_width]
    written, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    if not written:
        raise UserError(f"{path}: OpenCV cannot encode PNG here; reinstall opencv-python-headless")
    with atomic_writer(path) as file:
        file.write(data.tobytes())
    return path


def overlay_video(
    path: Path, sequence: Sequence, predictions: Mapping[str, np.ndarray], fps: float = 25.0, width: int = 640
) -> Path:
    """An MP4 of the whole sequence with the true box and those of the trackers; a contact sheet (PNG) where
    this OpenCV cannot write MP4.

    Returns:
        The file that was written: ``path``, or the same with ``.png``.
    """
    scale = width / sequence.image_size[0]
    height = round(sequence.image_size[1] * scale)
    size = (width // 2 * 2, (height + _BAR) // 2 * 2)  # video codecs want even sides
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        temporary = os.path.join(folder, "overlay.mp4")
        writer = cv2.VideoWriter(temporary, cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
        try:
            writable = writer.isOpened()
            for index in range(len(sequence.frames) if writable else 0):
                frame = draw_frame(sequence, index, predictions, scale)
                canvas = np.full((size[1], size[0], 3), _PAPER, np.uint8)
                _legend(canvas, sequence.name, predictions)
                part = frame[: size[1] - _BAR, : size[0]]
                canvas[_BAR : _BAR + part.shape[0], : part.shape[1]] = part
                writer.write(cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))
        finally:
            writer.release()
        if writable and os.path.getsize(temporary):
            os.replace(temporary, path)
            return path
    return contact_sheet(path.with_suffix(".png"), sequence, predictions)


def draw_box(image: np.ndarray, bbox: np.ndarray, colour: Colour) -> None:
    """Draw one box (x, y, w, h) px into ``image``, RGB uint8 ``[H, W, 3]``; what has no area is left out."""
    if not np.isfinite(bbox).all() or (bbox[2:] <= 0).any():
        return
    limit = 1e6  # beyond this OpenCV's integers overflow
    left, top, right, bottom = (
        np.clip(np.concatenate([bbox[:2], bbox[:2] + bbox[2:]]), -limit, limit).round().astype(int)
    )
    cv2.rectangle(image, (int(left), int(top)), (int(right), int(bottom)), (0, 0, 0), 4, cv2.LINE_AA)
    cv2.rectangle(image, (int(left), int(top)), (int(right), int(bottom)), colour, 2, cv2.LINE_AA)


def draw_label(image: np.ndarray, text: str) -> None:
    """Write into the upper left corner of ``image``, RGB uint8 ``[H, W, 3]``."""
    (width, height), _ = cv2.getTextSize(text, _FONT, 0.45, 1)
    image[: height + 10, : width + 10] = (image[: height + 10, : width + 10] * 0.35).astype(np.uint8)
    cv2.putText(image, text, (5, height + 5), _FONT, 0.45, (255, 255, 255), 1, cv2.LINE_AA)


def _legend(canvas: np.ndarray, name: str, predictions: Mapping[str, np.ndarray]) -> None:
    """Name of the sequence and one coloured mark per kind of box, in the bar at the top."""
    entries: list[tuple[str, Colour | None]] = [(name, None), ("ground truth", _TRUTH)]
    entries += [(tracker, colour) for (tracker, _), colour in zip(predictions.items(), _TRACKERS)]
    left = 6
    for text, colour in entries:
        if colour is not None:
            cv2.rectangle(canvas, (left, 8), (left + 14, 18), colour, -1)
            left += 20
        (width, _), _ = cv2.getTextSize(text, _FONT, 0.45, 1)
        cv2.putText(canvas, text, (left, 17), _FONT, 0.45, _INK, 1, cv2.LINE_AA)
        left += width + 18
