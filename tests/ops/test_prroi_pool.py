"""PrRoI pooling: the integral itself, its derivatives, its memory, and what is refused."""

from __future__ import annotations

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from ltr.ops.prroi_pool import prroi_pool2d, prroi_pool_grouped


def numeric(features: torch.Tensor, box: torch.Tensor, bins: int, samples: int = 80) -> torch.Tensor:
    """The mean of the bilinear map over each bin by sampling it densely: ``[C, H, W] -> [C, bins, bins]``."""
    height, width = features.shape[1:]

    def points(first: float, last: float) -> torch.Tensor:
        step = (last - first) / (bins * samples)
        return first + step * (torch.arange(bins * samples, dtype=torch.float64) + 0.5)

    def hats(at: torch.Tensor, size: int) -> torch.Tensor:
        return (1 - (at[:, None] - torch.arange(size)).abs()).clamp(min=0)

    x, y = points(float(box[0]), float(box[2])), points(float(box[1]), float(box[3]))
    dense = hats(y, height) @ features @ hats(x, width).T
    return torch.nn.functional.avg_pool2d(dense[None], samples)[0]


@given(
    corner=st.tuples(st.floats(-6, 9), st.floats(-6, 9)),
    size=st.tuples(st.floats(0.05, 12), st.floats(0.05, 12)),
    bins=st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_it_is_the_mean_of_the_bilinear_map(corner, size, bins):
    features = torch.randn(1, 2, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    box = torch.tensor([*corner, corner[0] + size[0], corner[1] + size[1]], dtype=torch.float64)
    rois = torch.cat([torch.zeros(1, dtype=torch.float64), box * 4])[None]
    found = prroi_pool2d(features, rois, bins, 0.25)[0]
    torch.testing.assert_close(found, numeric(features[0], box, bins), atol=2e-3, rtol=0)


def test_grouped_and_free_regions_agree():
    features = torch.randn(3, 4, 8, 10)
    boxes = torch.rand(3, 5, 4) * 60
    boxes[..., 2:] += boxes[..., :2] + 1
    images = torch.arange(3.0).repeat_interleave(5)[:, None]
    free = prroi_pool2d(features, torch.cat([images, boxes.flatten(0, 1)], 1), (3, 2), 0.125)
    grouped = prroi_pool_grouped(features, boxes, (3, 2), 0.125)
    torch.testing.assert_close(free.view(3, 5, 4, 3, 2), grouped)


def test_first_and_second_derivatives():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 2, 5, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    boxes = torch.tensor(
        [[[3.1, 2.3, 17.7, 14.9], [-4.3, -3.1, 9.4, 6.2]], [[8.2, 1.7, 30.3, 11.6], [5.3, 5.9, 5.9, 6.7]]],
        dtype=torch.float64,
        requires_grad=True,
    )

    def pool(features, boxes):
        return prroi_pool_grouped(features, boxes, (2, 3), 0.25)

    assert torch.autograd.gradcheck(pool, (features, boxes))
    assert torch.autograd.gradgradcheck(pool, (features, boxes))


@pytest.mark.parametrize("box", [[5.0, 5, 5, 9], [9.0, 9, 4, 3], [3.0, 8, 9, 2]])
def test_regions_without_area_give_nothing(box):
    features = torch.randn(1, 3, 6, 6, requires_grad=True)
    rois = torch.tensor([[0.0, *box]], requires_grad=True)
    out = prroi_pool2d(features, rois, 3, 1.0)
    out.sum().backward()
    assert not out.any() and not features.grad.any() and not rois.grad.any()


def test_no_regions_at_all():
    features = torch.randn(2, 3, 6, 6, requires_grad=True)
    out = prroi_pool2d(features, torch.empty(0, 5, requires_grad=True), 4, 1.0)
    assert out.shape == (0, 3, 4, 4) and out.requires_grad
    out.sum().backward()
    assert not features.grad.any()


class Peak(TorchDispatchMode):
    """The most memory that tensors made inside hold at one time, in numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        for value in tree_flatten(outputs)[0]:
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                key, size = storage._cdata, storage.nbytes() // value.element_size()
                if key not in self._seen:
                    self._seen.add(key)
                    self.alive += size
                    self.peak = max(self.peak, self.alive)
                    weakref.finalize(storage, self._free, key, size)
        return outputs

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.alive -= size


def test_memory_grows_with_the_regions_and_not_with_their_product_with_the_map():
    """Of grouped regions a row of the map is kept for each, never the map."""
    height, width, channels = 18, 18, 32
    peaks = {}
    for regions in (4, 8, 16, 32):
        features = torch.randn(2, channels, height, width, requires_grad=True)
        boxes = torch.tensor([16.0, 24, 200, 190]).expand(2, regions, 4).clone().requires_grad_()
        with Peak() as used:
            prroi_pool_grouped(features, boxes, 5, 1 / 16).square().sum().backward()
        peaks[regions] = used.peak
    growth = (peaks[32] - peaks[16]) / (peaks[16] - peaks[8])
    assert 1.8 < growth < 2.2, peaks  # linear
    per_region = (peaks[32] - peaks[16]) / (2 * 16)
    assert per_region < 0.9 * 6 * channels * 5 * (height + 5), peaks
    assert peaks[32] < 0.6 * 6 * 2 * 32 * channels * height * width


def test_half_precision_and_compilation():
    features = torch.randn(2, 4, 9, 9)
    boxes = torch.tensor([[[8.0, 8, 50, 60]], [[4.0, 30, 20, 61]]])
    exact = prroi_pool_grouped(features, boxes, 3, 1 / 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(prroi_pool_grouped(features, boxes, 3, 1 / 8), exact)
    half = prroi_pool_grouped(features.bfloat16(), boxes, 3, 1 / 8)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, atol=0.02, rtol=0.02)
    compiled = torch.compile(prroi_pool2d, fullgraph=True, backend="aot_eager")
    rois = torch.cat([torch.arange(2.0)[:, None], boxes[:, 0]], 1)
    torch.testing.assert_close(compiled(features, rois, 3, 1 / 8), exact[:, 0])


@pytest.mark.parametrize(
    ("features", "rois"), [((3, 8, 8), (2, 5)), ((1, 3, 8, 8), (2, 4)), ((1, 3, 8, 8), (5,))]
)
def test_shapes_that_do_not_fit_are_named(features, rois):
    with pytest.raises(ValueError, match=r"features \(.*\) and rois \(.*\)"):
        prroi_pool2d(torch.zeros(features), torch.zeros(rois), 3, 1.0)
