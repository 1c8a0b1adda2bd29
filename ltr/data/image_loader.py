"""Image files to RGB arrays, decoding no more than the crops need.

Parts of JPEG frames are decoded by TurboJPEG (``ltr.data.jpeg_parts``), whole ones by simplejpeg, other formats and
installations without them by OpenCV. All that are usually installed (``ltr.data.decoders``) rest on libjpeg-turbo and
return the same bytes at every scale with the exact transform and smooth colours, which is what is asked of them here:
so the choice changes no result. These are the fastest wherever it was measured, and the ones that say what is wrong
with a damaged file instead of painting over it. What saves most of the work:

- a crop costs little for what lies above and beside it, and nothing for what lies below it. Without TurboJPEG only the
  last holds: blocks are stored from top to bottom, and a file whose header says "240 rows" decodes as the first 240;
- the transform can leave out the high frequencies, which decodes at 1/2, 1/4 or 1/8 of the size: right where a crop is
  reduced by as much anyway.
"""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ltr.data import jpeg_parts

try:
    import simplejpeg
except ImportError:  # no wheel for this platform
    simplejpeg = None

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what is broken is told by BadImage

_LARGEST = 1 << 28  # pixels; a header that claims more is broken
# Pixels per byte that no JPEG with Huffman codes reaches: a block of 64 pixels takes at least a bit.
_DENSEST = 1024
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # ends a scan: neither stuffing, fill nor restart
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes")
_HOLE = bytes(64)  # a run of zeros that compressed data hardly ever holds, but a half-written file does
_END = b"\xff\xd9"
_TIFF = (b"II*\0", b"MM\0*")
_REDUCED_FLAG = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


class BadImage(Exception):
    """A file that holds no whole image: missing, truncated, corrupt, or not an image.

    Attributes:
        path: the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Part(NamedTuple):
    """A rectangle of a frame, whole px; what of it lies outside the frame does not matter."""

    left: int
    top: int
    right: int  # one past the last column
    bottom: int


class Region(NamedTuple):
    """The decoded part of a frame."""

    pixels: np.ndarray  # RGB uint8 [h, w, 3]
    reduced: int  # frame px per decoded px: 1, 2, 4 or 8
    origin: tuple[int, int]  # column and row of the frame where it begins, multiples of reduced
    width: int  # of the whole frame, px
    height: int

    @property
    def whole(self) -> bool:
        """Whether it is all of the frame."""
        height, width = self.pixels.shape[:2]
        return (width, height) == (_reduced(self.width, self.reduced), _reduced(self.height, self.reduced))


class Scratch:
    """Memory to decode into, again and again: the system has to clear every page that it hands out anew.

    The pixels of a region in it hold until the next region is decoded into it.
    """

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def pixels(self, height: int, width: int) -> np.ndarray:
        """Room for an image, uint8 ``[height, width, 3]``."""
        size = height * width * 3
        if size > len(self._memory):
            self._memory = np.empty(size, np.uint8)
        return self._memory[:size].reshape(height, width, 3)


class _Layout(NamedTuple):
    """What the header of a JPEG file says."""

    width: int
    height: int
    height_at: int  # offset of the two bytes that hold the height
    block: tuple[int, int]  # width and height in which its blocks come, px
    scan: int  # offset of the compressed data
    one_scan: bool  # baseline, all colours in one scan: rows are complete one after the other
    colours: int


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """The image in a file, RGB uint8 ``[H, W, 3]``; orientation tags are not applied.

    Of other kinds of image, grey becomes three equal channels, levels of 16 bits keep their upper 8 (TIFF
    rounds them), alpha is left out and palettes are applied.

    Raises:
        BadImage: the file is missing, truncated, corrupt, not an image, or its levels are not of 8 or 16 bits.
    """
    return open_frame(path).region().pixels


class Frame:
    """A frame's file, read but not decoded.

    Attributes:
        path: the file.
        width, height: of the frame, px.
    """

    def __init__(self, path: str, data: bytes) -> None:
        self.path, self._data = path, data
        if data.startswith(b"\xff\xd8"):
            self._layout = _layout(path, data)
            self.width, self.height = self._layout.width, self._layout.height
        else:
            self._pixels = _decode_other(path, data)
            self.height, self.width = self._pixels.shape[:2]

    def region(self, part: Part | None = None, reduced: int = 1, scratch: Scratch | None = None) -> Region:
        """Decode what some crops of the frame need, and little more; of other formats than JPEG, everything.

        Args:
            part: where the crops lie; what is decoded has that and, where the frame goes on, all that resizing mixes in.
                None: everything is needed, for the frame's channel mean.
            reduced: 1, 2, 4 or 8, see ``reduction``.
            scratch: memory to decode into; None: new memory.

        Raises:
            BadImage: the file is truncated or corrupt. Damage outside the part is noticed where it breaks the structure
                of the file (truncation, markers, holes), not where it only changes pixels.
        """
        if not self._data.startswith(b"\xff\xd8"):
            return Region(self._pixels, 1, (0, 0), self.width, self.height)
        whole = Part(0, 0, self.width, self.height)
        part = whole if part is None else self._inside(part, reduced)
        if scratch is None:
            scratch = Scratch()
        if part == whole or not _looks_sound(self.path, self._data, self._layout):
            pixels = _cut(_decode(self.path, self._data, self._layout, reduced, scratch), part, reduced)
        elif self._layout.colours in (1, 3) and jpeg_parts.available():
            pixels = _decode_part(self.path, self._data, self._layout, part, reduced, scratch)
        else:
            pixels = _cut(self.upper_rows(part.bottom, reduced, scratch), part, reduced)
        return Region(pixels, reduced, (part.left, part.top), self.width, self.height)

    def _inside(self, part: Part, reduced: int) -> Part:
        """What is to be decoded, in px of the frame: at least a pixel, and a decoded one more on each side."""
        left = max(min(part.left - reduced, self.width - 1), 0) // reduced * reduced
        top = max(min(part.top - reduced, self.height - 1), 0) // reduced * reduced
        right = min(max(_reduced(part.right, reduced) * reduced, left) + reduced, self.width)
        bottom = min(max(_reduced(part.bottom, reduced) * reduced, top) + reduced, self.height)
        return Part(left, top, right, bottom)

    def upper_rows(self, bottom: int, reduced: int, scratch: Scratch) -> np.ndarray:
        """A JPEG frame down to row ``bottom`` at least, RGB uint8 ``[h, W / reduced, 3]``: ``region`` without TurboJPEG."""
        block = self._layout.block[1]
        # One more line of blocks: the colours of the last row are interpolated with the row below it.
        rows = (math.ceil(bottom / block) + 1) * block
        if rows >= self.height:
            return _decode(self.path, self._data, self._layout, reduced, scratch)
        upper, at = bytearray(self._data), self._layout.height_at
        upper[at : at + 2] = rows.to_bytes(2, "big")
        return _decode(self.path, upper, self._layout._replace(height=rows), reduced, scratch, strict=False)


def open_frame(path: str | os.PathLike[str]) -> Frame:
    """Read a frame's file and its size.

    Raises:
        BadImage: the file is missing, empty, not an image, or its header is truncated or corrupt.
    """
    return Frame(*_read(path))


def reduction(side: int, size: int) -> int:
    """The largest scale of decoding that leaves ``side`` px of the frame at least as many as the crop's ``size``."""
    return next((k for k in (8, 4, 2) if side >= k * size), 1)


def _reduced(pixels: int, by: int) -> int:
    return -(-pixels // by)


def channel_mean(region: Region) -> np.ndarray:
    """Mean level of each channel over the frame, float64 ``[3]``, 0..255."""
    return np.array(cv2.mean(region.pixels)[:3])


def _read(path: str | os.PathLike[str]) -> tuple[str, bytes]:
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BadImage(name, f"cannot be read ({error.strerror or error})") from error
    if not data:
        raise BadImage(name, "is empty")
    return name, data


def _layout(name: str, data: bytes) -> _Layout:
    """Walk the segments of a JPEG file (ITU-T T.81, annex B) up to its compressed data."""
    frame: tuple[int, int, int, tuple[int, int], int, int] | None = None
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # fill
            at += 1
            continue
        body = data[at + 4 : at + 2 + length]
        if len(body) < length - 2 or length < 2:
            break
        start = 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)  # of a frame
        if start and len(body) >= 6 and len(body) >= 6 + 3 * body[5]:
            if body[0] in (12, 16):
                raise BadImage(name, f"is a JPEG of {body[0]} bits per channel; convert it to 8")
            colours = body[5]
            sampling = [body[7 + 3 * i] for i in range(colours)] or [0x11]
            block = (
                8 * max(factors >> 4 for factors in sampling),
                8 * max(factors & 15 for factors in sampling),
            )
            height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            frame = width, height, at + 5, block, colours, marker
        elif marker == 0xDA and frame is not None and body:
            width, height, height_at, block, colours, kind = frame
            if not width or not height or width * height > _LARGEST or not all(block):
                raise BadImage(name, f"is corrupt (its header says {width} x {height} pixels)")
            if kind in (0xC0, 0xC1, 0xC2) and width * height > _DENSEST * (len(data) - at):
                raise BadImage(name, f"is truncated ({len(data)} bytes for {width} x {height} pixels)")
            one_scan = kind in (0xC0, 0xC1) and body[0] == colours
            return _Layout(width, height, height_at, block, at + 2 + length, one_scan, colours)
        at += 2 + length
    raise BadImage(name, "is truncated or corrupt (no complete JPEG header)")


def _looks_sound(name: str, data: bytes, layout: _Layout) -> bool:
    """Whether a file decodes from top to bottom, and its compressed data look unbroken.

    Every 0xFF inside a scan is stuffed or a restart marker, so in a sound one-scan file the first other
    marker is the end of the image.

    Raises:
        BadImage: the data do not end at all.
    """
    first = _MARKER.search(data, layout.scan)
    if first is None or (first.group() != _END and data.rfind(_END, layout.scan) < 0):
        raise BadImage(name, "is truncated (no end-of-image marker)")
    return layout.one_scan and first.group() == _END and data.find(_HOLE, layout.scan, first.start()) < 0


def _decode(
    name: str,
    data: bytes | bytearray,
    layout: _Layout,
    reduced: int,
    scratch: Scratch,
    strict: bool = True,
) -> np.ndarray:
    width, height = _reduced(layout.width, reduced), _reduced(layout.height, reduced)
    if simplejpeg is None:
        if strict:
            _looks_sound(name, bytes(data), layout)  # OpenCV fills what is missing with grey
        return _decode_opencv(name, data, reduced)
    try:
        return simplejpeg.decode_jpeg(
            data,
            "RGB",
            min_width=width,
            min_height=height,
            strict=strict,
            buffer=scratch.pixels(height, width),
        )
    except ValueError as error:
        reason = str(error)
    harmless = _EXTRANEOUS.search(reason)
    if harmless and int(harmless[1]) <= 8:  # some cameras pad the scan by a byte or two
        return _decode(name, data, layout, reduced, scratch, strict=False)
    raise BadImage(name, f"is {'truncated' if 'Premature end' in reason else 'corrupt'} ({reason})")


def _cut(pixels: np.ndarray, part: Part, reduced: int) -> np.ndarray:
    rows = slice(part.top // reduced, _reduced(part.bottom, reduced))
    return pixels[rows, part.left // reduced : _reduced(part.right, reduced)]


def _decode_part(
    name: str, data: bytes, layout: _Layout, part: Part, reduced: int, scratch: Scratch
) -> np.ndarray:
    """The pixels of a part whose corners are multiples of ``reduced`` or the frame's, as those of the whole."""
    block = layout.block[0]
    # A part begins with a block. One more on each side, as the colours of its outer columns have no neighbours.
    first = max(part.left // block - 1, 0) * block // reduced
    last = _reduced(min(part.right + block, layout.width), reduced)
    left, right = part.left // reduced, _reduced(part.right, reduced)
    top, bottom = part.top // reduced, _reduced(part.bottom, reduced)
    pixels = scratch.pixels(bottom - top, last - first)
    try:
        jpeg_parts.decode_part(data, (first, top), pixels, reduced)
        return pixels[:, left - first : right - first]
    except ValueError:  # sampled in a way without a name, padded, or damaged: the whole will tell
        return _cut(_decode(name, data, layout, reduced, scratch), part, reduced)


def _decode_other(name: str, data: bytes) -> np.ndarray:
    if data.startswith(b"\x89PNG") and b"IEND" not in data[-64:]:
        raise BadImage(name, "is truncated (no end-of-image chunk)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong is told by BadImage
            with Image.open(io.BytesIO(data)) as header:  # decodes nothing
                width, height = header.size
    except UnidentifiedImageError as error:
        if not data.startswith(_TIFF):  # of which Pillow knows fewer kinds than OpenCV
            raise BadImage(name, "is no image that can be decoded, or a part of one") from error
        width = height = 0
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadImage(name, f"is no image that can be decoded, or a part of one ({error})") from error
    if width * height > _LARGEST:
        raise BadImage(name, f"is corrupt (its header says {width} x {height} pixels)")
    return _decode_opencv(name, data, 1)


def _decode_opencv(name: str, data: bytes | bytearray, reduced: int) -> np.ndarray:
    flags = _REDUCED_FLAG[reduced] | cv2.IMREAD_IGNORE_ORIENTATION
    buffer = np.frombuffer(data, np.uint8)
    try:
        pixels = cv2.imdecode(buffer, flags)
        stored = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED) if pixels is None else None
    except cv2.error as error:
        raise BadImage(name, f"is no image ({error.err})") from error
    if stored is not None and stored.dtype not in (np.uint8, np.uint16):
        raise BadImage(name, f"holds levels of type {stored.dtype}; convert them to 8 or 16 bits")
    if pixels is None:
        raise BadImage(name, "is no image that can be decoded, or a part of one")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
