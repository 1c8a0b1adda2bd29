"""Deformable convolution and pooling: torchvision, the plain path and a sum over every point agree."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import deform_conv2d as torchvision_deform_conv2d

from ltr.ops import (
    DeformConv,
    ModulatedDeformConv,
    deform_conv2d,
    deform_conv2d_plain,
    deform_psroi_pool2d,
)


def pixel(image: torch.Tensor, y: float, x: float) -> torch.Tensor:
    """All channels of ``[C, H, W]`` between its pixels, zero outside."""
    value = torch.zeros(image.shape[0], dtype=image.dtype)
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
                value = value + image[:, row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return value


def summed(features, offset, weight, bias, stride, padding, dilation, mask):
    """Deformable convolution point by point."""
    batch, channels = features.shape[:2]
    outputs, per_group, rows, columns = weight.shape
    moves = offset.shape[1] // (2 * rows * columns)
    out = torch.zeros(batch, outputs, *offset.shape[2:], dtype=features.dtype)
    for b in range(batch):
        for i in range(offset.shape[2]):
            for j in range(offset.shape[3]):
                for k in range(rows * columns):
                    taps = []
                    for g in range(moves):
                        dy, dx = offset[b, 2 * (g * rows * columns + k) :][:2, i, j].tolist()
                        y = i * stride[0] - padding[0] + k // columns * dilation[0] + dy
                        x = j * stride[1] - padding[1] + k % columns * dilation[1] + dx
                        share = channels // moves
                        value = pixel(features[b, g * share : (g + 1) * share], y, x)
                        taps.append(value if mask is None else value * mask[b, g * rows * columns + k, i, j])
                    column = torch.cat(taps)
                    for o in range(outputs):
                        group = o // (outputs // (channels // per_group))
                        part = column[group * per_group : (group + 1) * per_group]
                        out[b, o, i, j] += weight[o, :, k // columns, k % columns] @ part
    return out if bias is None else out + bias[:, None, None]


def problem(seed, groups, moves, kernel, stride, padding, dilation, modulated, spread=2.0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    features, weight, bias = draw(2, 4, 5, 6), draw(4, 4 // groups, *kernel), draw(4)
    height, width = (
        (features.shape[2 + a] + 2 * padding[a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1
        for a in (0, 1)
    )
    taps = moves * kernel[0] * kernel[1]
    offset = draw(2, 2 * taps, height, width) * spread
    mask = draw(2, taps, height, width).sigmoid() if modulated else None
    return features, offset, weight, bias, stride, padding, dilation, mask


PAIRS = st.tuples(st.integers(1, 2), st.integers(1, 2))


@given(
    seed=st.integers(0, 99),
    groups=st.sampled_from([1, 2]),
    moves=st.sampled_from([1, 2, 4]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=PAIRS,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=PAIRS,
    modulated=st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_three_ways_agree(seed, groups, moves, kernel, stride, padding, dilation, modulated):
    given_problem = problem(seed, groups, moves, kernel, stride, padding, dilation, modulated)
    want = summed(*given_problem)
    for way in (deform_conv2d, deform_conv2d_plain, torchvision_deform_conv2d):
        torch.testing.assert_close(way(*given_problem), want)


def test_without_offsets_it_is_a_convolution():
    features, offset, weight, bias, *geometry, _ = problem(3, 2, 1, (3, 3), (2, 1), (1, 2), (1, 2), False)
    want = torch.nn.functional.conv2d(features, weight, bias, *geometry, groups=2)
    torch.testing.assert_close(deform_conv2d_plain(features, offset * 0, weight, bias, *geometry), want)


@pytest.mark.parametrize("modulated", [False, True])
def test_derivatives_of_the_plain_path(modulated):
    features, offset, weight, bias, *geometry, mask = problem(
        1, 1, 2, (2, 3), (1, 1), (1, 1), (1, 1), modulated
    )
    inputs = [features[:1, :, :3, :4], offset[:1, :, :4, :4], weight, bias]
    mask = mask[:1, :, :4, :4] if modulated else None
    inputs = [value.clone().requires_grad_() for value in (inputs if mask is None else [*inputs, mask])]

    def plain(features, offset, weight, bias, mask=None):
        return deform_conv2d_plain(features, offset, weight, bias, *geometry, mask)

    assert torch.autograd.gradcheck(plain, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(plain, inputs, fast_mode=True)
    out = plain(*inputs)
    same = torchvision_deform_conv2d(*inputs[:4], *geometry, inputs[4] if modulated else None)
    upstream = torch.randn_like(out)
    for one, other in zip(
        torch.autograd.grad(out, inputs, upstream), torch.autograd.grad(same, inputs, upstream)
    ):
        torch.testing.assert_close(one, other)


def test_other_types_take_the_plain_path():
    features, offset, weight, bias, *geometry, mask = (
        value.float() if isinstance(value, torch.Tensor) else value
        for value in problem(5, 1, 1, (3, 3), (1, 1), (1, 1), (1, 1), True)
    )
    exact = deform_conv2d(features, offset, weight, bias, *geometry, mask)
    half = deform_conv2d(features.bfloat16(), offset, weight, bias, *geometry, mask)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, atol=0.15, rtol=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(deform_conv2d(features, offset, weight, bias, *geometry, mask), exact)


def test_modules_have_the_published_names_and_compile():
    plain, modulated = DeformConv(4, 6, 3, padding=1), ModulatedDeformConv(4, 6, 3, padding=1, bias=True)
    assert set(plain.state_dict()) == {"weight"} and set(modulated.state_dict()) == {"weight", "bias"}
    features, offset = torch.randn(1, 4, 5, 5), torch.randn(1, 18, 5, 5)
    compiled = torch.compile(plain, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(features, offset), plain(features, offset))
    full = modulated(features, offset, torch.ones(1, 9, 5, 5))
    assert full.shape == (1, 6, 5, 5)


@pytest.mark.parametrize(
    ("offset", "weight", "mask", "message"),
    [
        ((1, 18, 5, 5), (6, 3, 3, 3), None, r"features \(1, 4, 5, 5\) and weight \(6, 3, 3, 3\)"),
        ((1, 17, 5, 5), (6, 4, 3, 3), None, r"offset \(1, 17, 5, 5\): \(1, 18 per group, 5, 5\)"),
        ((1, 18, 4, 5), (6, 4, 3, 3), None, r"offset \(1, 18, 4, 5\)"),
        ((2, 18, 5, 5), (6, 4, 3, 3), None, r"offset \(2, 18, 5, 5\)"),
        ((1, 18, 5, 5), (6, 4, 3, 3), (1, 8, 5, 5), r"mask \(1, 8, 5, 5\): \(1, 9, 5, 5\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(offset, weight, mask, message):
    with pytest.raises(ValueError, match=message):
        deform_conv2d(
            torch.zeros(1, 4, 5, 5),
            torch.zeros(offset),
            torch.zeros(weight),
            padding=1,
            mask=None if mask is None else torch.zeros(mask),
        )


def pooled(features, rois, shift, size, scale, group_size, parts, samples, shift_scale):
    """Deformable position-sensitive pooling point by point."""
    height, width = features.shape[2:]
    outputs = features.shape[1] // group_size**2
    classes = 1 if shift is None else shift.shape[1] // 2
    out = torch.zeros(len(rois), outputs, size, size, dtype=features.dtype)
    for k, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        left, top = round(x1) * scale - 0.5, round(y1) * scale - 0.5
        wide = max((round(x2) + 1) * scale - 0.5 - left, 0.1)
        high = max((round(y2) + 1) * scale - 0.5 - top, 0.1)
        for o in range(outputs):
            kind = o // (outputs // classes)
            for i in range(size):
                for j in range(size):
                    dx = dy = 0.0
                    if shift is not None:
                        place = (i * parts // size, j * parts // size)
                        dx = float(shift[k, 2 * kind][place]) * shift_scale
                        dy = float(shift[k, 2 * kind + 1][place]) * shift_scale
                    total, count = 0.0, 0
                    channel = (o * group_size + i * group_size // size) * group_size + j * group_size // size
                    for a in range(samples):
                        for b in range(samples):
                            y = top + i * high / size + dy * high + a * high / size / samples
                            x = left + j * wide / size + dx * wide + b * wide / size / samples
                            if -0.5 <= y <= height - 0.5 and -0.5 <= x <= width - 0.5:
                                y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
                                total += float(pixel(features[int(image), channel : channel + 1], y, x))
                                count += 1
                    out[k, o, i, j] = total / count if count else 0.0
    return out


@pytest.mark.parametrize(("group_size", "classes", "parts"), [(1, 0, 3), (1, 1, 3), (3, 2, 1), (2, 1, 2)])
def test_pooling_is_the_sum_over_its_points(group_size, classes, parts):
    generator = torch.Generator().manual_seed(group_size)
    features = torch.randn(2, 2 * group_size**2, 7, 8, dtype=torch.float64, generator=generator)
    rois = torch.tensor(
        [[0, 3, 4, 40, 50], [1, -30, -8, 30, 25], [0, 10, 10, 10, 10], [1, 200, 200, 260, 250]],
        dtype=torch.float64,
    )
    shift = (
        torch.randn(4, 2 * classes, parts, parts, dtype=torch.float64, generator=generator)
        if classes
        else None
    )
    options = (3, 0.125, group_size, parts, 2, 0.3)
    torch.testing.assert_close(
        deform_psroi_pool2d(features, rois, shift, *options), pooled(features, rois, shift, *options)
    )


def test_pooling_has_derivatives_and_takes_no_region():
    features = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, 2.0, 3, 30, 28]], dtype=torch.float64)
    shift = (torch.randn(1, 2, 2, 2, dtype=torch.float64) * 0.3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda features, shift: deform_psroi_pool2d(features, rois, shift, 2, 0.125), (features, shift)
    )
    out = deform_psroi_pool2d(features, rois[:0], None, 2, 0.125)
    assert out.shape == (0, 2, 2, 2) and out.requires_grad
    with pytest.raises(ValueError, match=r"shift \(1, 3, 2, 2\)"):
        deform_psroi_pool2d(features, rois, torch.zeros(1, 3, 2, 2), 2, 0.125)
