"""Milliseconds per tracked frame, by part: the tracker against the published formulation in the same run.

``python -m benchmarks.tracking [--device cpu] [--threads 1] [--frames 6]``
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from tabulate import tabulate

from benchmarks import Row
from benchmarks._plain_transt import Features, PlainTransT
from config.cli import run
from config.environment import choose_device
from ltr.data.augment import normalise
from ltr.data.crop import crop
from ltr.models.registry import build_network
from ltr.models.tracking.transt import TransT
from pysot_toolkit.trackers.transt import TransTTracker

PARTS = ("template", "crop", "backbone", "fusion", "heads", "update", "frame")
TARGETS = {"float32": 1.55, "bfloat16": 2.4}  # times the plain formulation, 1 CPU thread


class Clock:
    """Collects the milliseconds of named parts."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: dict[str, list[float]] = defaultdict(list)

    def now(self) -> float:
        """Milliseconds after all work given to the device; on one CPU thread its own, whoever else computes."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif torch.get_num_threads() == 1:
            return time.process_time() * 1000
        return time.perf_counter() * 1000

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block."""
        start = self.now()
        yield
        self.times[name].append(self.now() - start)

    def watch(self, name: str, *modules: torch.nn.Module) -> None:
        """Time the calls of ``modules``, the first of which begins and the last of which ends the part."""
        start = [0.0]
        modules[0].register_forward_pre_hook(lambda *_: start.__setitem__(0, self.now()))
        modules[-1].register_forward_hook(lambda *_: self.times[name].append(self.now() - start[0]))

    def median(self, name: str) -> float:
        """The middle of the measurements, first one left out."""
        values = self.times[name]
        return float(np.median(values[1:] if len(values) > 1 else values))


class Plain:
    """A tracker over the published formulation: the same crops and the same update of the box."""

    def __init__(self, network: TransT, device: torch.device, clock: Clock) -> None:
        self.tracker = TransTTracker(network, device)  # for geometry and update; its network is not used
        self.network = PlainTransT(network.to(device))
        self.clock, self.device = clock, device

    @torch.inference_mode()
    def initialize(self, image: np.ndarray, bbox: np.ndarray) -> None:
        """See ``Tracker.initialize``."""
        self.tracker.bbox = bbox
        self.pad = image.mean((0, 1))
        with self.clock.part("template"):
            pixels, _ = crop(image, bbox, self.tracker.template_factor, self.tracker.template_size, self.pad)
            self.template: Features = self.network.features(self._input(pixels))

    @torch.inference_mode()
    def track(self, image: np.ndarray) -> np.ndarray:
        """See ``Tracker.track``."""
        with self.clock.part("frame"):
            with self.clock.part("crop"):
                pixels, _ = crop(
                    image, self.tracker.bbox, self.tracker.search_factor, self.tracker.search_size, self.pad
                )
                search = self._input(pixels)
            with self.clock.part("backbone"):
                features = self.network.features(search)
            with self.clock.part("fusion"):
                fused = self.network.fuse(self.template, features)
            with self.clock.part("heads"):
                outputs = self.network.heads(fused)
            with self.clock.part("update"):
                found = self.tracker.choose(outputs)[0]
                return self.tracker.move(found, image.shape[1], image.shape[0]).bbox

    def _input(self, pixels: np.ndarray) -> torch.Tensor:
        return normalise(torch.from_numpy(pixels)[None].to(self.device)).contiguous()


class Timed(TransTTracker):
    """The tracker with a clock at its parts."""

    def attach(self, clock: Clock) -> Timed:
        """Measure with ``clock`` from now on."""
        self.clock = clock
        clock.watch("backbone", self.network.backbone, self.network.input_proj)
        clock.watch("fusion", self.network.featurefusion_network)
        last = self.network.iou_embed or self.network.bbox_embed
        clock.watch("heads", self.network.class_embed, last)
        return self

    def _input(self, crops: np.ndarray) -> torch.Tensor:
        result = super()._input(crops)
        self.clock.times["crop"].append(self.clock.now() - self.begin)
        return result

    def choose(self, outputs):  # type: ignore[no-untyped-def]
        """See ``TransTTracker.choose``."""
        with self.clock.part("update"):
            return super().choose(outputs)

    def initialize(self, image: np.ndarray, bbox: np.ndarray) -> None:
        """See ``Tracker.initialize``."""
        self.begin = self.clock.now()
        with self.clock.part("template"):
            super().initialize(image, bbox)
        for name in ("crop", "backbone"):
            self.clock.times[name].clear()

    def track(self, image: np.ndarray):  # type: ignore[no-untyped-def]
        """See ``Tracker.track``."""
        self.begin = self.clock.now()
        with self.clock.part("frame"):
            return super().track(image)


def clocks_of(device: torch.device, frames: int) -> dict[str, Clock]:
    """Clocks of the plain formulation and of the tracker in each precision, frames taken in turn."""
    torch.manual_seed(0)
    network = build_network("transt").eval().requires_grad_(False)
    assert isinstance(network, TransT)
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (frames + 1, 720, 1280, 3), np.uint8)
    bbox = np.array([600.0, 300.0, 90.0, 120.0])
    clocks = {name: Clock(device) for name in ("plain", "float32", "bfloat16")}
    plain = Plain(network, device, clocks["plain"])
    timed = [Timed(network, device, precision=name).attach(clocks[name]) for name in TARGETS]
    trackers: list[Plain | Timed] = [plain, *timed]
    for tracker in trackers:
        for _ in range(3):
            tracker.initialize(video[0], bbox)
    for image in video[1:]:
        for tracker in trackers:
            tracker.track(image)
            (tracker.tracker if isinstance(tracker, Plain) else tracker).bbox = bbox  # everyone crops alike
    return clocks


def measure() -> list[Row]:
    """Milliseconds per frame on one CPU thread."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clocks = clocks_of(torch.device("cpu"), 8)
    return [
        Row(
            f"TransT (ResNet-50), {name}",
            "ms",
            clocks[name].times["frame"][1:],
            clocks["plain"].times["frame"][1:],
            target=goal,
        )
        for name, goal in TARGETS.items()
    ]


def main() -> None:
    """Print the milliseconds of every part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--frames", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    device = choose_device(options.device)
    clocks = clocks_of(device, options.frames)
    rows = []
    for part in PARTS:
        base = clocks["plain"].median(part)
        row: list[object] = [part + (" (once per sequence)" if part == "template" else ""), f"{base:.1f}"]
        for name in TARGETS:
            time_ = clocks[name].median(part)
            row += [f"{time_:.1f}", f"{base / time_:.2f}x"]
        rows.append(row)
    print(
        f"TransT (ResNet-50), ms per part and frame of 1280x720, {device}, {torch.get_num_threads()} thread(s)"
    )
    print(tabulate(rows, headers=["part", "plain", "float32", "", "bfloat16", ""], disable_numparse=True))
    goals = ", ".join(f"{name} {goal}x" for name, goal in TARGETS.items())
    print(f"target on one CPU thread: {goals}")


if __name__ == "__main__":
    run(main)
