"""Overlaps of regions: agreement with ``expected/regions.json``, and with rasters drawn pixel by pixel."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pysot_toolkit.evaluation.protocol import Regions
from pysot_toolkit.evaluation.regions import (
    FARTHEST,
    OfficialRaster,
    VotRaster,
    exact_overlaps,
    official_overlaps,
    regions_of,
    vot_overlaps,
)
from tests.metrics.reference import EXACT, expected, numbers_of

pytestmark = pytest.mark.metrics

Rows = Sequence[Sequence[float]]


def regions(rows: Rows) -> Regions:
    """Rows of any length; a row of one number or none is no region."""
    values = np.full((len(rows), max(map(len, rows))), np.nan)
    for row, numbers in zip(values, rows):
        row[: len(numbers)] = numbers
    return Regions(values, np.array([len(row) if len(row) > 1 else 0 for row in rows]))


# The given pairs


def _size(bounds: list[float] | None) -> list[float] | None:
    """The image of the two definitions that only take (width, height)."""
    return bounds if bounds and len(bounds) == 2 else None


@pytest.mark.parametrize(
    ("key", "overlaps", "tolerance"),
    [
        ("vot_overlap", vot_overlaps, 0.0),
        ("official_vot", lambda a, b, bounds: official_overlaps(a, b, _size(bounds)), EXACT),
        ("exact_polygon_iou", lambda a, b, bounds: exact_overlaps(a, b, _size(bounds)), 1e-9),
    ],
)
def test_given_pairs(shared, key: str, overlaps: Callable[..., np.ndarray], tolerance: float):
    shared("metrics", "expected", "regions.json")
    groups: dict[str, list[dict[str, Any]]] = {}
    for pair in expected("regions")["pairs"]:
        if pair[key] is not None:  # the reference program had no answer
            groups.setdefault(str(pair["bounds"]), []).append(pair)
    wrong, seen = [], 0
    for group in groups.values():
        sides = [regions([numbers_of(pair[side]) for pair in group]) for side in ("a", "b")]
        want = numbers_of([pair[key] for pair in group])
        for first, second in (sides, sides[::-1]):
            got = overlaps(first, second, group[0]["bounds"])
            same = (np.abs(got - want) <= tolerance) | (np.isnan(got) & np.isnan(want))
            wrong += [(group[k], got[k]) for k in np.flatnonzero(~same)]
            seen += len(group)
    assert not wrong
    assert seen > 2 * len(expected("regions")["pairs"]) * 0.8


def test_given_trajectories(shared):
    shared("metrics", "expected", "regions.json")
    table = expected("regions")
    assert table["trajectories"]
    for trajectory in table["trajectories"]:
        pairs = [table["pairs"][index] for index in trajectory["pair_indices"]]
        first, second = (regions([numbers_of(pair[side]) for pair in pairs]) for side in ("a", "b"))
        got = vot_overlaps(first, second, trajectory["bounds"])
        np.testing.assert_array_equal(got, numbers_of(trajectory["vot_overlap_traj"]))


# The definitions, written as slowly and plainly as possible


def drawable(row: Sequence[float]) -> bool:
    return len(row) > 1 and all(abs(number) < FARTHEST for number in row)


def plain_marks(corners: list[tuple[float, float]], row: int, level: bool) -> list[int]:
    marks = []
    for k, (x, y) in enumerate(corners):
        last_x, last_y = corners[k - 1]
        if min(y, last_y) <= row <= max(y, last_y):
            if y != last_y:
                marks.append(int(x + (row - y) / (last_y - y) * (last_x - x)))
            elif level:
                marks.append(int(x))
    return sorted(marks)


def plain_mask(corners: list[tuple[float, float]], width: int, height: int, official: bool) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    for row in range(height):
        marks = plain_marks(corners, row, official)
        k = 0
        while k < len(marks) - 1:
            if marks[k] == marks[k + 1] and not (official and k == len(marks) - 2):
                k += 1
                continue
            for column in range(max(marks[k], 0), min(marks[k + 1], width - 1) + 1):
                mask[row, column] = True
            k += 2
    return mask


def plain_vot(a: Sequence[float], b: Sequence[float], bounds: Sequence[float] | None) -> float:
    if len(a) < 2 or len(b) < 2:
        return math.nan
    if not (drawable(a) and drawable(b)):
        return 0.0
    top, bottom, left, right = (-math.inf, math.inf, -math.inf, math.inf)
    if bounds is not None:
        top, bottom, left, right = bounds if len(bounds) == 4 else (0, bounds[1], 0, bounds[0])
    shapes, boxes = [], []
    for row in (a, b):
        if len(row) == 4:
            x, y, w, h = row
            row = (x, y, x + w, y, x + w, y + h, x, y + h)
        points = np.array(row, np.float32).reshape(-1, 2)
        low, high = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0))
        shapes.append(points)
        boxes.append([max(low[0], left), max(low[1], top), min(high[0], right), min(high[1], bottom)])
    (l1, t1, r1, b1), (l2, t2, r2, b2) = boxes
    origin = np.array([min(l1, l2), min(t1, t2)], np.float32)
    width, height = int(max(r1, r2) - origin[0]) + 1, int(max(b1, b2) - origin[1]) + 1
    first, second = (r1 - l1) * (b1 - t1), (r2 - l2) * (b2 - t2)
    common = (min(r1, r2) - max(l1, l2)) * (min(b1, b2) - max(t1, t2))
    with np.errstate(all="ignore"):
        ratios = np.float64(first) / second, np.float64(second) / first
        if min(ratios) < 1e-10 or width < 1 or height < 1:
            return 0.0
        if np.float64(common) / (first + second - common) <= 0:
            return 0.0
    masks = []
    for points in shapes:
        moved = (points - origin).astype(np.float64)
        rounded = np.sign(moved) * np.floor(np.abs(moved) + 0.5)
        masks.append(plain_mask([(x, y) for x, y in rounded.tolist()], width, height, official=False))
    inner, union = (masks[0] & masks[1]).sum(), (masks[0] | masks[1]).sum()
    return float(np.float32(inner) / np.float32(union)) if union else math.nan


def plain_official(a: Sequence[float], b: Sequence[float], size: Sequence[int] | None) -> float:
    with np.errstate(over="ignore"):
        rounded = [np.round(np.array(row, np.float32)) for row in (a, b)]
    boxes = []
    for row in rounded:
        if not drawable(row):
            boxes.append((0, 0, 0, 0))
        elif len(row) == 4:
            x, y, w, h = row.astype(int).tolist()
            boxes.append((x, y, x + w - 1, y + h - 1))
        else:
            x, y = row[0::2].astype(int), row[1::2].astype(int)
            boxes.append((x.min(), y.min(), x.max(), y.max()))
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[2] for box in boxes), max(box[3] for box in boxes)
    if left >= right or top >= bottom:
        return 1.0
    if size is not None:
        left, top, right, bottom = (
            max(left, 0),
            max(top, 0),
            min(right, size[0] - 1),
            min(bottom, size[1] - 1),
        )
    if left >= right or top >= bottom:
        return 0.0
    width, height = right - left + 1, bottom - top + 1
    masks = []
    for row, (x1, y1, x2, y2) in zip(rounded, boxes):
        mask = np.zeros((height, width), bool)
        if drawable(row):
            if len(row) > 4:
                points = (row.reshape(-1, 2) - [left, top]).tolist()
                mask = plain_mask([(x, y) for x, y in points], width, height, official=True)
            elif x1 <= right and x2 >= left and y1 <= bottom and y2 >= top:
                rows = slice(max(0, y1 - top), min(bottom, y2 - top) + 1)
                mask[rows, max(0, x1 - left) : min(right, x2 - left) + 1] = True
        masks.append(mask)
    union = (masks[0] | masks[1]).sum()
    return float((masks[0] & masks[1]).sum() / union) if union else 0.0


# Random shapes against them

quarters = st.integers(-60, 140).map(lambda n: n / 4)
sides = st.integers(-8, 90).map(lambda n: n / 4)
rectangles = st.tuples(quarters, quarters, sides, sides)
polygons = st.integers(3, 7).flatmap(lambda n: st.tuples(*[quarters] * (2 * n)))
fine = st.floats(-15, 35, width=32)


@st.composite
def rotated(draw: st.DrawFn) -> tuple[float, ...]:
    """A rectangle turned about its centre, as the annotation of VOT has them."""
    x, y, w, h = draw(fine), draw(fine), draw(st.floats(1, 15)), draw(st.floats(1, 15))
    angle = draw(st.floats(0, 2 * math.pi))
    across, down = np.array([-w, w, w, -w]), np.array([-h, -h, h, h])
    turned = np.exp(1j * angle) * (across + 1j * down) + complex(x, y)
    return tuple(np.stack([turned.real, turned.imag], axis=1).round(4).ravel().tolist())


@st.composite
def stars(draw: st.DrawFn) -> tuple[float, ...]:
    """Corners at any distance around a centre: concave, never crossing."""
    x, y, points = draw(fine), draw(fine), draw(st.integers(4, 8))
    angles = 2 * math.pi * np.arange(points) / points
    corners = complex(x, y) + np.exp(1j * angles) * draw(
        st.lists(st.floats(0, 18), min_size=points, max_size=points)
    )
    return tuple(np.stack([corners.real, corners.imag], axis=1).ravel().tolist())


@st.composite
def degenerate(draw: st.DrawFn) -> tuple[float, ...]:
    """Points, lines and repeated corners."""
    corner = st.tuples(quarters, quarters)
    two = draw(st.tuples(corner, corner))
    chosen = draw(st.lists(st.sampled_from(two), min_size=3, max_size=5))
    return tuple(number for point in chosen for number in point)


odd = st.sampled_from([(), (math.nan,) * 4, (5.0, 5.0, math.inf, 3.0), (math.nan,) * 8, (1e200,) * 6])
shapes = st.one_of(rectangles, rotated(), polygons, stars(), degenerate(), odd)
images = st.sampled_from([None, (30, 25), (29, 24)])
limits = st.one_of(
    images, st.sampled_from([(2, 25, 3, 30), (-4, 20, -7, 30), (1.5, 25, 0.5, 29.25), (9, 3, 9, 4)])
)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(shapes, shapes), min_size=1, max_size=6), limits)
def test_vot_raster_is_its_definition(pairs: list[tuple[Any, Any]], bounds: Any):
    a, b = (regions([pair[side] for pair in pairs]) for side in (0, 1))
    want = [plain_vot(first, second, bounds) for first, second in pairs]
    np.testing.assert_array_equal(vot_overlaps(a, b, bounds), want)
    np.testing.assert_array_equal(vot_overlaps(b, a, bounds), want)


@settings(deadline=None, max_examples=150)
@example([((9.0, 8, 5, 8, 2, 8, 5, 1), (1.0, 1, 8, 8))], None)  # convex, with a corner within a level side
@given(st.lists(st.tuples(shapes, shapes), min_size=1, max_size=6), images)
def test_official_raster_is_its_definition(pairs: list[tuple[Any, Any]], size: Any):
    a, b = (regions([pair[side] for pair in pairs]) for side in (0, 1))
    want = [plain_official(first, second, size) for first, second in pairs]
    np.testing.assert_allclose(official_overlaps(a, b, size), want, rtol=0, atol=EXACT)
    np.testing.assert_allclose(official_overlaps(b, a, size), want, rtol=0, atol=EXACT)


def quadrilaterals(random: np.random.Generator, number: int, extent: float) -> np.ndarray:
    """Convex ones with whole corners: turned rectangles, rounded."""
    centre = random.uniform(0.6 * extent, 1.4 * extent, number) * (1 + 1j)
    reach, angle = random.uniform(0.1, 0.5, (2, number)) * extent, random.uniform(0, np.pi, number)
    corners = np.array([-1 - 1j, 1 - 1j, 1 + 1j, -1 + 1j])
    points = centre[:, None] + np.exp(1j * angle)[:, None] * (
        corners.real * reach[0][:, None] + 1j * corners.imag * reach[1][:, None]
    )
    return np.stack([points.real, points.imag], axis=2).round().reshape(number, 8)


@pytest.mark.parametrize("shift", [0, -12, -60])
def test_truth_and_box_on_the_brink_of_rounding(shift: int):
    """A quadrilateral and a box over it, with coordinates at one half and as close as 32 bits come to it."""
    random = np.random.default_rng(7)
    truth = quadrilaterals(random, 120, 15)
    boxes = np.concatenate(
        [truth.reshape(-1, 4, 2).min(axis=1), random.uniform(4, 15, (120, 2)).round()], axis=1
    )
    boxes[:, :2] += random.integers(-6, 3, (120, 2))
    sides = []
    for rows, corners in ((truth, 8), (boxes, 2)):
        rows[:, :corners] += shift + random.choice([0, 0.5], (120, corners))
        towards = random.choice([-np.inf, np.nan, np.inf], rows.shape)
        brink = np.nextafter(rows.astype(np.float32), towards.astype(np.float32))
        sides.append(np.where(np.isnan(towards), rows, brink).astype(np.float64))
    for bounds in (None, (14, 11), (-5, 16, -7.5, 16), (2.5, 16, 3.5, 12.5)):
        want = [plain_vot(*pair, bounds) for pair in zip(*sides)]
        np.testing.assert_array_equal(vot_overlaps(*map(regions_of, sides), bounds), want)
        if bounds is None or len(bounds) == 2:
            want = [plain_official(*pair, bounds) for pair in zip(*sides)]
            np.testing.assert_allclose(
                official_overlaps(*map(regions_of, sides), bounds), want, rtol=0, atol=EXACT
            )
    want = [plain_official(box, other, None) for box, other in zip(sides[1], sides[1][::-1])]
    got = official_overlaps(regions_of(sides[1]), regions_of(sides[1][::-1]))
    np.testing.assert_allclose(got, want, rtol=0, atol=EXACT)


def moved(row: Sequence[float], x: float, y: float) -> list[float]:
    step = (x, y, 0, 0) if len(row) == 4 else (x, y) * (len(row) // 2)
    return [number + offset for number, offset in zip(row, step)]


@pytest.mark.parametrize("raster", [VotRaster, OfficialRaster])
@given(
    st.lists(st.tuples(rectangles, st.one_of(rectangles, polygons, degenerate())), min_size=1),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_moving_both_by_whole_pixels_changes_nothing(raster: Any, pairs: Any, x: int, y: int):
    """Where no coordinate is negative; by even numbers, since the official raster rounds half to even."""
    near, far = (
        [regions([moved(pair[side], *offset) for pair in pairs]) for side in (0, 1)]
        for offset in ((20, 20), (20 + 2 * x, 20 + 2 * y))
    )
    np.testing.assert_array_equal(raster(near[0]).overlaps(near[1]), raster(far[0]).overlaps(far[1]))


@pytest.mark.parametrize("raster", [VotRaster, OfficialRaster])
def test_kept_rows_count_what_the_window_of_each_pair_would(raster: Any):
    """Edges meet rows at whole numbers, where the last bit of a sum depends on where the window starts."""
    random = np.random.default_rng(5)
    for extent in (30, 90, 300):
        truth = quadrilaterals(random, 1500, extent)
        low = truth.reshape(-1, 4, 2).min(axis=1) + random.uniform(-0.5, 0.1, (len(truth), 2)) * extent
        boxes = np.concatenate([low, random.uniform(0.2, 0.8, low.shape) * extent], axis=1)
        a, b = regions_of(truth), regions_of(boxes)
        kept = raster(a, (2 * extent, 2 * extent)).overlaps(b)
        assert (kept > 0).mean() > 0.5
        np.testing.assert_array_equal(kept, raster(b, (2 * extent, 2 * extent)).overlaps(a))


@pytest.mark.parametrize("raster", [VotRaster, OfficialRaster])
@given(
    st.lists(shapes, min_size=1, max_size=8), st.lists(st.lists(shapes, max_size=9), min_size=1, max_size=4)
)
def test_many_predictions_at_once_are_each_compared(raster: Any, truth: Any, predictions: Any):
    a = regions(truth)
    several = [regions(rows) if rows else regions_of(np.empty((0, 4))) for rows in predictions]
    for prediction, got in zip(several, raster(a, (30, 25)).overlaps_many(several), strict=True):
        count = min(len(a.length), len(prediction.length))
        want = [
            raster(Regions(a.values[[k]], a.length[[k]]), (30, 25)).overlaps(
                Regions(prediction.values[[k]], prediction.length[[k]])
            )[0]
            for k in range(count)
        ]
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("raster", [VotRaster, OfficialRaster])
def test_memory_does_not_grow_with_the_raster(raster: Any):
    """Windows of up to 10^10 px; drawing them would take gigabytes."""
    reach = 1e5 * np.linspace(0.1, 1, 20)[:, None]
    star = regions_of(reach * [[0, 0, 0.5, 0.2, 1, 0, 0.8, 0.5, 1, 1, 0.5, 0.8, 0, 1, 0.2, 0.5]])
    box = regions_of(reach * [[0.5, 0.5, 0.5, 0.5]])
    tracemalloc.start()
    got = raster(star).overlaps(box)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6
    np.testing.assert_allclose(got, exact_overlaps(star, box), rtol=1e-3)


# Exact overlaps


@given(st.lists(st.tuples(rectangles, rectangles), min_size=1), st.sampled_from([None, (30, 25)]))
def test_exact_overlap_of_rectangles_is_the_formula(pairs: Any, size: Any):
    a, b = (np.array([pair[side] for pair in pairs]) for side in (0, 1))
    (first, second) = (np.stack([r[:, :2], r[:, :2] + r[:, 2:]]) for r in (a, b))
    low, high = (np.stack([np.minimum(*s), np.maximum(*s)]) for s in (first, second))
    limits = (0, np.array(size)) if size else (-np.inf, np.inf)
    low, high = np.clip(low, *limits), np.clip(high, *limits)
    area = [np.prod(side[1] - side[0], axis=1) for side in (low, high)]
    inner = np.prod(np.maximum(np.minimum(low[1], high[1]) - np.maximum(low[0], high[0]), 0), axis=1)
    union = area[0] + area[1] - inner
    want = inner / np.where(union > 0, union, 1)
    np.testing.assert_allclose(exact_overlaps(regions_of(a), regions_of(b), size), want, atol=EXACT)


def test_exact_overlap_of_polygons_that_cross_themselves_and_of_nothing():
    bow_tie, square = (0.0, 0, 20, 20, 20, 0, 0, 20), (0.0, 0, 20, 20)
    cases = [
        (bow_tie, square, 0.5),
        (bow_tie, (0.0, 0, 20, 10), 1 / 3),  # 100 of its 200 px, and 100 px beside it
        (square, (5.0, 5, 0, 0), 0.0),
        ((5.0, 5, 0, 0), (5.0, 5, 0, 0), 0.0),
        ((0.0, 0, 10, 10, 20, 20), square, 0.0),
        (square, (), math.nan),
        (square, (0.0, math.nan, 1, 1), math.nan),
    ]
    a, b = (regions([case[side] for case in cases]) for side in (0, 1))
    want = [case[2] for case in cases]
    np.testing.assert_allclose(exact_overlaps(a, b), want, atol=EXACT)
    np.testing.assert_allclose(exact_overlaps(b, a), want, atol=EXACT)
