"""The CUDA kernels: their arithmetic on the CPU, the same on a GPU where there is one, and that they compile.

What one thread computes stands in headers that a C++ compiler reads as well. Here it is compiled for the CPU, given to
the operators as their CPU implementation, and compared with the plain paths through all that is around it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import UserError
from ltr.ops import cuda, deform_conv2d, deform_conv2d_plain, prroi_pool2d, prroi_pool_grouped
from ltr.ops.deform_conv import deform_columns_plain
from ltr.ops.prroi_pool import prroi_pool_plain
from tests.ops.kernels_on_host import Host, compiler

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "ltr" / "ops" / "csrc"


def toolkit() -> Path | None:
    """The folder of the CUDA toolkit."""
    found = shutil.which("nvcc")
    places = [os.environ.get("CUDA_HOME"), "/usr/local/cuda", found and Path(found).resolve().parents[1]]
    return next((Path(place) for place in places if place and (Path(place) / "bin" / "nvcc").exists()), None)


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A device with kernels, which the public functions then use: the compiled arithmetic on the CPU, or a GPU."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no GPU to run the CUDA kernels on")
        if not cuda.built():
            pytest.skip("the CUDA kernels are not built, see docs/operators.md")
        yield "cuda"
        return
    if compiler() is None:
        pytest.skip("no C++ compiler (c++, g++ or clang++) for the kernels' arithmetic")
    host = Host.compiled(SOURCES / "host.cpp", tmp_path_factory.mktemp("kernels"))
    implementations = torch.library.Library("spot", "IMPL")
    for name in cuda.SCHEMAS:
        implementations.impl(name, getattr(host, name), "CPU")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "usable", lambda features: True)
        yield "cpu"
    implementations._destroy()  # no CPU implementation is left behind for other tests


REGIONS = torch.tensor(
    [
        [0, 3.3, 2.1, 21.7, 25.2],
        [1, -9.5, -6.1, 17.3, 11.9],  # over the upper left corner
        [1, 8, 4, 24, 20],  # whole pixels
        [0, -40, -30, 90, 80],  # far larger than the map
        [1, 13.1, 9.2, 13.13, 9.21],  # narrower than a pixel
        [0, 50, 60, 70, 90],  # outside
        [0, 15, 2, 15, 20],  # no width
        [1, 4.2, 9.3, 20, 8.9],  # negative
        [1, 27.9, 0.1, 40.2, 3.4],
    ],
    dtype=torch.float64,
)


def derivatives(function, inputs, seed=1):
    """The output, and the gradients of all inputs for one draw from above."""
    own = [value.detach().clone().requires_grad_() for value in inputs]
    out = function(*own)
    generator = torch.Generator().manual_seed(seed)
    upstream = torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out)
    return out.detach(), *torch.autograd.grad(out, own, upstream)


def agree(found, want, tolerance):
    for one, other in zip(found, want):
        size = float(other.abs().max())
        torch.testing.assert_close(one.cpu(), other, atol=tolerance * size, rtol=tolerance)


def plain_pool(features, rois, size, scale):
    return prroi_pool_plain(features.index_select(0, rois[:, 0].long()), rois[:, None, 1:], size, scale)[:, 0]


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 2)])
def test_pooling_is_the_plain_one(device, kind, size):
    features = torch.randn(2, 3, 7, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = derivatives(lambda f, r: plain_pool(f, r, size, 0.25), (features, REGIONS))
    own = features.to(kind), REGIONS.to(kind)
    plain = derivatives(lambda f, r: plain_pool(f, r, size, 0.25), own)
    found = derivatives(lambda f, r: prroi_pool2d(f, r, size, 0.25), [value.to(device) for value in own])
    for here, there, want in zip(found, plain, exact):
        error, rounding = (float((value.cpu() - want).abs().max()) for value in (here, there))
        assert error <= 2 * rounding + (1e-9 if kind == torch.float64 else 1e-5), (error, rounding)


@given(
    corner=st.tuples(st.floats(-6, 9), st.floats(-6, 9)),
    size=st.tuples(st.floats(1e-6, 15), st.floats(1e-6, 15)),
    bins=st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
@settings(max_examples=60, deadline=None)
def test_pooling_of_any_region(device, corner, size, bins):
    features = torch.randn(1, 2, 6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    rois = torch.tensor([[0, *corner, corner[0] + size[0], corner[1] + size[1]]], dtype=torch.float64)
    want = derivatives(lambda f, r: plain_pool(f, r, bins, 1.0), (features, rois))
    found = derivatives(lambda f, r: prroi_pool2d(f, r, bins, 1.0), (features.to(device), rois.to(device)))
    # The plain form takes a difference of integrals, which loses digits as the region shrinks.
    tolerance = 1e-9 + 1e-13 / min(size) ** 2
    for one, other in zip(found, want):
        torch.testing.assert_close(one.cpu(), other, atol=tolerance, rtol=1e-9)


def test_pooling_by_groups_of_no_regions_and_of_sixteen_bits(device):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(2, 3, 7, 8, generator=generator)
    boxes = REGIONS[[0, 1, 2, 3], 1:].view(2, 2, 4).float()
    want = prroi_pool_plain(features, boxes, (2, 3), 0.25)
    found = prroi_pool_grouped(features.to(device), boxes.to(device), (2, 3), 0.25)
    torch.testing.assert_close(found.cpu(), want)
    half = prroi_pool_grouped(features.bfloat16().to(device), boxes.to(device), (2, 3), 0.25)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.cpu().float(), want, atol=0.02, rtol=0.02)
    # Layouts of memory other than the usual one.
    last = features.to(device, memory_format=torch.channels_last)
    torch.testing.assert_close(prroi_pool_grouped(last, boxes.to(device), (2, 3), 0.25).cpu(), want)

    features = features.to(device).requires_grad_()
    empty = prroi_pool2d(features, torch.empty(0, 5, device=device, requires_grad=True), 4, 1.0)
    assert empty.shape == (0, 3, 4, 4)
    empty.sum().backward()
    assert not features.grad.any()
    with pytest.raises(ValueError, match=r"features \(2, 3, 7, 8\) and boxes \(1, 2, 4\)"):
        prroi_pool_grouped(features, boxes[:1].to(device), 2, 1.0)


def test_pooling_has_first_and_second_derivatives(device):
    features = torch.randn(2, 2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    features = features.to(device).requires_grad_()
    rois = REGIONS[:3].to(device).requires_grad_()

    def pool(features, corners):  # the image's number is no variable
        return prroi_pool2d(features, torch.cat([rois[:, :1].detach(), corners], 1), (2, 3), 0.2)

    corners = rois[:, 1:].detach().add(0.01).requires_grad_()
    assert torch.autograd.gradcheck(pool, (features, corners), nondet_tol=1e-12)
    assert torch.autograd.gradgradcheck(pool, (features, corners), nondet_tol=1e-12)


def test_second_derivatives_where_one_input_makes_the_other(device):
    """Each input's own share is counted once, though the features come from the regions."""
    base = torch.randn(1, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    rois = torch.tensor([[0, 0.7, 0.4, 4.3, 5.1]], dtype=torch.float64)

    def twice(pool, place):
        own = rois.to(place).requires_grad_()
        features = base.to(place) * own[:, 1:].prod()
        (first,) = torch.autograd.grad(pool(features, own).square().sum(), own, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), own)
        return first.detach().cpu(), second.cpu()

    want = twice(lambda f, r: plain_pool(f, r, (2, 2), 1.0), "cpu")
    found = twice(lambda f, r: prroi_pool2d(f, r, 2, 1.0), device)
    torch.testing.assert_close(found, want)


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
    spread=st.sampled_from([0.0, 1.7, 50.0]),
    kind=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=40, deadline=None)
def test_convolution_is_the_plain_one(
    device, seed, groups, moves, kernel, stride, padding, dilation, modulated, spread, kind
):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    channels = 4 * (1 + 8 * (seed % 3))  # one thread's share of the channels and more
    features, weight, bias = draw(2, channels, 5, 6), draw(4, channels // groups, *kernel), draw(4)
    height, width = (
        (features.shape[2 + a] + 2 * padding[a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1
        for a in (0, 1)
    )
    taps = moves * kernel[0] * kernel[1]
    inputs = [features, draw(2, 2 * taps, height, width) * spread, weight, bias]
    if modulated:
        inputs.append(draw(2, taps, height, width).sigmoid())

    def run(convolution):
        return lambda f, o, w, b, m=None: convolution(f, o, w, b, stride, padding, dilation, m)

    own = [value.to(kind) for value in inputs]
    want = derivatives(run(deform_conv2d_plain), own)
    found = derivatives(run(deform_conv2d), [value.to(device) for value in own])
    tolerance = 1e-10 if kind == torch.float64 else 1e-4
    agree(found, want, tolerance)
    if spread == 1.7:  # off the pixels, where the offsets' derivatives jump
        agree(derivatives(run(torchvision.ops.deform_conv2d), own), want, tolerance)


def test_convolution_of_any_layout_in_memory(device):
    generator = torch.Generator().manual_seed(8)
    shapes = (2, 4, 5, 6), (2, 36, 5, 6), (4, 2, 3, 3), (2, 18, 5, 6)
    usual = [torch.randn(shape, generator=generator).to(device) for shape in shapes]
    for other in (
        [value.contiguous(memory_format=torch.channels_last) for value in usual],
        [value.transpose(2, 3).contiguous().transpose(2, 3) for value in usual],
    ):
        for convolution in (deform_conv2d_plain, deform_conv2d):
            want, found = (
                derivatives(lambda f, o, w, m, run=convolution: run(f, o, w, padding=1, mask=m), values)
                for values in (usual, other)
            )
            agree(found, [value.cpu() for value in want], 1e-5)


def test_convolution_with_offsets_that_are_no_numbers(device):
    """Such a point is outside the map: nothing is read or written there."""
    features = torch.ones(1, 2, 4, 4, dtype=torch.float64, device=device)
    offset = torch.zeros(1, 18, 4, 4, dtype=torch.float64, device=device)
    for k, value in enumerate((float("nan"), float("inf"), -float("inf"), 1e300, 2.0**31, -(2.0**40))):
        offset[0, k, 1, 2] = value
    features.requires_grad_()
    offset.requires_grad_()
    weight = torch.ones(1, 2, 3, 3, dtype=torch.float64, device=device)
    for convolution in (deform_conv2d_plain, deform_conv2d):
        out = convolution(features, offset, weight, padding=1)
        assert out[0, 0, 1, 2] == 2 * 6  # six of the nine points are left
        assert out[0, 0, 2, 2] == 2 * 9
    out.sum().backward()
    assert features.grad.isfinite().all() and not offset.grad[0, :6, 1, 2].any()


def test_convolution_has_first_and_second_derivatives_and_sixteen_bits(device):
    generator = torch.Generator().manual_seed(6)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(device).requires_grad_()

    inputs = draw(2, 4, 4, 5), draw(2, 16, 3, 4), draw(2, 2, 2, 2), draw(2), draw(2, 8, 3, 4)

    def convolve(features, offset, weight, bias, mask):
        return deform_conv2d(features, offset, weight, bias, mask=mask)

    assert torch.autograd.gradcheck(convolve, inputs, fast_mode=True, nondet_tol=1e-10)
    assert torch.autograd.gradgradcheck(convolve, inputs, fast_mode=True, nondet_tol=1e-10)
    exact = convolve(*inputs)
    half = deform_conv2d(inputs[0].bfloat16(), *inputs[1:4], mask=inputs[4])
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), exact, atol=0.15, rtol=0.05)
    with torch.autocast(device, torch.bfloat16):
        torch.testing.assert_close(convolve(*inputs), exact)


def test_operators_keep_torchs_rules(device):
    """Schema, shapes without data, derivatives and tracing agree with what the kernels return."""
    generator = torch.Generator().manual_seed(7)

    def draw(*shape, grad=True):
        return torch.randn(*shape, generator=generator).to(device).requires_grad_(grad)

    spot = torch.ops.spot
    rois = REGIONS.float().to(device)
    features, own = draw(2, 3, 7, 8), rois.clone().requires_grad_()
    torch.library.opcheck(spot.prroi_pool.default, (features, own, 3, 2, 0.25))
    torch.library.opcheck(spot.prroi_pool.default, (features, rois, 3, 2, 0.25))
    grad = draw(len(rois), 3, 3, 2, grad=False)
    for operator in (spot.prroi_pool_grad_features.default, spot.prroi_pool_grad_rois.default):
        torch.library.opcheck(operator, (grad, features.detach(), rois, 0.25))
    geometry = ([3, 2], [1, 2], [1, 0], [1, 1])
    features = draw(2, 4, 5, 6)
    offset, mask = draw(2, 24, 5, 3), draw(2, 12, 5, 3)
    for tensors in ((features, offset, mask), (features, offset, None)):
        torch.library.opcheck(spot.deform_columns.default, (*tensors, *geometry))
        plain = deform_columns_plain(*tensors, *geometry)
        grad = torch.randn_like(plain.transpose(0, 1).flatten(1)).contiguous()
        detached = [None if value is None else value.detach() for value in tensors]
        torch.library.opcheck(spot.deform_columns_grad.default, (grad, *detached, *geometry))


def test_functions_compile_with_kernels(device):
    features = torch.randn(2, 3, 7, 8, device=device)
    rois, offset = REGIONS.float().to(device), torch.randn(2, 18, 5, 6, device=device)
    weight = torch.randn(4, 3, 3, 3, device=device)
    for function, arguments in (
        (prroi_pool2d, (features, rois, 3, 0.25)),
        (deform_conv2d, (features, offset, weight)),
    ):
        torch._dynamo.reset()
        compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*arguments), function(*arguments))


def test_the_binding_refuses_what_does_not_fit(device):
    if device == "cpu":
        pytest.skip("only on a GPU is there a binding to call")
    features, rois = torch.zeros(2, 3, 7, 8, device=device), REGIONS.float().to(device)
    with pytest.raises(ValueError, match="rois is Double on cuda"):
        torch.ops.spot.prroi_pool(features, rois.double(), 3, 3, 1.0)
    with pytest.raises(ValueError, match="do not fit"):
        torch.ops.spot.deform_columns(
            features, torch.zeros(1, 18, 7, 8, device=device), None, [3, 3], [1, 1], [1, 1], [1, 1]
        )
    out = prroi_pool2d(features.requires_grad_(), rois, 3, 1.0).sum()
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="prroi_pool_grad_features does not have a deterministic"):
            out.backward()
    finally:
        torch.use_deterministic_algorithms(False)


def test_whether_they_are_built_is_a_constant_of_compiled_code():
    @torch.compile(fullgraph=True, backend="eager")
    def double_if_built(value):
        return value * 2 if cuda.built() else value

    assert double_if_built(torch.ones(1)) == (2 if cuda.built() else 1)


def test_a_library_that_does_not_load_is_named(tmp_path, monkeypatch):
    (tmp_path / "_kernels.abi3.so").write_bytes(b"not a library")
    monkeypatch.setattr(cuda, "__file__", str(tmp_path / "cuda.py"))
    with pytest.raises(UserError, match=r"_kernels\.abi3\.so: does not load with torch .* build it again"):
        cuda.built()
    monkeypatch.setattr(cuda, "__file__", str(tmp_path / "elsewhere" / "cuda.py"))
    assert cuda.built() is False


@pytest.mark.skipif(toolkit() is None, reason="no CUDA toolkit (nvcc) to compile the kernels with")
def test_kernels_compile(tmp_path):
    command = [toolkit() / "bin" / "nvcc", "-std=c++17", "-Werror=all-warnings", "-arch=sm_80", "-c"]
    subprocess.run([*command, SOURCES / "kernels.cu", "-o", tmp_path / "kernels.o"], check=True)


@pytest.mark.skipif(toolkit() is None, reason="no CUDA toolkit (nvcc) to build the extension with")
def test_extension_builds_and_offers_every_operator(tmp_path):
    """As a user builds it, but for the place; then loaded, which needs no GPU, into a process of its own."""
    said = subprocess.run(
        [toolkit() / "bin" / "nvcc", "--version"], check=True, capture_output=True, text=True
    )
    release = re.search(r"release (\d+)\.", said.stdout)
    if torch.version.cuda is None or release is None or torch.version.cuda.split(".")[0] != release[1]:
        pytest.skip(f"torch was built for CUDA {torch.version.cuda}, nvcc is of {release and release[1]}")
    environment = {
        **os.environ,
        "SPOT_BUILD_CUDA": "1",
        "CUDA_HOME": str(toolkit()),
        "TORCH_CUDA_ARCH_LIST": "8.0",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "build_ext",
        "--build-temp",
        tmp_path / "o",
        "--build-lib",
        tmp_path,
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (library,) = tmp_path.glob("ltr/ops/_kernels*.so")
    check = (
        "import sys, torch; from ltr.ops import cuda; torch.ops.load_library(sys.argv[1])\n"
        "for name in cuda.SCHEMAS:\n"
        "    operator = getattr(torch.ops.spot, name).default\n"
        "    assert operator.has_kernel_for_dispatch_key(torch._C.DispatchKey.CUDA), name"
    )
    subprocess.run([sys.executable, "-c", check, library], cwd=ROOT, check=True)
