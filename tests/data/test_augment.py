"""Augmentation on the device: what happens to pixels happens to boxes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from config.defaults import get_defaults
from ltr.data.augment import DRAWS, Draw, StudentAugment, gray, normalise, rotate, standardise

SIZE = 128
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@given(
    centre=st.tuples(st.floats(40, 88), st.floats(40, 88)),
    sides=st.tuples(st.floats(14, 50), st.floats(14, 50)),
    angle=st.integers(-10, 10),
    upside_down=st.booleans(),
    mirror=st.booleans(),
)
def test_the_box_stays_on_the_ellipse(centre, sides, angle, upside_down, mirror):
    box = torch.tensor([[centre[0] - sides[0] / 2, centre[1] - sides[1] / 2, *sides]])
    y, x = np.mgrid[:SIZE, :SIZE]
    inside = ((x - centre[0]) / sides[0] * 2) ** 2 + ((y - centre[1]) / sides[1] * 2) ** 2 <= 1
    image = torch.from_numpy(inside).float().expand(1, 3, SIZE, SIZE)
    turned, turned_box = rotate(
        image,
        box,
        torch.zeros(1, 3),
        torch.tensor([angle]),
        torch.tensor([upside_down]),
        torch.tensor([mirror]),
    )
    rows, columns = np.nonzero(turned[0, 0].numpy())
    seen = [columns.min(), rows.min(), columns.max(), rows.max()]
    left, top, w, h = turned_box[0].tolist()
    assert np.abs(np.array(seen) - [left, top, left + w, top + h]).max() <= 1.6


@pytest.mark.parametrize("device", DEVICES)
def test_samples_do_not_touch_each_other(device):
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (6, SIZE, SIZE, 3), dtype=np.uint8)).to(device)
    draws = torch.from_numpy(rng.random((6, DRAWS), np.float32)).to(device)
    bbox = torch.tensor([[30.0, 40.0, 50.0, 20.0]], device=device).expand(6, 4)
    mean = torch.full((6, 3), 100.0, device=device)
    augment = StudentAugment(get_defaults().augment)
    whole = augment.unlabelled_pair(images, images, bbox, mean, draws)
    again = augment.unlabelled_pair(images, images, bbox, mean, draws)
    alone = augment.unlabelled_pair(images[2:3], images[2:3], bbox[2:3], mean[2:3], draws[2:3])
    for a, b, c in zip(whole, again, alone):
        assert torch.equal(a, b)
        torch.testing.assert_close(a[2:3], c)


def test_nothing_drawn_nothing_changed():
    images = torch.randint(
        0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    draws = torch.full((2, DRAWS), 0.5)  # brightness 1, angle 0
    draws[:, [Draw.GRAY, Draw.UPSIDE_DOWN, Draw.MIRROR]] = 0.999
    bbox = torch.tensor([[3.0, 4.0, 9.0, 7.0], [0.0, 1.0, 30.0, 20.0]])
    relay, aug, box = StudentAugment(get_defaults().augment).unlabelled_pair(
        images, images, bbox, torch.zeros(2, 3), draws
    )
    torch.testing.assert_close(relay, normalise(images))
    torch.testing.assert_close(aug, normalise(images))
    torch.testing.assert_close(box, bbox)


def test_draws_keep_their_probabilities():
    settings = get_defaults().augment
    draws = torch.from_numpy(np.random.default_rng(1).random((20_000, DRAWS), np.float32))
    white = torch.full((len(draws), 1, 1, 3), 120, dtype=torch.uint8)
    coloured = white.clone()
    coloured[..., 0] = 60
    template, search = StudentAugment(settings).pair(coloured, white, draws)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    levels = (template * std + mean) * 255
    grey = (levels[:, 0] - levels[:, 1]).abs().flatten() < 1e-2
    assert abs(grey.float().mean().item() - settings.gray) < 0.01
    brightness = ((search * std + mean) * 255 / 120)[:, 2].flatten()
    assert brightness.min() + 1e-3 >= 0.8 and brightness.max() - 1e-3 <= 1.2
    assert abs(brightness.mean().item() - 1) < 0.01 and brightness.std() > 0.11
    # Grey is the luminance that OpenCV computes, not a tint.
    luminance = cv2.cvtColor(np.uint8([[[60, 120, 120]]]), cv2.COLOR_RGB2GRAY).item()
    factor = (1 + settings.brightness * (2 * draws[:, Draw.TEMPLATE_BRIGHTNESS] - 1))[grey]
    assert (levels[grey, :, 0, 0] / factor[:, None] - luminance).abs().max() < 1


def test_full_brightness_is_limited_before_grey():
    white = torch.ones(1, 3, 2, 2)
    assert torch.allclose(gray(white, torch.tensor([True])), white, atol=1e-3)
    assert standardise(white).max() < 2.7
