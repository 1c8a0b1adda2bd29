"""Correlations against sums over every place."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr.ops import correlation, depthwise_correlation


@given(st.integers(0, 3), st.sampled_from([1, 3]), st.integers(1, 5), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_cost_volume_is_the_sum_of_products(reach, window, height, width):
    a, b = torch.randn(2, 2, 3, height, width, dtype=torch.float64)
    side, half = 2 * reach + 1, window // 2
    want = torch.zeros(2, side**2, height, width, dtype=torch.float64)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            for y in range(height):
                for x in range(width):
                    for r in range(y - half, y + half + 1):
                        for c in range(x - half, x + half + 1):
                            inside = 0 <= r < height and 0 <= c < width
                            if inside and 0 <= r + dy < height and 0 <= c + dx < width:
                                index = (dy + reach) * side + dx + reach
                                want[:, index, y, x] += (a[:, :, r, c] * b[:, :, r + dy, c + dx]).sum(1)
    torch.testing.assert_close(correlation(a, b, reach, window), want)


def test_derivatives():
    a = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    b = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: correlation(a, b, 2, 3), (a, b))
    template = torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(depthwise_correlation, (a, template))


@pytest.mark.parametrize("shared", [False, True])
def test_each_sample_and_channel_has_its_own_template(shared):
    search, template = torch.randn(3, 4, 6, 7), torch.randn(1 if shared else 3, 4, 3, 2)
    found = depthwise_correlation(search, template)
    for sample in range(3):
        for channel in range(4):
            kernel = template[0 if shared else sample, channel][None, None]
            want = torch.nn.functional.conv2d(search[sample, channel][None, None], kernel)[0, 0]
            torch.testing.assert_close(found[sample, channel], want)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"\(1, 2, 3, 3\) and \(1, 2, 3, 4\)"):
        correlation(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 4), 1)
    for template in ((1, 3, 2, 2), (2, 2, 2, 2), (1, 2, 4, 2)):
        with pytest.raises(ValueError, match=r"search \(1, 2, 3, 3\) and template"):
            depthwise_correlation(torch.zeros(1, 2, 3, 3), torch.zeros(template))
