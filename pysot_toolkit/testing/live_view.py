"""What is seen while a tracker runs on own input: the drawn frame, in a window, in visdom, in an MP4 file."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from config.errors import UserError
from config.files import sync_folder
from pysot_toolkit.testing.frame_sources import open_capture
from pysot_toolkit.visualization.colours import COLORS, rgb
from pysot_toolkit.visualization.overlay import draw_box, draw_label

_COLOURS = tuple(rgb(colour) for colour in COLORS)
_FONT = cv2.FONT_HERSHEY_DUPLEX
_END_KEYS = (27, ord("q"))
_TITLE = "tracking: q ends"


class Mark(NamedTuple):
    """Where one object is in one frame."""

    name: str
    bbox: np.ndarray  # float64 [4], (x, y, w, h) px
    score: float
    lost: bool


def draw(image: np.ndarray, marks: Sequence[Mark | None], text: str) -> np.ndarray:
    """A copy of ``image``, RGB uint8 ``[H, W, 3]``, with the boxes of the objects and ``text`` in its corner.

    Args:
        image: the frame.
        marks: one per object, each with a colour of its own; None is not drawn.
        text: such as the number of the frame.
    """
    canvas = np.ascontiguousarray(image).copy()
    drawn = [(mark, _COLOURS[i % len(_COLOURS)]) for i, mark in enumerate(marks) if mark is not None]
    for mark, colour in drawn:
        draw_box(canvas, mark.bbox, colour)
    for mark, colour in drawn:  # above all boxes
        _name(canvas, mark, colour)
    draw_label(canvas, text)
    return canvas


def _name(canvas: np.ndarray, mark: Mark, colour: tuple[int, int, int]) -> None:
    """What the object is called and how sure the tracker is, above its box where there is room."""
    text = f"{mark.name} lost" if mark.lost else f"{mark.name} {mark.score:.2f}"
    (width, height), _ = cv2.getTextSize(text, _FONT, 0.45, 1)
    rows, columns = canvas.shape[:2]
    left = int(np.clip(mark.bbox[0], 0, max(columns - width - 6, 0)))
    bottom = int(np.clip(mark.bbox[1] - 3, height + 6, max(rows - 1, height + 6)))
    cv2.rectangle(canvas, (left, bottom - height - 6), (left + width + 6, bottom), colour, -1)
    cv2.putText(canvas, text, (left + 3, bottom - 3), _FONT, 0.45, (255, 255, 255), 1, cv2.LINE_AA)


def check_window(option: str) -> None:
    """Refuse what needs a window where there can be none.

    Args:
        option: what needs it, the beginning of the message.

    Raises:
        UserError: this OpenCV is built without windows, or there is no display.
    """
    gui = next(
        (line for line in cv2.getBuildInformation().splitlines() if line.strip().startswith("GUI:")), ""
    )
    if gui.split()[-1:] == ["NONE"]:
        raise UserError(
            f"{option}: this OpenCV (opencv-python-headless) has no windows; pip uninstall opencv-python-headless, pip "
            "install opencv-python, or do without: --box or --boxes, --save, --visdom"
        )
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise UserError(
            f"{option}: there is no display (DISPLAY is not set); log in with one (ssh -X), or do without: --box or "
            "--boxes, --save, --visdom"
        )


def select_box(image: np.ndarray) -> np.ndarray:
    """The box that the user drags with the mouse in ``image``, RGB; float64 ``[4]``, (x, y, w, h) px.

    Raises:
        UserError: none was chosen.
    """
    title = "drag a box about the target, then press Enter"
    box = np.array(
        cv2.selectROI(title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), showCrosshair=False), np.float64
    )
    cv2.destroyWindow(title)
    if (box[2:] <= 0).any():
        raise UserError("no box was selected; drag one with the mouse and press Enter, or give --box x,y,w,h")
    return box


class Window:
    """The drawn frames in a window, as a context manager."""

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        cv2.destroyAllWindows()

    def show(self, canvas: np.ndarray) -> bool:
        """Show one frame, RGB; whether to go on: neither q nor Escape was pressed, nor the window closed."""
        cv2.imshow(_TITLE, cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1) & 0xFF
        return key not in _END_KEYS and cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) >= 1


class Visdom:
    """The drawn frames and the scores in the browser, through a visdom server on this machine.

    Raises:
        UserError: visdom is not installed, or its server does not run.
    """

    def __init__(self) -> None:
        try:
            import visdom
        except ImportError as error:
            raise UserError(
                f"--visdom: visdom does not load ({error}); docs/track.md says how to install it"
            ) from error
        logging.getLogger("visdom").setLevel(logging.ERROR)
        self._drawn = False
        try:
            self._server: Any = visdom.Visdom(raise_exceptions=True, use_incoming_socket=False)
        except ConnectionError as error:
            raise UserError(
                "--visdom: no server answers at http://localhost:8097; start one: python -m visdom.server"
            ) from error

    def show(self, canvas: np.ndarray, index: int, marks: Sequence[Mark | None]) -> None:
        """Send frame ``index``, RGB, and the objects' scores.

        Raises:
            UserError: the server is gone.
        """
        try:
            self._server.image(
                canvas.transpose(2, 0, 1), win="spot_frame", opts={"title": "tracking", "jpgquality": 80}
            )
            for mark in marks:
                if mark is not None:
                    self._server.line(
                        [mark.score], [index], win="spot_scores", name=mark.name,
                        update="append" if self._drawn else None, opts={"title": "scores", "showlegend": True},
                    )  # fmt: skip
                    self._drawn = True
        except ConnectionError as error:
            raise UserError("--visdom: the server is gone; start it again, or leave --visdom out") from error


class VideoFile:
    """An MP4 file that appears under its name when it is finished, whole or not at all.

    Args:
        path: of the file; its folder is made.
        fps: frames per second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self._fps, self._frames = path, fps, 0
        self._folder = self._temporary = ""
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what is not finished."""
        if self._writer is not None:
            self._writer.release()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, canvas: np.ndarray, times: int = 1) -> None:
        """Append a frame, RGB uint8 ``[H, W, 3]`` of always the same size; an odd last row or column is cut off.

        Raises:
            UserError: nothing can be written there, or this OpenCV cannot write MP4.
        """
        height, width = canvas.shape[0] // 2 * 2, canvas.shape[1] // 2 * 2  # what the codec takes
        if self._writer is None:
            self._writer = self._open(width, height)
        picture = cv2.cvtColor(canvas[:height, :width], cv2.COLOR_RGB2BGR)
        for _ in range(times):
            self._writer.write(picture)
        self._frames += times

    def _open(self, width: int, height: int) -> cv2.VideoWriter:
        """Begin a file beside the one it will be, in a folder of its own: its name has to end with .mp4."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._folder = tempfile.mkdtemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror or error}); free space or fix permissions"
            ) from error
        self._temporary = os.path.join(self._folder, "video.mp4")
        size = (width, height)
        writer = cv2.VideoWriter(self._temporary, cv2.VideoWriter.fourcc(*"mp4v"), self._fps, size)
        if not writer.isOpened():
            raise UserError(
                f"{self.path}: this OpenCV cannot write MP4 of {width} x {height} px; leave --save out, or reinstall "
                "opencv-python-headless"
            )
        return writer

    def finish(self) -> None:
        """Give the file its name.

        Raises:
            UserError: it could not be written whole.
        """
        if self._writer is None:
            return
        self._writer.release()
        try:  # the encoder does not tell of a full disk
            check = open_capture(self._temporary)
            written = int(check.get(cv2.CAP_PROP_FRAME_COUNT))
            check.release()
            if written != self._frames:
                raise UserError(
                    f"{self.path}: {max(written, 0)} of {self._frames} frames could be written; free space on its disk"
                )
            with open(self._temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(self._temporary, self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror or error}); fix permissions"
            ) from error
