"""Crop geometry: there and back, against the plain way of cutting, outside the image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ltr.data.bbox import xywh_to_cxcywh
from ltr.data.crop import box_to_crop, box_to_image, crop, crop_geometry, cut, jitter

SIDE = st.floats(2, 900)
BOX = st.tuples(st.floats(-500, 2000), st.floats(-500, 2000), SIDE, SIDE).map(np.array)
PAD = (120.7, 90.2, 60.0)


@given(BOX, BOX, st.sampled_from([(2.0, 128), (4.0, 256), (4.0, 255)]))
def test_boxes_there_and_back(box, about, shape):
    search_factor, size = shape
    factor = crop_geometry(about, search_factor, size).factor
    back = box_to_image(box_to_crop(box, about, factor, size), about, factor, size)
    np.testing.assert_allclose(back, box, atol=1e-6)
    batch = [torch.from_numpy(np.stack([array] * 3)) for array in (box, about)]
    in_crop = box_to_crop(*batch, torch.full((3,), float(factor), dtype=torch.float64), size)
    np.testing.assert_allclose(in_crop[1], box_to_crop(box, about, factor, size))


@given(st.lists(BOX, min_size=1, max_size=5))
def test_many_boxes_at_once_and_each_covered(boxes):
    many = crop_geometry(np.stack(boxes), 4.0, 256)
    for number, box in enumerate(boxes):
        one = crop_geometry(box, 4.0, 256)
        assert [field[number] for field in many] == list(one)
        middle = np.array([one.left, one.top]) + one.side / 2
        assert np.abs(middle - xywh_to_cxcywh(box)[:2]).max() <= 1
        assert one.side >= box[2:].max()


@pytest.fixture(scope="module")
def frame(shared):
    path = sorted(shared("sequences", "LaSOT").glob("*/*/img/*.jpg"))[0]
    return cv2.imread(str(path))[..., ::-1].copy()


@given(
    box=st.tuples(st.floats(-300, 600), st.floats(-300, 600), st.floats(3, 200), st.floats(3, 200)),
    shape=st.sampled_from([(2.0, 64), (4.0, 128)]),
)
def test_same_pixels_as_padding_the_whole_frame(frame, box, shape):
    search_factor, size = shape
    pixels, geometry = crop(frame, np.array(box), search_factor, size, PAD)
    margin = 3000
    colour = [int(level) for level in PAD]
    padded = cv2.copyMakeBorder(frame, *[margin] * 4, cv2.BORDER_CONSTANT, value=colour)
    top, left, side = geometry.top + margin, geometry.left + margin, geometry.side
    expected = cv2.resize(padded[top : top + side, left : left + side], (size, size))
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize("reduced", [2, 4, 8])
def test_a_reduced_frame_gives_the_same_place(reduced):
    y, x = np.mgrid[:800, :800]
    light = 250 * np.exp(-((x - 388) ** 2 + (y - 348) ** 2) / (2 * 70**2))
    frame = np.repeat(light[..., None], 3, -1).astype(np.float32)
    small = cv2.resize(frame, None, fx=1 / reduced, fy=1 / reduced, interpolation=cv2.INTER_AREA)
    geometry = crop_geometry(np.array([301.3, 280.8, 170.0, 140.0]), 4.0, 64)
    whole = cut(frame.astype(np.uint8), geometry, 64, (0, 0, 0))
    part = cut(small.astype(np.uint8), geometry, 64, (0, 0, 0), reduced=reduced)
    np.testing.assert_allclose(_centroid(part), _centroid(whole), atol=0.1)


def _centroid(image):
    """Where the light of an image lies on average, x and y."""
    light = image[..., 0].astype(np.float64)
    return [np.average(np.arange(len(light)), weights=light.sum(axis)) for axis in (0, 1)]


def test_a_huge_crop_costs_no_huge_image(frame):
    pixels, geometry = crop(frame, np.array([0.0, 0.0, 1e5, 1e5]), 4.0, 64, PAD)
    assert geometry.side == 400_000
    assert (pixels[0, 0] == [120, 90, 60]).all() and pixels.shape == (64, 64, 3)


@pytest.mark.parametrize("box", [[0, 0, 0, 5], [0, 0, 5, -1], [np.nan, 0, 5, 5], [0, 0, np.inf, 5]])
def test_a_box_without_area_is_refused(box):
    with pytest.raises(ValueError, match="no crop about box"):
        crop_geometry(np.array(box, np.float64), 4.0, 256)


@given(BOX, st.floats(-3, 3), st.floats(0, 1))
def test_jitter_moves_and_scales(box, normal, uniform):
    same = jitter(box, 0.0, 0.0, np.full(2, normal), np.full(2, uniform))
    np.testing.assert_allclose(same, box, atol=1e-9)
    moved = jitter(box, 3.0, 0.25, np.full(2, normal), np.full(2, uniform))
    np.testing.assert_allclose(moved[2:] / box[2:], np.exp(0.25 * normal))
    shift = xywh_to_cxcywh(moved)[:2] - xywh_to_cxcywh(box)[:2]
    np.testing.assert_allclose(shift, 3.0 * moved[2:].mean() * (uniform - 0.5), atol=1e-6)
