"""Overlap of rectangles and polygons: exact, and in the two raster definitions of VOT.

``vot_overlaps`` is what the VOT toolkits' C library (TraX ``region.c``) answers, which pysot and
others wrap; ``official_overlaps`` is the raster of the ``vot-toolkit`` package (Kristan et al., TPAMI
2016, describe the measures). Neither compiles anything nor fills pixels: a raster row of a polygon is
a few spans of columns, and overlaps are sums over the rows of lengths of spans.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import shapely

from pysot_toolkit.evaluation.protocol import Regions

Bounds = tuple[float, float] | tuple[float, float, float, float] | None

FARTHEST = 2.0**30  # px; the references' 32-bit integers overflow beyond, so nothing is compared there
_NOWHERE = np.int32(2**31 - 1)  # column of an edge that a row does not meet; sorts last
_CELLS = 2**17  # raster rows held at a time


def regions_of(rows: np.ndarray) -> Regions:
    """Rows ``[N, 4]`` (x, y, w, h px) or ``[N, 2k]`` (x1, y1, x2, y2, ... px, k >= 3) as regions."""
    values = np.asarray(rows, np.float64)
    return Regions(values, np.full(len(values), values.shape[1]))


def exact_overlaps(a: Regions, b: Regions, bounds: tuple[float, float] | None = None) -> np.ndarray:
    """Area of the intersection over area of the union of matching regions: ``[N]`` in [0, 1].

    A polygon that crosses itself covers what an odd winding encloses.

    Args:
        a, b: N regions each.
        bounds: width, height in px; both regions are cut to [0, W] x [0, H] first.

    Returns:
        NaN where a side has no region or a coordinate is not finite; 0 where both have no area.
    """
    known = _finite(a) & _finite(b)
    first, second = (_polygons(_rows(regions, known)) for regions in (a, b))
    if bounds is not None:
        image = shapely.box(0, 0, *bounds)
        first, second = shapely.intersection(first, image), shapely.intersection(second, image)
    inner = shapely.area(shapely.intersection(first, second))
    union = shapely.area(first) + shapely.area(second) - inner
    overlap = np.full(len(known), np.nan)
    overlap[known] = np.clip(inner / np.where(union > 0, union, 1.0), 0, 1)
    return overlap


def _polygons(regions: Regions) -> np.ndarray:
    """Valid shapely geometries, ``[N]``."""
    x, y = _vertices(regions)
    polygons = shapely.polygons(np.stack([x, y], axis=2))
    invalid = ~shapely.is_valid(polygons)
    polygons[invalid] = shapely.make_valid(polygons[invalid])
    return polygons


def vot_overlaps(a: Regions, b: Regions, bounds: Bounds = None) -> np.ndarray:
    """``VotRaster(a, bounds).overlaps(b)``."""
    return VotRaster(a, bounds).overlaps(b)


def official_overlaps(a: Regions, b: Regions, bounds: tuple[float, float] | None = None) -> np.ndarray:
    """``OfficialRaster(a, bounds).overlaps(b)``."""
    return OfficialRaster(a, bounds).overlaps(b)


class _Shapes(NamedTuple):
    """Regions as a raster definition takes them."""

    x: np.ndarray  # [N, K] px, corners in order, the last one repeated
    y: np.ndarray
    corners: np.ndarray  # int [N]
    box: np.ndarray  # [N, 4] left, top, right, bottom, whole px, cut to the bounds
    rectangle: np.ndarray  # bool [N]
    known: np.ndarray  # bool [N]

    def take(self, index: np.ndarray) -> _Shapes:
        return _Shapes(*(field[index] for field in self))


class _Window(NamedTuple):
    """The rasters of pairs: whole px, first column and row, number of columns and rows."""

    left: np.ndarray
    top: np.ndarray
    width: np.ndarray
    height: np.ndarray

    def take(self, index: np.ndarray) -> _Window:
        return _Window(*(field[index] for field in self))


class _Raster:
    """Overlaps of predictions with a truth that stays the same, as one raster definition has them."""

    keeps_last: bool  # how rows are filled, see ``_fill``

    def __init__(self, truth: Regions, bounds: Bounds = None):
        self._bounds = bounds
        self._truth = self._shapes(truth)
        self._no_region = truth.length == 0

    def overlaps(self, prediction: Regions) -> np.ndarray:
        """Overlap of each prediction with the truth of the same row: ``[n]``, n the shorter length."""
        return self.overlaps_many([prediction])[0]

    def overlaps_many(self, predictions: Sequence[Regions]) -> list[np.ndarray]:
        """``overlaps`` of several predictions, such as repetitions, in less time."""
        result = []
        for prediction in predictions:
            n = min(len(prediction.length), len(self._no_region))
            a = self._truth.take(np.arange(n))
            b = self._shapes(Regions(prediction.values[:n], prediction.length[:n]))
            window, overlap = self._window(a, b)
            left = np.flatnonzero(np.isnan(overlap))
            counts = self._count(a.take(left), b.take(left), window.take(left))
            overlap[left] = self._quotient(*counts)
            result.append(self._special(overlap, self._no_region[:n], prediction.length[:n] == 0))
        return result

    def _count(self, a: _Shapes, b: _Shapes, window: _Window) -> tuple[np.ndarray, np.ndarray]:
        first, second = self._pixels(a, window), self._pixels(b, window)
        inner = _area(_common(first, second))
        union = _area(first) + _area(second) - inner
        for part, rows in _chunks(np.flatnonzero(~(a.rectangle & b.rectangle)), window.height):
            one, two = (self._spans(shapes.take(part), window.take(part), rows) for shapes in (a, b))
            inner[part] = sum(
                np.maximum(np.minimum(b1, b2) - np.maximum(a1, a2), 0).sum(axis=1, dtype=np.int64)
                for a1, b1 in one
                for a2, b2 in two
            )
            union[part] = sum((b1 - a1).sum(axis=1, dtype=np.int64) for a1, b1 in one + two) - inner[part]
        return inner, union

    def _spans(self, shapes: _Shapes, window: _Window, rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
        x, y = self._place(shapes, window)
        corners = np.where(shapes.known, shapes.corners, 0)
        spans = _fill(x, y, corners, window.width, window.height, rows, self.keeps_last)
        pixels = self._pixels(shapes, window)[shapes.rectangle]
        row = np.arange(rows)
        inside = (row >= pixels[:, 1:2]) & (row < pixels[:, 3:])
        for k, (start, stop) in enumerate(spans):
            start[shapes.rectangle] = np.where(inside, pixels[:, :1], 0) if k == 0 else 0
            stop[shapes.rectangle] = np.where(inside, pixels[:, 2:3], 0) if k == 0 else 0
        return spans


class VotRaster(_Raster):
    keeps_last = False

    def _shapes(self, regions: Regions) -> _Shapes:
        known = _finite(regions)
        x, y = (np.where(known[:, None], c, 0).astype(np.float32) for c in _vertices(regions))
        box = np.stack([np.floor(x.min(1)), np.floor(y.min(1)), np.ceil(x.max(1)), np.ceil(y.max(1))], axis=1)
        if self._bounds is not None:
            if len(self._bounds) == 2:
                left, top, (right, bottom) = 0.0, 0.0, self._bounds
            else:
                top, bottom, left, right = self._bounds
            lowest, highest = np.array([[left, top], [right, bottom]], np.float32)
            box[:, :2] = np.maximum(box[:, :2], lowest)
            box[:, 2:] = np.minimum(box[:, 2:], highest)
        return _Shapes(x, y, _corners(regions), box, regions.length == 4, known)

    def _window(self, a: _Shapes, b: _Shapes) -> tuple[_Window, np.ndarray]:
        left, top = np.minimum(a.box[:, :2], b.box[:, :2]).T
        right, bottom = np.maximum(a.box[:, 2:], b.box[:, 2:]).T
        width, height = ((high - low).astype(np.int64) + 1 for low, high in ((left, right), (top, bottom)))
        areas = [np.prod(s.box[:, 2:] - s.box[:, :2], axis=1) for s in (a, b)]
        common = np.prod(
            np.minimum(a.box[:, 2:], b.box[:, 2:]) - np.maximum(a.box[:, :2], b.box[:, :2]), axis=1
        )
        first, second = (area.astype(np.float64) for area in areas)
        with np.errstate(divide="ignore", invalid="ignore"):
            nothing = (first / second < 1e-10) | (second / first < 1e-10) | (width < 1) | (height < 1)
            nothing |= common / (areas[0] + areas[1] - common) <= 0
        nothing |= ~(a.known & b.known)
        return _Window(left, top, width, height), np.where(nothing, 0.0, np.nan)

    def _place(self, shapes: _Shapes, window: _Window) -> tuple[np.ndarray, np.ndarray]:
        return tuple(
            _round_away(values - first[:, None]).astype(np.float64)
            for values, first in ((shapes.x, window.left), (shapes.y, window.top))
        )

    def _pixels(self, shapes: _Shapes, window: _Window) -> np.ndarray:
        x, y = self._place(shapes, window)
        ends = []
        for values, size in ((x[:, (0, 2)], window.width), (y[:, (0, 2)], window.height)):
            start, stop = values.min(axis=1), values.max(axis=1)
            stop = np.where(start == stop, start, stop + 1)
            ends.append((np.clip(start, 0, size), np.clip(stop, 0, size)))
        return np.stack([ends[0][0], ends[1][0], ends[0][1], ends[1][1]], axis=1).astype(np.int64)

    def _quotient(self, inner: np.ndarray, union: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return (inner.astype(np.float32) / union.astype(np.float32)).astype(np.float64)

    def _special(self, overlap, a, b):
        overlap[a | b] = np.nan
        return overlap


class OfficialRaster(_Raster):
    keeps_last = True

    def _shapes(self, regions: Regions) -> _Shapes:
        known = _finite(regions)
        rectangle = regions.length == 4
        x, y = (np.where(known[:, None], np.round(c), 0.0) for c in _vertices(regions, np.float32))
        box = np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1)
        wh = np.round(regions.values[:, 2:4].astype(np.float32))
        xy = np.round(regions.values[:, :2].astype(np.float32))
        r = rectangle & known
        box[r, :2] = xy[r]
        box[r, 2:] = (xy + wh - 1)[r]
        return _Shapes(x, y, _corners(regions), box.astype(np.int64), rectangle, known)

    def _window(self, a: _Shapes, b: _Shapes) -> tuple[_Window, np.ndarray]:
        left, top = np.minimum(a.box[:, :2], b.box[:, :2]).T
        right, bottom = np.maximum(a.box[:, 2:], b.box[:, 2:]).T
        same = (left >= right) | (top >= bottom)
        if self._bounds is not None:
            left, top = np.maximum(left, 0), np.maximum(top, 0)
            right, bottom = np.minimum(right, self._bounds[0] - 1), np.minimum(bottom, self._bounds[1] - 1)
        outside = (left >= right) | (top >= bottom)
        window = _Window(left, top, right - left + 1, bottom - top + 1)
        return window, np.where(same, 1.0, np.where(outside, 0.0, np.nan))

    def _place(self, shapes: _Shapes, window: _Window) -> tuple[np.ndarray, np.ndarray]:
        return shapes.x.astype(np.float64) - window.left[:, None], shapes.y.astype(np.float64) - window.top[
            :, None
        ]

    def _pixels(self, shapes: _Shapes, window: _Window) -> np.ndarray:
        ends = []
        for k, first, size in ((0, window.left, window.width), (1, window.top, window.height)):
            last = first + size - 1
            start, stop = (
                np.maximum(shapes.box[:, k] - first, 0),
                np.minimum(shapes.box[:, k + 2] - first, last) + 1,
            )
            stop = np.where(stop < 0, stop + size, np.minimum(stop, size))
            stop = np.where((shapes.box[:, k] > last) | (shapes.box[:, k + 2] < first), 0, stop)
            ends.append((start, stop))
        pixels = np.stack([ends[0][0], ends[1][0], ends[0][1], ends[1][1]], axis=1)
        pixels[~shapes.known] = 0
        return pixels

    def _quotient(self, inner: np.ndarray, union: np.ndarray) -> np.ndarray:
        return inner / np.maximum(union, 1)

    def _special(self, overlap, a, b):
        return overlap


def _fill(x, y, corners, width, height, rows: int, keeps_last: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    n, k = x.shape
    row = np.arange(rows, dtype=np.float64)
    nodes = np.full((k, n, rows), _NOWHERE)
    for i in range(k):
        xi, yi = x[:, i, None], y[:, i, None]
        dx, dy = x[:, i - 1, None] - xi, y[:, i - 1, None] - yi
        met = (row >= np.minimum(yi, yi + dy)) & (row <= np.maximum(yi, yi + dy))
        if keeps_last:
            met &= (i < corners)[:, None]
        else:
            met &= dy != 0
        at = (row - yi) / np.where(dy == 0, 1, dy) * dx
        if keeps_last:
            at = np.where(dy == 0, 0.0, at)
        np.copyto(nodes[i], xi + at, where=met, casting="unsafe")
    for end in range(k - 1, 0, -1):
        for p in range(end):
            low = np.minimum(nodes[p], nodes[p + 1])
            np.maximum(nodes[p], nodes[p + 1], out=nodes[p + 1])
            nodes[p] = low
    free = np.ones((n, rows), bool)
    behind = np.zeros((n, rows), np.int32)
    spans = []
    limit = np.where(row < height[:, None], width[:, None], 0).astype(np.int32)
    for p in range(k - 1):
        left, right = nodes[p], nodes[p + 1]
        filled = left != right
        if keeps_last:
            filled |= nodes[p + 2] == _NOWHERE if p + 2 < k else True
        filled &= free & (right != _NOWHERE)
        stop = np.clip(np.where(filled, right, -1), -1, limit - 1) + 1
        start = np.minimum(np.clip(np.maximum(left, behind), 0, limit), stop)
        spans.append((start, stop))
        behind = np.where(filled, stop, behind)
        free = ~filled
    return spans


def _chunks(index, height):
    order = index[np.argsort(-height[index], kind="stable")]
    done = 0
    while done < len(order):
        rows = int(height[order[done]])
        part = order[done : done + max(1, _CELLS // rows)]
        yield part, rows
        done += len(part)


def _common(first, second):
    return np.concatenate(
        [np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])], axis=1
    )


def _area(pixels):
    return np.maximum(pixels[:, 2:] - pixels[:, :2], 0).prod(axis=1)


def _round_away(values):
    return np.copysign(np.floor(np.abs(values) + np.float32(0.5)), values)


def _corners(regions: Regions) -> np.ndarray:
    return np.where(regions.length == 4, 4, np.maximum(regions.length // 2, 1))


def _finite(regions: Regions) -> np.ndarray:
    used = np.arange(regions.values.shape[1]) < (regions.length)[:, None]
    return ((np.abs(regions.values) < FARTHEST) | ~used).all(axis=1) & (regions.length > 0)


def _rows(regions: Regions, rows: np.ndarray) -> Regions:
    return Regions(regions.values[rows], regions.length[rows])


def _vertices(regions: Regions, dtype=np.float64):
    values = regions.values.astype(dtype)
    corners = _corners(regions)
    k = max(4, int(corners.max(initial=4)))
    index = np.minimum(np.arange(k), corners[:, None] - 1)
    rect = (regions.length == 4)[:, None]
    if values.shape[1] < 4:
        values = np.pad(values, ((0, 0), (0, 4 - values.shape[1])))
    left, top, w, h = values[:, :4].T
    px, py = np.stack([left, left + w, left + w, left], 1), np.stack([top, top, top + h, top + h], 1)
    four = np.minimum(np.arange(k), 3)
    last = values.shape[1] // 2 - 1
    x = np.where(rect, px[:, four], np.take_along_axis(values[:, 0::2], np.minimum(index, last), 1))
    y = np.where(rect, py[:, four], np.take_along_axis(values[:, 1::2], np.minimum(index, last), 1))
    return x, y
