"""Overlap of rectangles and polygons: exact, and in the two raster definitions of VOT.

``VotRaster`` answers what the C library of the VOT toolkits does (``region.c`` of TraX, which pysot
wraps), ``OfficialRaster`` what the ``vot-toolkit`` package does. Nothing is compiled and no pixel is
filled: in each row of the raster a polygon covers a few spans of columns, and areas are sums of
lengths of spans. Both definitions cut a window of their own around each pair, but the rows of a convex
polygon are the same in nearly all of them; those of the truth are therefore kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import shapely

from pysot_toolkit.evaluation.protocol import Regions
from pysot_toolkit.evaluation.spans import LARGEST, ConvexRows, Counts, Placed, area, count

Size = tuple[float, float]  # width, height in px

FARTHEST = 2.0**29  # px; the references' 32-bit integers overflow beyond, so nothing is drawn there
PAIRS = 2**14  # pairs in memory at a time


def regions_of(rows: np.ndarray) -> Regions:
    """Rows ``[N, 4]`` (x, y, w, h px) or ``[N, 2k]`` (x1, y1, x2, y2, ... px, k >= 3) as regions."""
    values = np.asarray(rows, np.float64)
    return Regions(values, np.full(len(values), values.shape[1]))


def exact_overlaps(a: Regions, b: Regions, bounds: Size | None = None) -> np.ndarray:
    """Area of the intersection over area of the union of matching regions: ``[N]`` in [0, 1].

    A polygon that crosses itself is split into valid ones at the crossings.

    Args:
        a: N regions.
        b: N regions.
        bounds: both regions are cut to [0, width] x [0, height] first.

    Returns:
        NaN where a side has no region, or a coordinate that is not a number or beyond ``FARTHEST``; 0
        where neither has an area.
    """
    known = _drawable(a) & _drawable(b)
    first, second = (_geometries(Regions(side.values[known], side.length[known])) for side in (a, b))
    if bounds is not None:
        image = shapely.box(0, 0, *bounds)
        first, second = shapely.intersection(first, image), shapely.intersection(second, image)
    inner = shapely.area(shapely.intersection(first, second))
    union = shapely.area(first) + shapely.area(second) - inner
    overlap = np.full(len(known), np.nan)
    overlap[known] = np.clip(inner / np.where(union > 0, union, 1.0), 0, 1)
    return overlap


def vot_overlaps(a: Regions, b: Regions, bounds: Sequence[float] | None = None) -> np.ndarray:
    """``VotRaster(a, bounds).overlaps(b)``."""
    return VotRaster(a, bounds).overlaps(b)


def official_overlaps(a: Regions, b: Regions, bounds: Size | None = None) -> np.ndarray:
    """``OfficialRaster(a, bounds).overlaps(b)``."""
    return OfficialRaster(a, bounds).overlaps(b)


class _Shapes(NamedTuple):
    """N regions as a raster definition takes them; a rectangle has two corners, opposite each other."""

    x: np.ndarray  # [K, N] px, the last corner repeated
    y: np.ndarray
    corners: np.ndarray  # int [N], 0 where nothing can be drawn
    box: np.ndarray  # [4, N] left, top, right, bottom
    rectangle: np.ndarray  # bool [N]

    def take(self, index: np.ndarray) -> _Shapes:
        return _Shapes(
            self.x.take(index, axis=1),
            self.y.take(index, axis=1),
            self.corners[index],
            self.box.take(index, axis=1),
            self.rectangle[index],
        )


class _Raster(ABC):
    """Overlaps of predictions with one truth.

    What depends on the truth alone is worked out once, so keep the object as long as the truth.
    """

    _keeps_points: bool  # see ``spans.fill``

    def __init__(self, truth: Regions, bounds: Sequence[float] | None = None):
        self._bounds = bounds
        self._length = truth.length
        self._truth = self._shapes(truth)
        self._low, size, _ = self._window(self._truth.box, self._truth.box)
        placed = self._place(self._truth, self._low, size)
        convex = placed.convex() & ((size > 0) & (size <= LARGEST)).all(axis=0)
        if bounds is not None:
            convex &= all(float(bound).is_integer() for bound in bounds)  # else windows may lie between px
        order = np.argsort(-size[1])
        order = order[convex[order]]
        self._kept = np.full(len(convex), -1)  # a truth's place in ``_rows``
        self._kept[order] = np.arange(len(order))
        self._rows = ConvexRows(placed.take(order), size.take(order, axis=1), self._keeps_points)
        self._reach = np.full((2, len(convex)), np.inf)
        self._reach[0, order] = self._rows.reach

    def overlaps(self, prediction: Regions) -> np.ndarray:
        """Overlap of each prediction with the truth of the same row: ``[n]``, n the shorter length."""
        return self.overlaps_many([prediction])[0]

    def overlaps_many(self, predictions: Sequence[Regions]) -> list[np.ndarray]:
        """``overlaps`` of each, such as all repetitions, in less time."""
        if not predictions:
            return []
        counts = [min(len(prediction.length), len(self._length)) for prediction in predictions]
        frame = np.concatenate([np.arange(count) for count in counts])
        joined = _joined([Regions(p.values[:n], p.length[:n]) for p, n in zip(predictions, counts)])
        overlap = np.empty(len(frame))
        for first in range(0, len(frame), PAIRS):
            part = slice(first, first + PAIRS)
            overlap[part] = self._compare(frame[part], Regions(joined.values[part], joined.length[part]))
        return np.split(overlap, np.cumsum(counts)[:-1])

    def _compare(self, frame: np.ndarray, prediction: Regions) -> np.ndarray:
        """Overlap of region n with the truth of ``frame[n]``: ``[N]``."""
        shapes = self._shapes(prediction)
        low, size, overlap = self._window(self._truth.box.take(frame, axis=1), shapes.box)
        undecided = np.isnan(overlap)
        kept = undecided & shapes.rectangle & (self._kept[frame] >= 0)
        # Relative to a window that starts further left or up, yet not below 0, corners stay exact in 32
        # bits and round as they do relative to the polygon's own window, so that it covers the same.
        shift = self._low.take(frame, axis=1) - low
        near = (low >= 0) & (shift <= self._reach.take(frame, axis=1))
        kept &= ((shift == 0) | near).all(axis=0)
        for some, count_pixels in (
            (np.flatnonzero(kept), self._count_kept),
            (np.flatnonzero(undecided & ~kept), self._count),
        ):
            if len(some):
                inner, union = count_pixels(
                    frame[some], shapes.take(some), low.take(some, axis=1), size.take(some, axis=1)
                )
                overlap[some] = self._quotient(inner, union)
        drawable = (self._truth.corners[frame] > 0) & (shapes.corners > 0)
        self._except(overlap, drawable, (self._length[frame] == 0) | (prediction.length == 0))
        return overlap

    def _count_kept(
        self, frame: np.ndarray, rectangles: _Shapes, low: np.ndarray, size: np.ndarray
    ) -> Counts:
        pixels = self._pixels(rectangles, low, size)
        shift = (self._low.take(frame, axis=1) - low).astype(np.int64)
        kept = self._kept[frame]
        inner = self._rows.within(kept, pixels - np.concatenate([shift, shift]))
        return inner, self._rows.area[kept] + area(pixels) - inner

    def _count(self, frame: np.ndarray, shapes: _Shapes, low: np.ndarray, size: np.ndarray) -> Counts:
        truth = self._place(self._truth.take(frame), low, size)
        return count(truth, self._place(shapes, low, size), size, self._keeps_points)

    def _place(self, shapes: _Shapes, low: np.ndarray, size: np.ndarray) -> Placed:
        x, y = self._moved(shapes, low)
        return Placed(x, y, shapes.corners, shapes.rectangle, self._pixels(shapes, low, size))

    @abstractmethod
    def _shapes(self, regions: Regions) -> _Shapes:
        """Corners and boxes of regions."""

    @abstractmethod
    def _window(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of pairs of boxes ``[4, N]``: left and top of the raster ``[2, N]``, its number of columns and
        rows ``[2, N]``, and the overlap ``[N]`` if that is known without a raster, else NaN.
        """

    @abstractmethod
    def _moved(self, shapes: _Shapes, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Corners ``[K, N]`` in windows that start at ``low``, whole numbers as float64."""

    @abstractmethod
    def _pixels(self, shapes: _Shapes, low: np.ndarray, size: np.ndarray) -> np.ndarray:
        """What rectangles cover of their windows, int64 ``[4, N]``: left, top, and the column and row
        behind the last ones; nothing for polygons.
        """

    @abstractmethod
    def _quotient(self, inner: np.ndarray, union: np.ndarray) -> np.ndarray:
        """Overlaps from numbers of pixels."""

    @abstractmethod
    def _except(self, overlap: np.ndarray, drawable: np.ndarray, missing: np.ndarray) -> None:
        """Sets the overlaps of pairs that cannot be drawn, or where a region is missing."""


class VotRaster(_Raster):
    """Overlaps as ``region_compute_overlap`` of the VOT toolkits' C library has them.

    Corners are rounded half away from zero relative to the window of the pair, and a w x h rectangle
    covers (w + 1)(h + 1) pixels. ``overlaps`` holds 32-bit quotients: NaN where a side has no region or
    where both cover no pixel, 0 where a coordinate is not a number or beyond ``FARTHEST``.

    Args:
        truth: N regions.
        bounds: (width, height), or (top, bottom, left, right) as pysot reads four numbers, in px.
    """

    _keeps_points = False

    def _shapes(self, regions: Regions) -> _Shapes:
        x, y, corners = _corners(regions, regions.values, 0.0)
        x, y = x.astype(np.float32), y.astype(np.float32)
        box = np.stack([np.floor(x.min(0)), np.floor(y.min(0)), np.ceil(x.max(0)), np.ceil(y.max(0))])
        if self._bounds is not None:
            right, bottom = self._bounds[:2]
            left, top = 0.0, 0.0
            if len(self._bounds) == 4:
                top, bottom, left, right = self._bounds
            limit = np.array([[left], [top], [right], [bottom]], np.float32)
            np.maximum(box[:2], limit[:2], out=box[:2])
            np.minimum(box[2:], limit[2:], out=box[2:])
        return _Shapes(x, y, corners, box, regions.length == 4)

    def _window(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        low = np.minimum(first[:2], second[:2])
        size = (np.maximum(first[2:], second[2:]) - low).astype(np.int64) + 1
        areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
        extent = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
        common = extent[0] * extent[1]
        one, two = (area.astype(np.float64) for area in areas)
        with np.errstate(divide="ignore", invalid="ignore"):
            nothing = (one / two < 1e-10) | (two / one < 1e-10) | (size < 1).any(axis=0)
            nothing |= common / (areas[0] + areas[1] - common) <= 0
        return low, size, np.where(nothing, 0.0, np.nan)

    def _moved(self, shapes: _Shapes, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _rounded(shapes.x - low[0]), _rounded(shapes.y - low[1])

    def _pixels(self, shapes: _Shapes, low: np.ndarray, size: np.ndarray) -> np.ndarray:
        ends = _rounded(
            np.stack([shapes.x[0], shapes.y[0], shapes.x[1], shapes.y[1]]) - np.concatenate([low, low])
        )
        start, stop = np.minimum(ends[:2], ends[2:]), np.maximum(ends[:2], ends[2:]) + 1
        drawn = shapes.rectangle & (ends[:2] != ends[2:]).all(axis=0)
        return np.concatenate([np.clip(start, 0, size), np.clip(stop, 0, size)]).astype(np.int64) * drawn

    def _quotient(self, inner: np.ndarray, union: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return (inner.astype(np.float32) / union.astype(np.float32)).astype(np.float64)

    def _except(self, overlap: np.ndarray, drawable: np.ndarray, missing: np.ndarray) -> None:
        overlap[~drawable] = 0.0
        overlap[missing] = np.nan


class OfficialRaster(_Raster):
    """Overlaps as ``vot.region.calculate_overlap`` of the vot-toolkit package has them.

    Coordinates are rounded half to even, and a w x h rectangle covers w x h pixels. A missing region, or
    one with a coordinate that is not a number or beyond ``FARTHEST``, covers nothing and lies at (0, 0); two regions that
    together are no wider or no higher than one pixel overlap by 1.

    Args:
        truth: N regions.
        bounds: width, height in px.
    """

    _keeps_points = True

    def _shapes(self, regions: Regions) -> _Shapes:
        with np.errstate(over="ignore"):  # beyond FARTHEST, and not drawn
            whole = np.round(regions.values.astype(np.float32))
        x, y, corners = _corners(regions, whole, 1.0)
        box = np.stack([x.min(0), y.min(0), x.max(0), y.max(0)])
        rectangle = regions.length == 4
        box[:, rectangle] = np.stack([x[0], y[0], x[1], y[1]])[:, rectangle]
        return _Shapes(x, y, corners, box.astype(np.int64), rectangle)

    def _window(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        low, last = np.minimum(first[:2], second[:2]), np.maximum(first[2:], second[2:])
        same = (low >= last).any(axis=0)
        if self._bounds is not None:
            low = np.maximum(low, 0)
            last = np.minimum(last, np.array(self._bounds, np.int64)[:, None] - 1)
        outside = (low >= last).any(axis=0)
        return low, last - low + 1, np.where(same, 1.0, np.where(outside, 0.0, np.nan))

    def _moved(self, shapes: _Shapes, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return shapes.x - low[0], shapes.y - low[1]

    def _pixels(self, shapes: _Shapes, low: np.ndarray, size: np.ndarray) -> np.ndarray:
        first, last = shapes.box[:2], shapes.box[2:]
        end = low + size - 1
        start = np.maximum(first - low, 0)
        # The toolkit compares with the window's last column, not with its width: that matters only where
        # ``low`` is negative, and a negative result then counts from the end, as slices do.
        stop = np.minimum(last - low, end) + 1
        stop = np.minimum(np.where(stop < 0, stop + size, stop), size)
        pixels = np.concatenate([start, np.maximum(stop, start)])
        seen = ((first <= end) & (last >= low)).all(axis=0)
        return pixels * (shapes.rectangle & seen & (shapes.corners > 0))

    def _quotient(self, inner: np.ndarray, union: np.ndarray) -> np.ndarray:
        return inner / np.maximum(union, 1)

    def _except(self, overlap: np.ndarray, drawable: np.ndarray, missing: np.ndarray) -> None:
        pass


def _rounded(values: np.ndarray) -> np.ndarray:
    """To whole numbers, half away from zero; float32 to float64, where adding one half is exact."""
    exact = values.astype(np.float64)
    return np.trunc(exact + np.copysign(0.5, exact))


def _joined(regions: Sequence[Regions]) -> Regions:
    width = max(part.values.shape[1] for part in regions)
    values = np.full((sum(len(part.length) for part in regions), width), np.nan)
    end = 0
    for part in regions:
        values[end : end + len(part.length), : part.values.shape[1]] = part.values
        end += len(part.length)
    return Regions(values, np.concatenate([part.length for part in regions]))


def _drawable(regions: Regions) -> np.ndarray:
    """Whether there is a region and all its coordinates are numbers within reach, bool ``[N]``."""
    unused = np.arange(regions.values.shape[1])[:, None] >= regions.length
    return ((np.abs(regions.values.T) < FARTHEST) | unused).all(axis=0) & (regions.length > 0)


def _corners(
    regions: Regions, values: np.ndarray, inclusive: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners x and y ``[K, N]``, the last one repeated, and their number ``[N]``.

    Those of a rectangle are (x, y) and (x + w - inclusive, y + h - inclusive); of what is not drawable
    there are none, and they are 0.
    """
    drawable = _drawable(regions)
    columns = max(4, values.shape[1] // 2 * 2)
    points = np.zeros((columns, len(values)))
    points[: values.shape[1]] = values.T[:columns]
    points[:, ~drawable] = 0.0
    points[2:4] += np.where((regions.length == 4) & drawable, points[:2] - inclusive, 0.0)
    corners = np.where(drawable, regions.length // 2, 0)
    last = np.minimum(np.arange(columns // 2)[:, None], np.maximum(corners - 1, 0))
    x, y = (np.take_along_axis(points[side::2], last, axis=0) for side in (0, 1))
    return x, y, corners


def _geometries(regions: Regions) -> np.ndarray:
    """Shapely geometries of drawable regions, valid ones."""
    x, y, _ = _corners(regions, regions.values, 0.0)
    rectangle = regions.length == 4
    geometries = np.empty(len(rectangle), object)
    (x1, x2), (y1, y2) = x[:2, rectangle], y[:2, rectangle]
    geometries[rectangle] = shapely.box(x1, y1, x2, y2)
    geometries[~rectangle] = shapely.polygons(np.stack([x.T, y.T], axis=2)[~rectangle])
    invalid = ~shapely.is_valid(geometries)
    geometries[invalid] = shapely.make_valid(geometries[invalid])
    return geometries
