"""How many pixels of a raster shapes cover, from spans of columns in its rows: no pixel is ever filled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

LARGEST = 4096  # px; the largest window whose rows ``ConvexRows`` holds, in 16 bits
CELLS = 2**14  # rows of windows worked on at a time, in 64 bits
_NOWHERE = np.iinfo(np.int32).max  # the column of an edge in a row that it does not meet; sorts last

Spans = list[tuple[np.ndarray, np.ndarray]]  # first columns and the columns behind the last, int32 [N, rows]
Counts = tuple[np.ndarray, np.ndarray]  # pixels that two shapes share, and pixels in either, int64 [N]


class Placed(NamedTuple):
    """N polygons and rectangles in windows of their own, whole px."""

    x: np.ndarray  # float64 [K, N] corners of the polygons, the last one repeated
    y: np.ndarray
    corners: np.ndarray  # int [N]
    rectangle: np.ndarray  # bool [N]
    pixels: np.ndarray  # int64 [4, N] of rectangles: left, top, and the column and row behind the last ones

    def take(self, index: np.ndarray) -> Placed:
        return Placed(
            self.x.take(index, axis=1),  # unlike x[:, index], contiguous
            self.y.take(index, axis=1),
            self.corners[index],
            self.rectangle[index],
            self.pixels.take(index, axis=1),
        )

    def convex(self) -> np.ndarray:
        """Whether they are polygons whose rows have one span, from the leftmost to the rightmost mark.

        These have at most four corners and an area, are convex, and have no corner within a level side:
        there, marks of level edges would end a span.
        """
        x, y = self.x[:4], self.y[:4]
        across, down = x - np.roll(x, 1, axis=0), y - np.roll(y, 1, axis=0)
        turn = across * np.roll(down, -1, axis=0) - down * np.roll(across, -1, axis=0)
        fit = ((turn >= 0).all(axis=0) | (turn <= 0).all(axis=0)) & (turn != 0).any(axis=0)
        level = down == 0
        fit &= ~(level & np.roll(level, 1, axis=0)).any(axis=0)
        return fit & (self.corners <= 4) & ~self.rectangle


def count(first: Placed, second: Placed, size: np.ndarray, keeps_points: bool) -> Counts:
    """Pixels of N pairs of shapes that share a window each.

    Args:
        size: columns and rows of the windows, ``[2, N]``, each at least 1.
        keeps_points: see ``fill``.
    """
    small = (size <= LARGEST).all(axis=0)
    plain = [side.rectangle | (side.convex() & small) for side in (first, second)]
    # 0: both convex; 1: the first a rectangle, the second convex; 2: the reverse; 3: both rectangles
    kind = np.where(plain[0] & plain[1], first.rectangle + 2 * second.rectangle, 4)
    ways: list[Callable[..., Counts]] = [
        _count_convex,
        _swapped(_count_mixed),
        _count_mixed,
        _count_boxes,
        _count_any,
    ]
    inner, union = np.empty((2, len(kind)), np.int64)
    for number, way in enumerate(ways):
        some = np.flatnonzero(kind == number)
        if len(some):
            some = some[np.argsort(-size[1, some])]
            inner[some], union[some] = way(
                first.take(some), second.take(some), size.take(some, axis=1), keeps_points
            )
    return inner, union


# Ways to count; windows from high to low.


def _count_boxes(first: Placed, second: Placed, size: np.ndarray, keeps_points: bool) -> Counts:
    one, two = first.pixels, second.pixels
    inner = area(np.concatenate([np.maximum(one[:2], two[:2]), np.minimum(one[2:], two[2:])]))
    return inner, area(one) + area(two) - inner


def _count_mixed(first: Placed, second: Placed, size: np.ndarray, keeps_points: bool) -> Counts:
    """A convex polygon and a rectangle."""
    rows = ConvexRows(first, size, keeps_points)
    inner = rows.within(np.arange(len(rows.area)), second.pixels)
    return inner, rows.area + area(second.pixels) - inner


def _swapped(way: Callable[..., Counts]) -> Callable[..., Counts]:
    return lambda first, second, size, keeps_points: way(second, first, size, keeps_points)


def _count_convex(first: Placed, second: Placed, size: np.ndarray, keeps_points: bool) -> Counts:
    one, two = ConvexRows(first, size, keeps_points), ConvexRows(second, size, keeps_points)
    inner = one.common(two)
    return inner, one.area + two.area - inner


def _count_any(first: Placed, second: Placed, size: np.ndarray, keeps_points: bool) -> Counts:
    inner, total = np.zeros((2, len(first.corners)), np.int64)
    for part, top, rows in blocks(size[1]):
        index, row = np.arange(len(inner))[part], np.arange(top, top + rows)
        one, two = (_spans(side.take(index), size[:, part], row, keeps_points) for side in (first, second))
        total[part] += sum(_length(start, stop) for start, stop in one + two)
        inner[part] += sum(
            _length(np.maximum(start, left), np.minimum(stop, right))
            for start, stop in one
            for left, right in two
        )
    return inner, total - inner


def _spans(shapes: Placed, size: np.ndarray, row: np.ndarray, keeps_points: bool) -> Spans:
    """``fill``, where also rectangles have their spans."""
    spans = fill(shapes.x, shapes.y, shapes.corners, size, row, keeps_points)
    left, upper, right, lower = shapes.pixels[:, shapes.rectangle, None]
    for number, (start, stop) in enumerate(spans):
        inside = (row >= upper) & (row < lower) & (number == 0)
        start[shapes.rectangle], stop[shapes.rectangle] = (
            np.where(inside, left, 0),
            np.where(inside, right, 0),
        )
    return spans


def area(pixels: np.ndarray) -> np.ndarray:
    """Pixels of rectangles, see ``Placed``: ``[4, N] -> [N]``."""
    return np.maximum(pixels[2] - pixels[0], 0) * np.maximum(pixels[3] - pixels[1], 0)


def _length(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    return np.maximum(stop - start, 0).sum(axis=1, dtype=np.int64)


def fill(
    x: np.ndarray, y: np.ndarray, corners: np.ndarray, size: np.ndarray, row: np.ndarray, keeps_points: bool
) -> Spans:
    """Spans that polygons cover in some rows of their windows.

    In both of VOT's definitions every edge that is not level marks the column where it meets the row,
    and the pixels from one mark to the next are filled, both included, by turns; marks of the same
    column are one. The spans of a row are disjoint, and empty ones are among them.

    Args:
        x: columns of the corners in the windows, whole numbers as float64, ``[K, N]``.
        y: rows of the corners, likewise.
        corners: how many of the K each polygon has, ``[N]``; the others repeat the last one.
        size: columns and rows of the windows, int ``[2, N]``.
        row: the rows ``[rows]``.
        keeps_points: as the vot-toolkit has it, level edges leave a mark and a single mark is a pixel.
    """
    edges = len(x)
    marks = np.full((edges, x.shape[1], len(row)), _NOWHERE, np.int32)
    for edge in range(edges):
        at, met, level = _meetings(x, y, edge, row)
        met &= (edge < corners)[:, None] & (keeps_points | ~level)
        np.copyto(marks[edge], at, where=met, casting="unsafe")  # towards zero, as a cast in C
    for last in range(edges - 1, 0, -1):
        for k in range(last):
            marks[k : k + 2] = np.minimum(marks[k], marks[k + 1]), np.maximum(marks[k], marks[k + 1])
    width = np.where(row < size[1, :, None], size[0, :, None], 0).astype(np.int32)
    behind = np.zeros(marks.shape[1:], np.int32)  # the column behind what is filled so far
    free = np.ones(marks.shape[1:], bool)  # the mark does not end a span
    spans = []
    for k in range(edges - 1):
        left, right = marks[k], marks[k + 1]
        filled = left < right
        if keeps_points:
            filled |= (marks[k + 2] == _NOWHERE) if k + 2 < edges else True
        filled &= free & (right != _NOWHERE)
        free = ~filled
        stop = np.where(filled, np.clip(right, -1, width - 1) + 1, 0)
        start = np.minimum(np.clip(np.maximum(left, behind), 0, width), stop)
        behind = np.maximum(behind, stop)
        spans.append((start, stop))
    return spans


def blocks(height: np.ndarray, cells: int = CELLS) -> Iterator[tuple[slice, int, int]]:
    """Windows of similar height: which, first row and number of rows, about ``cells`` rows in all.

    Args:
        height: in rows, at least 1, descending.
    """
    done = 0
    while done < len(height):
        rows = int(height[done])
        part = slice(done, done + max(1, cells // rows))
        for first in range(0, rows, cells):
            yield part, first, min(cells, rows - first)
        done = part.stop


class ConvexRows:
    """The rows of M convex polygons, one span each, held so that many rectangles can be laid over them.

    Args:
        polygons: see ``Placed.convex``.
        size: columns and rows of the windows, ``[2, M]``, at most ``LARGEST``; rows descend.
        keeps_points: see ``fill``.
    """

    def __init__(self, polygons: Placed, size: np.ndarray, keeps_points: bool):
        x, y = polygons.x[:4], polygons.y[:4]
        self.height = size[1]
        self.area = np.zeros(len(self.height), np.int64)  # px
        # How many columns further left a window may start for the polygon to cover the same. Where an edge
        # meets a row at a whole number but for an error of rounding, and just below it, the cast takes
        # off one; further right the last bit of the sum is worth more, until the error drowns in it. (The
        # error is a power of two, as it is one or two units in the last place of a product.)
        self.reach = np.full(len(self.height), np.inf)
        self._start, self._stop = np.zeros((2, len(self.height), size[1].max(initial=0) + 1), np.int16)
        for part, _, rows in blocks(self.height):
            left, right = _outline(x[:, part], y[:, part], np.arange(rows))
            empty = (left > right) | (np.arange(rows) >= size[1, part, None])
            left[empty], right[empty] = 0.0, -1.0
            for at in (left, right):
                error = np.ceil(at) - at
                which, row = np.nonzero((error > 0) & (error < 1e-6))
                drowning = error[which, row] * 2.0**53 - np.ceil(at[which, row])
                np.minimum.at(self.reach[part], which, drowning)
            start, stop = left.astype(np.int32), right.astype(np.int32) + 1
            if not keeps_points:
                stop[stop == start + 1] = 0
            width = size[0, part, None]
            start = np.clip(start, 0, width)
            stop = np.maximum(np.clip(stop, 0, width), start)
            self._start[part, :rows], self._stop[part, :rows] = start, stop
            self.area[part] = (stop - start).sum(axis=1)

    def within(self, which: np.ndarray, rectangles: np.ndarray) -> np.ndarray:
        """Pixels that polygon ``which[n]`` covers within rectangle n, int64 ``[N]``.

        Args:
            which: ``[N]``.
            rectangles: in the polygon's window, see ``Placed.pixels``, ``[4, N]``.
        """
        order = np.argsort(which)  # which sorts the rows by their number, too
        which = which[order]
        height = self.height[which]
        sides = rectangles.take(order, axis=1)
        left, right = (np.clip(sides[k], 0, LARGEST).astype(np.int16)[:, None] for k in (0, 2))
        top, bottom = (np.clip(sides[k], 0, height) for k in (1, 3))
        counts = np.empty(len(which), np.int64)
        for part, _, rows in blocks(height, 4 * CELLS):  # of 16 bits
            columns = rows + 1  # the last one is empty, so that sums can end behind the last row
            start, stop = self._start[which[part], :columns], self._stop[which[part], :columns]
            np.maximum(start, left[part], out=start)
            np.minimum(stop, right[part], out=stop)
            np.maximum(stop, start, out=stop)
            stop -= start
            first = np.arange(len(stop)) * columns
            between = np.stack([first + top[part], first + bottom[part]], axis=1).ravel()
            sums = np.add.reduceat(stop.astype(np.int32).ravel(), between, dtype=np.int32)[::2]
            counts[order[part]] = np.where(top[part] < bottom[part], sums, 0)
        return counts

    def common(self, others: ConvexRows) -> np.ndarray:
        """Pixels that the polygons share with others in the same windows, int64 ``[M]``."""
        counts = np.empty(len(self.area), np.int64)
        for part, _, rows in blocks(self.height):
            counts[part] = _length(
                np.maximum(self._start[part, :rows], others._start[part, :rows]),
                np.minimum(self._stop[part, :rows], others._stop[part, :rows]),
            )
        return counts


def _outline(x: np.ndarray, y: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leftmost and rightmost mark of polygons in each row, float64 ``[N, rows]``, infinite where none."""
    left, right = np.full((x.shape[1], len(row)), np.inf), np.full((x.shape[1], len(row)), -np.inf)
    for edge in range(len(x)):
        at, met, level = _meetings(x, y, edge, row)
        met &= ~level
        np.minimum(left, at, out=left, where=met)
        np.maximum(right, at, out=right, where=met)
    return left, right


def _meetings(
    x: np.ndarray, y: np.ndarray, edge: int, row: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the edge that ends in a corner meets rows: column and whether it does (``[N, rows]``), and
    whether the edge is level (``[N, 1]``; the column is then the corner's).

    The order of the operations is that of both references and decides about the last bit.
    """
    row = row.astype(np.float64)
    end_x, end_y = x[edge, :, None], y[edge, :, None]
    across, down = x[edge - 1, :, None] - end_x, y[edge - 1, :, None] - end_y
    level = down == 0
    met = (row >= np.minimum(end_y, end_y + down)) & (row <= np.maximum(end_y, end_y + down))
    at = row - end_y
    at /= np.where(level, 1.0, down)
    at *= across
    at += end_x
    return at, met, level
