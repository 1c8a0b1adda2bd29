"""A rectangle of a JPEG file by libjpeg-turbo's TurboJPEG API, version 3, without decoding what lies around it.

Rows above the rectangle are only read (Huffman codes have no index), rows below it are not touched, and the blocks
to its left and right are not transformed. The library is called through ctypes, which lets other threads run: the one
in the ``turbojpeg`` package, else the system's. Where there is neither, ``available`` says so.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from importlib import metadata

import numpy as np

_DECOMPRESS, _RGB = 1, 0  # TJINIT_DECOMPRESS, TJPF_RGB
_SYSTEM = {"darwin": "libturbojpeg.dylib", "win32": "turbojpeg.dll"}.get(sys.platform, "libturbojpeg.so.0")


class _Region(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("x", "y", "w", "h")]


class _Scale(ctypes.Structure):
    _fields_ = [("num", ctypes.c_int), ("denom", ctypes.c_int)]


def available() -> str | None:
    """Where the library was found, None if it was not."""
    found = _library()
    return None if found is None else found[1]


def decode_part(data: bytes, corner: tuple[int, int], pixels: np.ndarray, reduced: int = 1) -> None:
    """Decode a rectangle: the pixels of the whole image but for the outermost columns.

    Those are interpolated without their neighbours where colours are stored at a lower resolution: take a column
    more on each side that is not the image's.

    Args:
        data: a whole JPEG file of one or three channels.
        corner: column and row where it begins, px of the reduced image; the column must begin a block, as the file
            stores them (8 px times the highest sampling factor, divided by ``reduced``).
        pixels: uint8 ``[rows, columns, 3]``, contiguous: its size is the rectangle's, and it takes the RGB levels.
        reduced: decode at 1/1, 1/2, 1/4 or 1/8 of the size.

    Raises:
        ValueError: it cannot be decoded in parts, or what was read of it is not as it should be.
    """
    found = _library()
    assert found is not None, "no TurboJPEG: ask available() first"
    assert pixels.size and pixels.dtype == np.uint8 and pixels.flags.c_contiguous and pixels.shape[2:] == (3,)
    tj = found[0]
    handle = tj.tj3Init(_DECOMPRESS)
    if not handle:
        raise MemoryError("no memory to decode a JPEG")
    try:
        region = _Region(*corner, pixels.shape[1], pixels.shape[0])
        if (
            tj.tj3DecompressHeader(handle, data, len(data))
            or tj.tj3SetScalingFactor(handle, _Scale(1, reduced))
            or tj.tj3SetCroppingRegion(handle, region)
            or tj.tj3Decompress8(handle, data, len(data), pixels.ctypes.data, 0, _RGB)
        ):
            raise ValueError(tj.tj3GetErrorStr(handle).decode(errors="replace"))
    finally:
        tj.tj3Destroy(handle)


@functools.cache
def _library() -> tuple[ctypes.CDLL, str] | None:
    """The first library that has the functions, and where it is from."""
    for path, name in [*_packaged(), (_SYSTEM, f"the system's {_SYSTEM}")]:
        try:
            library = ctypes.CDLL(path)
            pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
            library.tj3Init.argtypes, library.tj3Init.restype = [number], pointer
            library.tj3Destroy.argtypes, library.tj3Destroy.restype = [pointer], None
            library.tj3GetErrorStr.argtypes, library.tj3GetErrorStr.restype = [pointer], ctypes.c_char_p
            library.tj3DecompressHeader.argtypes = [pointer, ctypes.c_char_p, size]
            library.tj3SetScalingFactor.argtypes = [pointer, _Scale]
            library.tj3SetCroppingRegion.argtypes = [pointer, _Region]
            library.tj3Decompress8.argtypes = [pointer, ctypes.c_char_p, size, pointer, number, number]
        except (OSError, AttributeError):  # not there, or older than version 3
            continue
        return library, name
    return None


def _packaged() -> list[tuple[str, str]]:
    """The library that the package ``turbojpeg`` brings."""
    try:
        package = metadata.distribution("turbojpeg")
    except metadata.PackageNotFoundError:
        return []
    files = [file for file in package.files or () if file.name.startswith(("libturbojpeg", "turbojpeg.dll"))]
    return [(str(package.locate_file(file)), f"turbojpeg {package.version}") for file in files]
