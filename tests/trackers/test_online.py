"""The parts of online trackers: what holds of every patch, memory, score map, view and box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from config.errors import UserError
from ltr.models.bbreg.iou_net import AtomIoUNet
from ltr.models.bbreg.refine import by_autograd
from pysot_toolkit.trackers.atom import upsampled
from pysot_toolkit.trackers.online import augmentation
from pysot_toolkit.trackers.online.localize import Flag, LocalizationRules, hann, localize
from pysot_toolkit.trackers.online.memory import SampleMemory, SampleWeights
from pysot_toolkit.trackers.online.proposal_scorer import ProposalScorer
from pysot_toolkit.trackers.online.refine import Refinement, consensus, starting_boxes
from pysot_toolkit.trackers.online.sample_patch import cut_patch, patch_window, resized, thinned

sides = st.floats(-5, 0) | st.floats(0.5, 150)
seeds = st.integers(0, 2**32 - 1)
places = st.tuples(st.floats(-300, 400), st.floats(-300, 400)).map(np.array)
lengths = st.tuples(st.floats(1, 900), st.floats(1, 900)).map(np.array)
MIDDLE = np.array([9.0, 9.0])
USUAL = LocalizationRules()


def bump(*peaks, size=19):
    rows, columns = np.mgrid[:size, :size]
    return sum(h * np.exp(-((rows - r) ** 2 + (columns - c) ** 2) / 2) for h, r, c in peaks)[None]


def found(scores, rules=USUAL, previous=(0.0, 0.0), window=None):
    return localize(scores, rules, MIDDLE, np.full((1, 2), 3.5), np.array([previous]), window)


# Patches


@given(places, lengths, st.integers(4, 40), st.integers(4, 40), st.integers(8, 64))
def test_a_patch_is_the_image_with_its_border_repeated(centre, size, height, width, output):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    window = patch_window((height, width), centre, size, np.full(2, output))
    limit = thinned((height, width), window.offset, window.step)
    first = np.minimum(window.offset, [height - 1, width - 1])
    small = image[first[0] :: window.step, first[1] :: window.step]
    assert small.shape[:2] == tuple(np.maximum(limit, 1))
    outside = np.maximum(np.maximum(-window.first, window.last - limit), 0).max() + 1
    padded = np.pad(small, ((outside, outside), (outside, outside), (0, 0)), mode="edge")
    (top, left), (bottom, right) = window.first + outside, window.last + outside
    expected = torch.from_numpy(padded[top:bottom, left:right].copy()).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(expected, [output] * 2, mode="bilinear", align_corners=False)
    patch = cut_patch(image, centre, size, np.full(2, output))
    assert torch.allclose(resized(patch), expected, atol=1e-3)
    assert (patch.box_yxyx[2:] - patch.box_yxyx[:2] == (window.last - window.first) * window.step).all()


@given(places, lengths, st.integers(20, 200), st.integers(20, 200))
def test_a_patch_that_shall_lie_inside_does(centre, size, height, width):
    window = patch_window((height, width), centre, size, np.full(2, 16.0), "inside")
    limit = thinned((height, width), window.offset, window.step)
    length = window.last - window.first
    overlap = np.minimum(window.last, limit) - np.maximum(window.first, 0)
    assert (overlap == np.minimum(length, limit)).all()
    assert (length <= limit + 1).all()  # thinning rounds once more


@given(places, lengths, st.integers(20, 200), st.integers(20, 200), st.floats(1, 3))
def test_shrinking_keeps_the_shape_and_its_limit(centre, size, height, width, most):
    plain, shrunk = (
        patch_window((height, width), centre, size, None, border, most)
        for border in ("replicate", "inside_major")
    )
    ratio = (plain.last - plain.first) / (shrunk.last - shrunk.first)
    slack = 3 / (shrunk.last - shrunk.first)  # both are whole px
    assert (ratio >= 1 - slack).all() and (ratio <= most * (1 + slack) + slack).all()


# Memory


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.floats(0.001, 0.5),
    st.sampled_from([0.0, 0.25]),
    st.lists(st.one_of(st.none(), st.floats(0.001, 0.9)), max_size=40),
)
def test_weights_are_shares_and_the_first_frame_keeps_its_own(initial, spare, rate, least, rates):
    weights = SampleWeights(initial + spare, initial, rate, least)
    for step, chosen in enumerate(rates):
        before = weights.values.copy()
        place = weights.admit(chosen)
        # as published, raising the first frame's share to the least one leaves the sum up to 5 % too high
        total = weights.values.sum()
        assert 1 - 1e-5 <= total <= (1.05 if least else 1) + 1e-5 and (weights.values >= 0).all()
        assert weights.values[:initial].sum() >= least - 1e-5
        if step < spare:
            assert place == initial + step  # free places first
        else:
            candidates = before[initial:] if least else before
            assert before[place] == candidates.min() and (place >= initial or not least)
    assert weights.stored == min(initial + len(rates), initial + spare)


def test_the_memory_holds_what_was_put_in_with_its_weight():
    first, boxes = torch.randn(2, 3, 4, 4), torch.randn(2, 4)
    memory = SampleMemory(SampleWeights(4, 2, 0.1, 0.25), first, boxes)
    sample, box = torch.randn(1, 3, 4, 4), torch.randn(4)
    memory.add(sample, box, rate=0.3)
    samples, places, weights = memory.contents()
    assert torch.equal(samples, torch.cat([first, sample])) and torch.equal(places[2], box)
    assert weights[2] / weights[0] == pytest.approx(0.3 * 0.7 / 0.5)
    memory.add(sample, box)
    assert weights[2] / weights[0] == pytest.approx(0.3 * 0.7 / 0.5)  # what was handed out stays
    assert len(memory.contents()[0]) == 4


def test_a_memory_too_small_for_the_first_frame_is_a_mistake():
    with pytest.raises(UserError, match="memory_size"):
        SampleWeights(15, 15, 0.01, 0.25)


# Localisation


@given(st.integers(0, 18), st.integers(0, 18), st.floats(0.3, 5))
def test_a_lone_peak_is_the_target(row, column, height):
    answer = found(bump((height, row, column)))
    assert answer.flag == Flag.NORMAL and answer.cell == (row, column)
    assert (answer.displacement == np.array([row, column]) - MIDDLE).all()


@given(st.floats(-5, 0.24))
def test_a_low_peak_is_no_target(height):
    assert found(bump((height, 9, 9))).flag == Flag.NOT_FOUND


def test_the_peak_near_the_last_place_is_the_target_and_the_far_one_a_distractor():
    near, far = (0.8, 9, 9), (0.9, 1, 1)
    answer = found(bump(near, far))
    assert answer.flag == Flag.HARD_NEGATIVE and answer.cell == (9, 9)
    answer = found(bump(near, far), previous=(-8.0, -8.0))
    assert answer.flag == Flag.HARD_NEGATIVE and answer.cell == (1, 1)
    assert found(bump((0.8, 9, 6), (0.9, 9, 13))).flag == Flag.UNCERTAIN
    assert found(bump((0.5, 4, 4), (0.9, 9, 9))).flag == Flag.HARD_NEGATIVE
    assert found(bump((0.3, 4, 4), (0.9, 9, 9))).flag == Flag.NORMAL


def test_the_window_prefers_the_middle_for_the_first_peak_alone():
    scores = bump((0.8, 9, 9), (1.0, 0, 0))
    assert found(scores, LocalizationRules(distractor=100.0)).cell == (0, 0)
    answer = found(scores, LocalizationRules(distractor=100.0), window=hann((19, 19)))
    assert answer.cell == (9, 9) and answer.flag == Flag.HARD_NEGATIVE  # the other peak is still seen


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_an_error(value):
    scores = bump((0.8, 9, 9))
    scores[0, 3, 3] = value
    with pytest.raises(UserError, match="not finite"):
        found(scores)


# Augmentation


@given(st.integers(-9, 9), st.integers(-9, 9), seeds)
def test_a_shift_moves_the_content_and_reveals_the_image_beside_it(rows, columns, seed):
    patch = torch.from_numpy(np.random.default_rng(seed).random((1, 3, 40, 40), np.float32))
    moved = augmentation.middle(patch, 20, (rows, columns))
    assert torch.equal(moved, patch[:, :, 10 - rows : 30 - rows, 10 - columns : 30 - columns])


@given(st.integers(2, 30).map(lambda n: 2 * n), st.floats(1, 3))
def test_there_is_as_much_to_spare_on_both_sides(size, factor):
    expanded = augmentation.expanded_size(size, factor)
    assert (expanded - size) % 2 == 0 and size * factor - 1 <= expanded <= size * factor + 1


@given(seeds)
def test_turning_by_right_angles_is_exact_and_blurring_keeps_the_mean(seed):
    patch = torch.from_numpy(np.random.default_rng(seed).random((1, 3, 24, 24), np.float32))
    assert torch.allclose(augmentation.rotated(patch, 90), patch.rot90(1, (2, 3)), atol=1e-5)
    assert torch.allclose(augmentation.rotated(patch, 0), patch, atol=1e-5)
    blurred = augmentation.blurred(patch, (2, 1))
    assert blurred.var() < patch.var()
    flat = augmentation.blurred(torch.ones(1, 2, 30, 30), (2, 1))
    assert torch.allclose(flat[:, :, 4:-4, 2:-2], torch.ones(1), atol=1e-5)


def test_views_are_the_same_for_the_same_seed_and_begin_with_the_plain_one():
    chosen = augmentation.Augmentations()

    def shifts(seed):
        return [v.shift for v in augmentation.views(chosen, 288, 1 / 3, torch.Generator().manual_seed(seed))]

    assert shifts(1) == shifts(1) != shifts(2)
    assert len(shifts(0)) == 1 + 4 + 1 + 3 + 4 and shifts(0)[0] == (0, 0)
    assert shifts(0)[1:5] == [(86, 86), (-86, 86), (86, -86), (-86, -86)]
    assert all(abs(side) <= 48 for shift in shifts(3)[5:] for side in shift)


def test_dropout_leaves_out_whole_channels_and_keeps_the_sum():
    features = torch.ones(1, 1000, 2, 2)
    copies = augmentation.dropped(features, 3, 0.2, torch.Generator().manual_seed(0))
    assert copies.shape == (3, 1000, 2, 2)
    assert set(copies.unique().tolist()) == {0.0, 1.25} and (copies == copies[:, :, :1, :1]).all()
    assert abs(copies.mean() - 1) < 0.05 and not torch.equal(copies[0], copies[1])


# Boxes


@pytest.mark.parametrize(("space", "step"), [("default", 2e-4), ("relative", 5e-5)])
def test_boxes_climb_to_the_highest_score(space, step):
    best = torch.tensor([100.0, 90.0, 40.0, 60.0])
    start = torch.tensor([[[95.0, 95.0, 45.0, 50.0], [104.0, 88.0, 36.0, 66.0]]])
    rules = Refinement(space=space, iterations=300, step=(step, step))
    boxes, scores = rules.climb(by_autograd(lambda b: -((b - best) ** 2).sum(-1)), start)
    assert (boxes - best).abs().max() < 1 and (scores > -1).all()


def test_climbing_needs_no_gradients_outside():
    start = torch.tensor([[[95.0, 95.0, 45.0, 50.0]]])
    with torch.inference_mode():
        boxes, _ = Refinement(step=(1e-4, 1e-4)).climb(by_autograd(lambda b: -(b**2).sum(-1)), start.clone())
    assert not boxes.requires_grad and (boxes < start).all()


@given(seeds, st.tuples(*[st.floats(2, 200)] * 4).map(torch.tensor))
def test_boxes_to_start_from_lie_about_the_target(seed, box):
    rules = Refinement()
    boxes = starting_boxes(box, rules, torch.Generator().manual_seed(seed))[0]
    assert boxes.shape == (1 + rules.random_boxes, 4) and torch.equal(boxes[0], box)
    assert (boxes[:, 2:] >= box[2:].min() / 3 - 1e-4).all()
    gap = (boxes[:, :2] + boxes[:, 2:] / 2) - (box[:2] + box[2:] / 2)
    assert gap.abs().max() <= rules.position_jitter / 2 * box[2:].prod().sqrt() + 1e-3


def test_the_best_of_the_sensible_boxes_are_averaged():
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 0, 10, 10], [0, 0, 70, 10], [4, 0, 10, 10], [9, 9, 10, 10]])
    box, score = consensus(boxes, torch.tensor([3.0, 2.0, 9.0, 1.0, 0.0]), Refinement())
    assert torch.equal(box, torch.tensor([2.0, 0, 10, 10])) and score == 2.0
    assert consensus(boxes[2:3], torch.ones(1), Refinement()) is None
    assert consensus(torch.full((2, 4), float("nan")), torch.ones(2), Refinement()) is None


@pytest.fixture(scope="module")
def iou_network():
    torch.manual_seed(0)
    network = AtomIoUNet(input_dim=(8, 12), dim=16).train()
    for _ in range(3):  # so that the batch norms do something
        third, fourth = torch.randn(4, 8, 20, 20), torch.randn(4, 12, 10, 10)
        network(
            (third, fourth),
            (third, fourth),
            torch.tensor([[30.0, 30, 50, 40]] * 4),
            torch.rand(1, 4, 3, 4) * 80 + 9,
        )
    return network.eval().double().requires_grad_(False)


boxes_px = st.tuples(st.floats(-120, 200), st.floats(-120, 200), sides, sides)


@given(seeds, st.lists(st.lists(boxes_px, min_size=1, max_size=4), min_size=1, max_size=3))
def test_scores_of_proposals_are_the_networks(iou_network, seed, rounds):
    generator = torch.Generator().manual_seed(seed)
    third, fourth = (torch.randn(1, c, n, n, generator=generator).double() for c, n in ((8, 19), (12, 10)))
    modulation = tuple(torch.randn(1, 16, 1, 1, generator=generator).double() for _ in range(2))
    slope = ProposalScorer(iou_network, modulation).near(iou_network.get_iou_feat, (third, fourth))
    whole = iou_network.get_iou_feat((third, fourth))
    expected = by_autograd(lambda at: iou_network.predict_iou(modulation, whole, at))
    for boxes in rounds:  # of which the later ones may leave the part that was computed for the first
        at = torch.tensor([boxes]).double()
        (value, gradient), (own_value, own_gradient) = expected(at), slope(at)
        assert torch.allclose(own_value, value, rtol=1e-9, atol=1e-9)
        assert torch.allclose(own_gradient, gradient, rtol=1e-6, atol=1e-6)


# ATOM's scores


@given(seeds, st.sampled_from([9, 14, 18]), st.sampled_from([1, 4, 16]))
def test_interpolated_scores_pass_through_the_scores(seed, cells, factor):
    scores = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, cells, cells)))
    size = cells * factor
    if factor > 1:
        assert torch.allclose(upsampled(scores, size)[:, ::factor, ::factor], scores, atol=1e-9)


def test_interpolation_follows_a_wave():
    phase = torch.arange(18) / 18 * 2 * torch.pi
    fine = torch.arange(288) / 288 * 2 * torch.pi
    wave = (2 * phase + 0.3).cos()[:, None] + (3 * phase).sin()[None]
    expected = (2 * fine + 0.3).cos()[:, None] + (3 * fine).sin()[None]
    assert torch.allclose(upsampled(wave[None], 288)[0], expected, atol=1e-5)
