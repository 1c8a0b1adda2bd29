"""Crops, proposals, labels and transforms of the DiMP family, against definitions and pixels."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from config.errors import UserError
from ltr.data import transforms
from ltr.data.adaptive_crop import (
    MODES,
    boxes_to_crop,
    boxes_to_image,
    crop_rectangles,
    cut_rectangle,
    decode_frames,
)
from ltr.data.image_loader import open_frame, read_image
from ltr.data.labels import GaussianLabel, box_distances, boxes_of_masks, local_maxima, sampling_region
from ltr.data.proposals import MixtureBoxes, PerturbedBoxes, jitter, mixture_density, overlaps, to_relative

numbers = st.floats(-300, 500)
sides = st.floats(0.5, 400)
boxes = st.tuples(numbers, numbers, sides, sides).map(np.array)
image_sizes = st.tuples(st.integers(20, 300), st.integers(20, 300))
RNG = np.random.default_rng


# Crops


@given(
    boxes,
    image_sizes,
    st.sampled_from(MODES),
    st.sampled_from([1.5, math.inf]),
    st.sampled_from([(32, 32), (56, 40)]),
)
def test_rectangles_keep_the_rules_of_their_mode(box, image, mode, change, output):
    x, y, w, h = crop_rectangles(box, image, 5.0, output, mode, change).tolist()
    whole = crop_rectangles(box, image, 5.0, output, "centred")
    area = 25 * box[2] * box[3]
    assert (whole[2] - 1) * (whole[3] - 1) <= area * (1 + 1e-9) and whole[2] * whole[3] >= area * (1 - 1e-9)
    if mode == "centred":
        assert (
            abs(x + w / 2 - box[0] - box[2] / 2) < 0.5 + 1e-9
            and abs(y + h / 2 - box[1] - box[3] / 2) < 0.5 + 1e-9
        )
        return
    for corner, side, extent in ((x, w, image[0]), (y, h, image[1])):
        if side <= extent:
            assert 0 <= corner <= extent - side
        else:  # the image in the middle
            assert abs((corner + side) - extent - -corner) <= 1 and corner <= 0
    excess = whole[2] / image[0], whole[3] / image[1]
    needed = {"replicate": 1.0, "inside": max(excess), "inside_major": min(excess)}[mode]
    shrunk = min(max(1.0, needed), change if mode != "replicate" else 1.0)
    assert abs(w - whole[2] / shrunk) <= 1 and abs(h - whole[3] / shrunk) <= 1
    if mode == "inside" and change == math.inf:
        assert w <= image[0] and h <= image[1]
    if mode == "inside_major" and change == math.inf:
        assert w <= image[0] or h <= image[1]


def test_many_rectangles_at_once_are_those_of_each():
    rng = RNG(0)
    many = np.concatenate([rng.uniform(-50, 200, (40, 2)), rng.uniform(1, 150, (40, 2))], 1)
    extents = rng.integers(20, 300, (40, 2))
    for mode in MODES:
        together = crop_rectangles(many, extents, 4.0, (48, 32), mode, 1.5)
        alone = [crop_rectangles(b, tuple(e), 4.0, (48, 32), mode, 1.5) for b, e in zip(many, extents)]
        assert np.array_equal(together, alone)


def test_wrong_crops_are_named():
    with pytest.raises(UserError, match="crop mode 'insid'.*inside"):
        crop_rectangles(np.array([1, 2, 3, 4]), (50, 50), 2.0, (8, 8), "insid")
    for box in ([1, 2, 0, 4], [1, np.nan, 3, 4]):
        with pytest.raises(ValueError, match="no crop about box"):
            crop_rectangles(np.array(box), (50, 50), 2.0, (8, 8))


@pytest.mark.parametrize("shift", [(-7, -5), (20, 12), (0, 0), (-100, 4), (90, -80), (200, 200)])
def test_pixels_are_those_of_the_image_and_its_border(shift):
    """Every row and column is used, the last ones too, and a crop wholly outside is made of the border."""
    image = RNG(1).integers(0, 255, (36, 50, 3), np.uint8)
    rectangle = np.array([*shift, 44, 33])
    rows = np.clip(np.arange(33) + shift[1], 0, 35)
    columns = np.clip(np.arange(44) + shift[0], 0, 49)
    expected = image[rows][:, columns]
    assert np.array_equal(cut_rectangle(image, rectangle, (44, 33)), expected)
    smaller = cut_rectangle(image, rectangle, (22, 11))
    assert np.abs(smaller.astype(int) - cv2.resize(expected, (22, 11))).max() <= 1
    mask = (image[:, :, 0] > 100).astype(np.float32)
    outside = (np.arange(33) + shift[1] != rows)[:, None] | (np.arange(44) + shift[0] != columns)
    cut = cut_rectangle(mask, rectangle, (44, 33), cv2.BORDER_CONSTANT, cv2.INTER_NEAREST)
    assert np.array_equal(cut, np.where(outside, 0, mask[rows][:, columns]))


def test_huge_crops_are_sampled_without_being_built():
    image = np.full((40, 60, 3), 50, np.uint8)
    image[:, 30:] = 200
    pixels = cut_rectangle(image, np.array([-200_000, -200_000, 400_060, 400_040]), (64, 64))
    assert (pixels[:, :31] == 50).all() and (pixels[:, 33:] == 200).all()


@pytest.fixture(scope="module")
def frame_file(tmp_path_factory):
    """A frame of 480 x 360 px, smooth, so that a pixel more or less of averaging changes little."""
    path = tmp_path_factory.mktemp("frames") / "frame.jpg"
    noise = RNG(2).integers(0, 255, (6, 8, 3), np.uint8)
    image = cv2.resize(noise, (480, 360), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return path


@given(
    st.tuples(st.floats(-60, 500), st.floats(-60, 400), st.floats(3, 200), st.floats(3, 200)).map(np.array),
    st.sampled_from(MODES),
    st.sampled_from([(16, 16), (32, 32), (64, 48)]),
)
def test_crops_of_what_was_decoded_show_what_those_of_the_whole_do(frame_file, box, mode, size):
    whole, frame = read_image(frame_file), open_frame(frame_file)
    rectangle = crop_rectangles(box, (frame.width, frame.height), 4.0, size, mode)
    (region,) = decode_frames([frame], rectangle[None], size)
    pixels = cut_rectangle(region.pixels, rectangle, size, origin=region.origin, reduced=region.reduced)
    expected = cut_rectangle(whole, rectangle, size)
    if region.reduced == 1:
        assert np.array_equal(pixels, expected)
        return
    assert min(rectangle[2:] / size) >= region.reduced
    x, y, w, h = rectangle.tolist()
    columns = np.clip(np.arange(x, x + w), 0, frame.width - 1)
    rows = np.clip(np.arange(y, y + h), 0, frame.height - 1)
    area = cv2.resize(whole[rows][:, columns], size, interpolation=cv2.INTER_AREA)
    # Not shifted: closer to the crop itself than to any neighbour's.
    gap = np.abs(pixels.astype(int) - area).mean()
    assert gap < 8
    if gap > 2:
        assert gap < np.abs(pixels[:, 1:].astype(int) - area[:, :-1]).mean()
        assert gap < np.abs(pixels[1:].astype(int) - area[:-1]).mean()


def test_a_frame_is_decoded_once_for_all_its_crops_and_whole_for_its_mean(frame_file, monkeypatch):
    first, second = open_frame(frame_file), open_frame(frame_file)
    rectangles = np.array([[10, 10, 200, 200], [10, 10, 128, 128], [10, 10, 100, 300], [10, 10, 100, 40]])
    small, also, large, low = decode_frames([first, first, second, second], rectangles, (64, 32))
    assert small is also and large is low  # the largest reduction that suits all of them
    assert (small.reduced, large.reduced, small.whole, large.whole) == (2, 1, False, False)
    assert decode_frames([first, second], rectangles[:2], (64, 64), whole=second)[1].whole


@given(boxes, boxes, st.sampled_from(["inside", "replicate"]))
def test_boxes_go_there_and_back(box, about, mode):
    rectangle, output = crop_rectangles(about, (320, 240), 3.0, (56, 40), mode), np.array([56, 40])
    inside = boxes_to_crop(box, rectangle, output)
    assert np.allclose(boxes_to_image(inside, rectangle, output), box)
    as_torch = boxes_to_crop(torch.tensor(box), torch.from_numpy(rectangle), torch.from_numpy(output))
    assert np.allclose(as_torch.numpy(), inside)
    assert np.allclose(boxes_to_crop(rectangle, rectangle, output), [0, 0, 56, 40])


# Boxes around boxes


def test_jitter_has_its_spread():
    box = np.array([100.0, 50.0, 80.0, 20.0])
    moved = jitter(np.tile(box, (20_000, 1)), 3.0, 0.25, RNG(2))
    growth = np.log(moved[:, 2:] / box[2:])
    assert np.allclose(growth.mean(0), 0, atol=0.01) and np.allclose(growth.std(0), 0.25, atol=0.01)
    offset = moved[:, :2] + moved[:, 2:] / 2 - (box[:2] + box[2:] / 2)
    relative = offset / np.sqrt(
        moved[:, 2:].prod(1, keepdims=True)
    )  # the same in x and y, whatever the shape
    assert np.abs(relative).max() <= 1.5 and np.allclose(np.abs(relative).mean(0), 0.75, atol=0.02)
    assert np.allclose(jitter(box, 0.0, 0.0, RNG(0)), box)


@given(st.integers(0, 2**32), st.sampled_from([0.1, 0.5, 0.8]))
def test_perturbed_boxes_overlap_enough(seed, least):
    rng = RNG(seed)
    truth = np.concatenate([rng.uniform(0, 200, (3, 2)), rng.uniform(4, 90, (3, 2))], 1)
    make = PerturbedBoxes(count=16, min_iou=least, sigmas=(0.01, 0.1, 0.5))
    found = make(truth, RNG(seed))
    assert found["proposals"].shape == (3, 16, 4) and found["proposal_iou"].shape == (3, 16)
    iou = overlaps(found["proposals"], truth[:, None])
    assert np.allclose((found["proposal_iou"] + 1) / 2, iou, atol=1e-4) and (iou > least - 1e-4).all()
    again = make(truth, RNG(seed))
    assert all(np.array_equal(found[name], again[name]) for name in found)


def test_perturbation_grows_with_sigma():
    truth = np.array([[50.0, 50.0, 40.0, 90.0]])
    medians = [
        np.median(PerturbedBoxes(count=500, min_iou=0.0, sigmas=(sigma,))(truth, RNG(0))["proposal_iou"])
        for sigma in (0.01, 0.05, 0.2, 0.5)
    ]
    assert medians == sorted(medians, reverse=True) and medians[0] > 0.9 and medians[-1] < 0.2


def test_densities_belong_to_the_proposals():
    """The mean of g / q over samples of q is the integral of g, 1; also for another mixture over the same samples."""
    truth = np.array([[10.0, 20.0, 30.0, 60.0], [0.0, 0.0, 7.0, 5.0]])
    make = MixtureBoxes(count=50_000, sigmas=((0.05, 0.05), (0.5, 0.5)), gt_sigma=(0.1, 0.2))
    found = make(truth, RNG(4))
    ratio = found["gt_density"] / found["proposal_density"]
    assert np.allclose(ratio.mean(1), 1, atol=0.1)
    offset = to_relative(found["proposals"], truth[:, None, 2:]) - to_relative(truth, truth[:, 2:])[:, None]
    assert np.allclose(mixture_density(offset, make.sigmas), found["proposal_density"], rtol=1e-3)
    within = (np.abs(offset) < 0.05).all(-1).mean()  # the narrow half of them
    assert abs(within - 0.5 * math.erf(1 / math.sqrt(2)) ** 4) < 0.01
    assert np.allclose(found["proposal_iou"], 2 * overlaps(found["proposals"], truth[:, None]) - 1, atol=1e-4)


def test_the_box_itself_comes_first_for_maximum_likelihood():
    truth = np.array([[10.0, 20.0, 30.0, 60.0]])
    found = MixtureBoxes(count=5, sigmas=((0.1, 0.1),), mean_box=True)(truth, RNG(0))
    assert found["proposals"].shape == (1, 6, 4) and np.allclose(found["proposals"][0, 0], truth)
    assert found["proposal_density"][0, 0] == -1 and found["gt_density"][0].tolist() == [1, 0, 0, 0, 0, 0]
    assert found["proposal_iou"][0, 0] == 1 and (found["proposal_density"][0, 1:] > 0).all()


# Labels


@given(st.floats(30, 250), st.floats(30, 250), st.sampled_from([3, 4]))
def test_labels_peak_at_the_centre_of_the_box(x, y, kernel):
    """The cell of a map is the place where a filter of that side lies centred on the target."""
    label = GaussianLabel(sigma=0.05, kernel=kernel, features=(18, 18), image=(288, 288))
    box = torch.tensor([x - 20, y - 10, 40.0, 20.0], dtype=torch.float64)
    found = label(box[None, None])[0, 0]
    assert found.shape == ((19, 19) if kernel == 4 else (18, 18))
    place = torch.arange(len(found)).double() * 16 + (0 if kernel == 4 else 8)  # px of the image at each cell
    assert abs(place[found.amax(0).argmax()] - x) <= 8.001 and abs(place[found.amax(1).argmax()] - y) <= 8.001
    expected = torch.exp(-0.5 * (((place - x)[None, :] ** 2 + (place - y)[:, None] ** 2) / (16 * 0.9) ** 2))
    assert torch.allclose(found, expected)


def test_densities_sum_to_one_and_become_uniform_without_a_target():
    common = {"sigma": 0.05, "kernel": 4, "features": (22, 22), "image": (352, 352), "density": True}
    bbox = torch.tensor([[150.0, 160, 40, 30], [9e7, 9e7, 40, 30]])
    inside, outside = GaussianLabel(**common)(bbox).sum((-2, -1))
    assert abs(inside - 1) < 1e-3 and outside == 0
    normalised = GaussianLabel(**common, normalise=True)(bbox)
    assert torch.allclose(normalised.sum((-2, -1)), torch.ones(2)) and (normalised[1] == 1 / 23**2).all()
    biased = GaussianLabel(**common, bias=0.3)(bbox).sum((-2, -1))
    assert torch.allclose(biased, torch.tensor([1.0, 0.3]), atol=1e-3)


def test_distances_give_the_box_back():
    bbox = torch.tensor([[30.0, 50, 60, 100], [0, 0, 192, 144]])
    left, top, right, bottom = box_distances(bbox, (12, 9), 16).unbind(1)
    x, y = torch.arange(12) * 16 + 8, (torch.arange(9) * 16 + 8)[:, None]
    cells = torch.stack([x - left, y - top, left + right, top + bottom], -1)
    assert torch.allclose(cells, bbox[:, None, None].expand_as(cells))
    whole = sampling_region(bbox, (12, 9), 16)[:, 0]
    near = sampling_region(bbox, (12, 9), 16, radius=1.5)[:, 0]
    centre = bbox[:, :2] + bbox[:, 2:] / 2
    close = ((x - centre[:, :1, None]).abs() < 24) & ((y - centre[:, 1:, None]).abs() < 24)
    assert torch.equal(near, whole & close) and whole[1].all() and 0 < near.sum() < whole.sum()


@given(st.integers(0, 2**32))
def test_peaks_and_masks_are_their_definitions(seed):
    scores = torch.from_numpy(RNG(seed).normal(size=(9, 12)))
    peaks, values = local_maxima(scores, 0.5, side=3)
    around = np.pad(scores.numpy(), 1, constant_values=-np.inf)
    expected = {
        (r, c): scores[r, c].item()
        for r in range(9)
        for c in range(12)
        if scores[r, c] > 0.5 and scores[r, c] == around[r : r + 3, c : c + 3].max()
    }
    assert dict(zip(map(tuple, peaks.tolist()), values.tolist())) == expected
    assert values.tolist() == sorted(values.tolist(), reverse=True)
    mask = scores > 1.5
    rows, columns = np.nonzero(mask.numpy())
    found = boxes_of_masks(mask[None])[0].tolist()
    if len(rows):
        assert found == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    else:
        assert found == [0, 0, 0, 0]


# Transforms


def block(box, size=(60, 44), count=1):
    """Images that are white within a box of whole pixels, black elsewhere."""
    x, y, w, h = box
    images = torch.zeros(count, 3, size[1], size[0], dtype=torch.float64)
    images[:, :, y : y + h, x : x + w] = 1
    return images


def test_mirrored_boxes_lie_on_mirrored_targets():
    box, chosen = (7, 5, 20, 11), torch.tensor([True, False])
    images = transforms.mirror_images(block(box, count=2), chosen)
    bbox = transforms.mirror_boxes(torch.tensor([box, box]).float(), 60, chosen)
    assert torch.equal(boxes_of_masks(images[:, 0]), bbox) and bbox[0, 0] == 33 and bbox[1, 0] == 7


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(
    ("degrees", "scale", "shear"), [(0.0, 1.0, 0.0), (90.0, 1.0, 0.0), (0.0, 1.3, 0.0), (0.0, 0.8, 0.1)]
)
def test_warped_boxes_hold_warped_targets(mirror, degrees, scale, shear):
    box, size = (26, 14, 12, 10), (60, 44)
    matrices = transforms.affine_matrices(
        size,
        mirror=torch.tensor([mirror]),
        degrees=torch.tensor([degrees]).double(),
        shear=torch.tensor([[shear, 0.0]]).double(),
        scale=torch.tensor([[scale, scale]]).double(),
        shift=torch.tensor([0.1]).double(),
    )
    bbox = transforms.warp_boxes(torch.tensor([[box]]).double(), matrices, size)[0, 0]
    held = boxes_of_masks(transforms.warp(block(box), matrices)[0, 0] > 0.5)
    assert (held - bbox).abs().max() <= 1.01
    assert torch.equal(
        transforms.warp(block(box), matrices, "nearest").unique(), torch.tensor([0.0, 1.0]).double()
    )


def test_warping_by_nothing_changes_nothing():
    images = torch.from_numpy(RNG(5).random((2, 3, 20, 30)))
    still = torch.eye(3, dtype=torch.float64)[None, :2].expand(2, -1, -1)
    assert torch.allclose(transforms.warp(images, still), images)


def test_blur_is_a_normal_kernel_and_only_where_chosen():
    point = torch.zeros(2, 3, 41, 41, dtype=torch.float64)
    point[:, :, 20, 20] = 1
    blurred = transforms.blur(point, 3.0, torch.tensor([True, False]))
    assert torch.equal(blurred[1], point[1])
    x = torch.arange(41, dtype=torch.float64) - 20
    spread = (blurred[0, 1] * (x[:, None] ** 2)).sum(), (blurred[0, 1] * (x**2)).sum()
    assert abs(blurred[0].sum() - 3) < 1e-9 and all(2.4**2 < s < 3.0**2 for s in spread)  # cut off at 2 sigma
    even = torch.full((1, 3, 9, 9), 0.7, dtype=torch.float64)
    assert torch.allclose(transforms.blur(even, 2.0, torch.tensor([True])), even)  # to the border
