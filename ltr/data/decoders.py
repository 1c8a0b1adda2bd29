"""The JPEG decoders that are installed, side by side: how fast each is here, and whether all give the same pixels.

Training and tracking use simplejpeg, else OpenCV, and TurboJPEG for parts of frames, else their upper rows
(``ltr.data.image_loader``). All of these rest on libjpeg-turbo with its exact integer transform and smooth colours. A
test holds those that it finds to equal bytes, and ``scripts/doctor.py`` says whether it is so on this machine: a run
repeats bit for bit elsewhere only where it is.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import NamedTuple

import cv2
import numpy as np

from ltr.data import image_loader, jpeg_parts

Decode = Callable[[bytes], np.ndarray]  # a JPEG file's bytes to RGB uint8 [H, W, 3]

_SIZE = (1280, 720)
_PART = image_loader.Part(512, 232, 768, 488)  # 256 px in the middle
_ROUNDS = 5


class Decoder(NamedTuple):
    """One that is installed."""

    version: str
    decode: Decode


class Timing(NamedTuple):
    """One decoder on this machine."""

    name: str
    version: str
    part: bool  # whether it decodes a square of 256 px of the frame, or all of it
    milliseconds: float  # CPU time for a frame of 1280 x 720
    agrees: bool  # with the one that is used, in every pixel
    used: bool


def measure() -> list[Timing]:
    """All installed decoders of whole frames, the fastest first, then those of parts; takes about 0.1 s."""
    file, parts = sample(), _of_parts()
    used = "OpenCV" if image_loader.simplejpeg is None else "simplejpeg"
    return _compared(file, installed(), used, False) + _compared(file, parts, next(iter(parts)), True)


def _compared(file: bytes, found: dict[str, Decoder], used: str, part: bool) -> list[Timing]:
    expected = found[used].decode(file)
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(_ROUNDS + 1):  # in turns, and the first does not count
        for name, decoder in found.items():
            start = time.process_time()
            decoder.decode(file)
            seconds[name].append(time.process_time() - start)
    timings = [
        Timing(
            name,
            decoder.version,
            part,
            1e3 * float(np.median(seconds[name][1:])),
            np.array_equal(decoder.decode(file), expected),
            name == used,
        )
        for name, decoder in found.items()
    ]
    return sorted(timings, key=lambda timing: timing.milliseconds)


def _of_parts() -> dict[str, Decoder]:
    """The ways to decode a part of a frame, by name; the first is used."""
    left, top, right, bottom = _PART

    def part(file: bytes) -> np.ndarray:
        region = image_loader.Frame("", file).region(_PART)
        x, y = region.origin
        return region.pixels[top - y : bottom - y, left - x : right - x]

    def upper_rows(file: bytes) -> np.ndarray:
        rows = image_loader.Frame("", file).upper_rows(bottom, 1, image_loader.Scratch())
        return rows[top:bottom, left:right]

    found = {"upper rows": Decoder("", upper_rows)}
    where = jpeg_parts.available()
    return found if where is None else {"TurboJPEG": Decoder(f"of {where}", part), **found}


def sample() -> bytes:
    """A JPEG file about as large and as busy as a frame of real video."""
    rng = np.random.default_rng(0)
    image = np.full((*_SIZE[::-1], 3), 120, np.float32)
    for cells, weight in ((6, 60), (24, 30), (96, 16), (320, 9)):
        noise = rng.normal(0, weight, (cells * _SIZE[1] // _SIZE[0], cells, 3)).astype(np.float32)
        image += cv2.resize(noise, _SIZE, interpolation=cv2.INTER_CUBIC)
    pixels = image.clip(0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def installed() -> dict[str, Decoder]:
    """The decoders that can be imported, by name."""
    found = {}
    for name, load in _LOADERS.items():
        try:
            found[name] = load()
        except (ImportError, OSError):  # OSError: a library that the package needs is not there
            continue
    return found


def _simplejpeg() -> Decoder:
    import simplejpeg

    return Decoder(version("simplejpeg"), lambda file: simplejpeg.decode_jpeg(file, "RGB"))


def _opencv() -> Decoder:
    def decode(file: bytes) -> np.ndarray:
        pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None, "no JPEG"
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)

    return Decoder(cv2.__version__, decode)


def _torchvision() -> Decoder:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    def decode(file: bytes) -> np.ndarray:
        pixels = decode_jpeg(torch.frombuffer(bytearray(file), dtype=torch.uint8), ImageReadMode.RGB)
        return pixels.permute(1, 2, 0).numpy()

    return Decoder(version("torchvision"), decode)


def _pillow() -> Decoder:
    from PIL import Image

    return Decoder(version("pillow"), lambda file: np.asarray(Image.open(io.BytesIO(file))))


def _jpeg4py() -> Decoder:
    import jpeg4py

    return Decoder(version("jpeg4py"), lambda file: jpeg4py.JPEG(np.frombuffer(file, np.uint8)).decode())


_LOADERS = {
    "simplejpeg": _simplejpeg,
    "OpenCV": _opencv,
    "torchvision": _torchvision,
    "Pillow": _pillow,
    "jpeg4py": _jpeg4py,
}
