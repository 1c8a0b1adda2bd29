"""Frames of a user's own input, one after the other: a video file, a folder of images, a camera."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from config.errors import UserError
from pysot_toolkit.datasets.base import list_images
from pysot_toolkit.trackers.images import BadImage, read_image

# Quiet, before its first use; OpenCV itself is, see ltr.data.image_loader.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

_CAMERA = re.compile(r"[0-9]{1,2}")
_DEFAULT_FPS = 25.0
_FPS_RANGE = (0.1, 1000.0)  # what a file says beyond it is no frame rate
_AHEAD = 3  # frames decoded before they are needed
_FILE_PATIENCE, _CAMERA_PATIENCE = 250, 3  # failed reads in a row that end a video
_POLL = 0.1  # seconds between looks at whether to stop


class Frame(NamedTuple):
    """One frame, or why there is none."""

    number: int  # counted from 0; a camera's frames that came too fast for the tracker are counted too
    image: np.ndarray | BadImage  # RGB uint8 [H, W, 3]
    seconds: float  # that reading and decoding took


@dataclass(frozen=True)
class Source:
    """Where frames come from.

    Attributes:
        kind: "video", "folder" or "camera".
        name: the file's or folder's absolute path, "camera N".
        fps: frames per second; 25 where the source does not say.
        count: frames that it announces; 0: unknown.
        images: the frames in order; a ``BadImage`` for each that cannot be read.
    """

    kind: str
    name: str
    fps: float
    count: int
    images: Iterator[np.ndarray | BadImage]

    @property
    def live(self) -> bool:
        """Whether frames come when they come, so that a slow reader misses some."""
        return self.kind == "camera"


def open_source(text: str) -> Source:
    """The frames that ``text`` means: the number of a camera, a folder of images or a video file.

    The images of a folder are ordered by the numbers in their names (2.jpg before 10.jpg).

    Raises:
        UserError: there is no such thing, it does not open, or it holds no images.
    """
    if _CAMERA.fullmatch(text):
        return _open_camera(int(text))
    path = Path(text).expanduser().resolve()
    if path.is_dir():
        images = sorted(list_images(path), key=_in_order)
        return Source("folder", str(path), _DEFAULT_FPS, len(images), map(_read, images))
    if not path.is_file():
        raise UserError(
            f"{text}: no such video file, folder or camera; a camera is given by its number, 0 is the first"
        )
    if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp"):
        raise UserError(f"{text}: is a single image; give the folder of the images, or a video file")
    capture = open_capture(str(path))
    if not capture.isOpened():
        raise UserError(
            f"{text}: is no video that OpenCV can read; convert it (ffmpeg -i {path.name} out.mp4)"
        )
    announced = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    count = int(announced) if 0 < announced < 1e9 else 0
    frames = _captured(capture, str(path), _FILE_PATIENCE)
    return Source("video", str(path), _frame_rate(capture), count, frames)


def _open_camera(number: int) -> Source:
    capture = open_capture(number)
    if not capture.isOpened():
        raise UserError(
            f"camera {number}: does not open; check that it is connected, free and readable by this user, or give "
            "another number"
        )
    name = f"camera {number}"
    return Source("camera", name, _frame_rate(capture), 0, _captured(capture, name, _CAMERA_PATIENCE))


def open_capture(source: str | int) -> cv2.VideoCapture:
    """A video file, or the camera of a number; ``isOpened()`` says whether it could be opened.

    What OpenCV and its decoders print about damage is off: our own messages say it.
    """
    return cv2.VideoCapture(source)


def _frame_rate(capture: cv2.VideoCapture) -> float:
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if _FPS_RANGE[0] <= fps <= _FPS_RANGE[1] else _DEFAULT_FPS


def _captured(capture: cv2.VideoCapture, name: str, patience: int) -> Iterator[np.ndarray | BadImage]:
    """Decoded frames. A failed read is a frame that cannot be read where another frame follows, else the end."""
    index = failed = 0
    try:
        while failed < patience:
            whole, image = capture.read()
            if not whole or image is None:
                failed += 1
                continue
            for _ in range(failed):
                yield BadImage(name, f"frame {index + 1} cannot be decoded")
                index += 1
            failed = 0
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            index += 1
    finally:
        capture.release()


def _read(path: str) -> np.ndarray | BadImage:
    try:
        return read_image(path)
    except BadImage as error:
        return error


def _in_order(path: str) -> list[str | int]:
    """Sort key under which numbers inside a file's name count by value."""
    parts = re.split(r"([0-9]+)", os.path.basename(path))
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


class Prefetch:
    """The frames of a source, decoded in a thread of their own while the last ones are tracked.

    Of a live source the newest frame waits for the reader and replaces those before it: what is tracked is
    never older than one frame. Use it as a context manager; leaving it ends the thread.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._changed = threading.Condition()
        self._ready: deque[Frame] = deque()
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="frames", daemon=True)
        self._thread.start()

    def take(self, stopped: Callable[[], bool]) -> Frame | None:
        """The next frame; None at the end, or as soon as ``stopped()``."""
        with self._changed:
            while not self._ready and not stopped():
                if self._error is not None:
                    raise self._error
                if self._ended:
                    return None
                self._changed.wait(_POLL)
            if stopped():
                return None
            frame = self._ready.popleft()
            self._changed.notify_all()
            return frame

    def __enter__(self) -> Prefetch:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=5.0)  # a camera that hangs does not keep the process

    def _work(self) -> None:
        try:
            self._fill()
        except BaseException as error:
            self._error = error  # raised again where the frame is asked for
            raise
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _fill(self) -> None:
        begin = time.perf_counter()
        for index, image in enumerate(self._source.images):
            frame = Frame(index, image, time.perf_counter() - begin)
            with self._changed:
                if self._source.live:
                    self._ready.clear()
                while len(self._ready) >= _AHEAD and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                self._ready.append(frame)
                self._changed.notify_all()
            begin = time.perf_counter()
