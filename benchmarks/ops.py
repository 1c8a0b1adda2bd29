"""PrRoI pooling and deformable convolution at the trackers' sizes, forward and backward: the path that is taken on this
device against pooling region by region, and against torchvision's convolution.

``python -m benchmarks.ops [--device cuda]`` shows every path, beside the memory that must be moved.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision
from tabulate import tabulate

from benchmarks import Row, paired, scaled
from config.cli import Parser, run
from config.console import say
from config.environment import choose_device
from ltr.ops import cuda, deform_conv2d, deform_conv2d_plain, prroi_pool_grouped
from ltr.ops.prroi_pool import prroi_pool_plain

SECONDS = 0.5  # for each number, after two calls; at least three more
CHANNELS = 256
POOLED = [(10, 8, 3), (10, 8, 5), (30, 16, 3), (30, 16, 5)]  # DiMP: images, regions of each, bins per side
CONVOLVED = [31, 25]  # Ocean: side of the map
HEADER = ["", "path", "forward ms", "GB/s", "times floor", "backward ms", "GB/s", "times floor"]


@dataclass(frozen=True)
class Case:
    """One operator at one size: what it is differentiated by, and the paths, the first of which is the measure."""

    name: str
    inputs: tuple[torch.Tensor, ...]
    paths: dict[str, Callable[..., torch.Tensor]]
    taken: Callable[..., torch.Tensor]  # what the trackers call
    rival: str  # the path that it is compared with
    other: frozenset[str] = frozenset()  # paths that compute something else, for comparison of time alone


def main() -> None:
    """Print milliseconds and GB/s of the memory that must be moved, forward and backward."""
    options = Parser(__doc__ or "").parse_args()
    device = choose_device(options.device or "auto")
    torch.manual_seed(0)
    speed = bandwidth(device)
    kernels = "built" if device.type == "cuda" and cuda.built() else "not in use"
    say(
        f"{where(device)}, torch {torch.__version__}, torchvision {torchvision.__version__}, kernels {kernels}, "
        f"copying moves {speed:.1f} GB/s"
    )
    rows, gap = [], 0.0
    for case in cases_of(device):
        found, largest = measured(case, speed)
        rows += found
        gap = max(gap, largest)
    say(tabulate(rows, HEADER, floatfmt=("", "", ".3f", ".1f", ".1f", ".3f", ".1f", ".1f")))
    say(f"largest difference of one operator's paths, of its largest value: {gap:.1e}")


def measure() -> list[Row]:
    """Milliseconds of forward and backward together."""
    device = choose_device("auto")
    torch.manual_seed(0)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    rows = []
    for case in cases_of(device):

        def step(path: Callable[..., torch.Tensor], inputs=case.inputs) -> None:
            torch.autograd.grad(path(*inputs).sum(), inputs)
            _wait(device)

        for value in case.inputs:
            value.requires_grad_()
        ours, other = paired(
            lambda case=case, step=step: step(case.taken),
            lambda case=case, step=step: step(case.paths[case.rival]),
            repeat=3,
            clock=clock,
        )
        rows.append(Row(f"{case.name}, {device.type}", "ms", scaled(ours, 1e3), scaled(other, 1e3)))
    return rows


def cases_of(device: torch.device) -> list[Case]:
    """DiMP's poolings and Ocean's convolutions, at batch sizes that the device is used for."""
    batches = (1, 32) if device.type == "cuda" else (1, 4)
    cases = [pooling(device, *sizes) for sizes in POOLED]
    return cases + [convolution(device, batch, side) for batch in batches for side in CONVOLVED]


def where(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device}, {torch.get_num_threads()} threads"


def bandwidth(device: torch.device) -> float:
    """GB/s that a copy of more than the caches hold reads and writes."""
    source = torch.rand(1 << 26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), device) / 1e9


def pooling(device: torch.device, images: int, regions: int, bins: int) -> Case:
    """DiMP's: regions of a quarter to the whole of the search area, of a map of 18 x 18 and stride 16."""
    features = torch.randn(images, CHANNELS, 18, 18, device=device)
    size = (0.25 + 0.75 * torch.rand(images, regions, 2, device=device)) * 288 / 2
    corner = torch.rand(images, regions, 2, device=device) * 288 / 2
    boxes = torch.cat([corner, corner + size], 2)
    paths = {"plain, by image": lambda f, b: prroi_pool_plain(f, b, bins, 1 / 16)}
    index = torch.arange(images, device=device).float()[:, None, None].expand(-1, regions, -1)

    def free(features: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        own = features.index_select(0, index.flatten().long())
        pooled = prroi_pool_plain(own, boxes.flatten(0, 1)[:, None], bins, 1 / 16)
        return pooled.view(images, regions, CHANNELS, bins, bins)

    paths["plain, by region"] = free
    if cuda.usable(features):
        paths["kernel"] = lambda f, b: prroi_pool_grouped(f, b, bins, 1 / 16)
    name = f"PrRoI {images} x {regions}, {bins} x {bins}"

    def taken(features: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        return prroi_pool_grouped(features, boxes, bins, 1 / 16)

    return Case(name, (features, boxes), paths, taken, "plain, by region")


def convolution(device: torch.device, batch: int, side: int) -> Case:
    """Ocean's: 3 x 3, as many channels out as in, offsets of about a pixel."""
    features = torch.randn(batch, CHANNELS, side, side, device=device)
    offset = torch.randn(batch, 18, side, side, device=device)
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3, device=device) / 48
    paths = {
        "torchvision": lambda f, o, w: torchvision.ops.deform_conv2d(f, o, w, padding=1),
        "plain": lambda f, o, w: deform_conv2d_plain(f, o, w, padding=1),
    }
    if cuda.usable(features):
        paths["kernel"] = lambda f, o, w: deform_conv2d(f, o, w, padding=1)
    # The arithmetic that no path is spared, for which the memory floor does not stand.
    paths["(not deformed)"] = lambda f, o, w: torch.nn.functional.conv2d(f, w, padding=1) + 0 * o.sum()
    name = f"deform {batch} x {side} x {side}"

    def taken(features: torch.Tensor, offset: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return deform_conv2d(features, offset, weight, padding=1)

    other = frozenset({"(not deformed)"})
    return Case(name, (features, offset, weight), paths, taken, "torchvision", other)


def measured(case: Case, speed: float) -> tuple[list[list[object]], float]:
    """Rows of the table, and the largest difference of the paths' results."""
    inputs = [value.requires_grad_() for value in case.inputs]
    device = inputs[0].device
    given = sum(value.nbytes for value in inputs)
    first: list[torch.Tensor] = []
    rows: list[list[object]] = []
    gap = 0.0
    for name, path in case.paths.items():
        out = path(*inputs)
        upstream = torch.sin(torch.arange(out.numel(), device=out.device)).view(out.shape)

        def backward(out=out, upstream=upstream) -> object:
            return torch.autograd.grad(out, inputs, upstream, retain_graph=True)

        results = [out.detach(), *backward()]
        if name not in case.other:
            first = first or results
            gap = max([gap, *(float((a - b).abs().max() / b.abs().max()) for a, b in zip(results, first))])
        if not rows:
            # Forward reads the inputs and writes the output; backward reads both and writes the inputs' gradients.
            forth, back = given + out.nbytes, 2 * given + out.nbytes
            floor = [forth / speed / 1e6, forth / 1e9, back / speed / 1e6, back / 1e9]
            rows.append([case.name, "memory floor", floor[0], speed, 1.0, floor[2], speed, 1.0])
        with torch.no_grad():
            ahead = 1e3 * seconds(lambda path=path: path(*inputs), device)
        behind = 1e3 * seconds(backward, device)
        there = [ahead, floor[1] / ahead * 1e3, ahead / floor[0]]
        rows.append(["", name, *there, behind, floor[3] / behind * 1e3, behind / floor[2]])
    return rows, gap


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Median time of a call over three series of them; on one CPU thread its own, whoever else computes."""
    clock = time.perf_counter
    if device.type == "cpu" and torch.get_num_threads() == 1:
        clock = time.process_time

    def series(count: int) -> float:
        _wait(device)
        begin = clock()
        for _ in range(count):
            call()
        _wait(device)
        return (clock() - begin) / count

    series(1)  # warm
    first = series(1)
    count = max(1, int(SECONDS / 3 / first))
    return statistics.median(series(count) for _ in range(3))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    run(main)
