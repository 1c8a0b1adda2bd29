"""Milliseconds per frame of testing several videos in one batch, against the same videos one after the other: decoding
of 1280x720 JPEG files, crops, the network and the boxes, in the loop that ``--batch`` runs, with its threads. On the CPU
all threads' time counts, so that nothing is hidden beside other work; there a batch is only asked not to be slower. On
a GPU, frames per second of batches of 8, 32 and 64, in float32 and bfloat16, eager and compiled, against one video
with the same settings, with images in memory: what the network and the boxes alone allow.

    python -m benchmarks.batch_testing [--device cuda] [--arch ocean] [--threads 2]

On a GPU it also prints frames/s with images read from disk.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import torch

from benchmarks import Row, scaled, table
from benchmarks._track_online import bound_scores
from config.cli import Options, positive, run
from config.console import say
from config.environment import choose_device
from ltr.models.registry import build_network
from ltr.models.tracking.dimp import DiMPnet
from pysot_toolkit.testing import batch as testing
from pysot_toolkit.testing.batch import Batch
from pysot_toolkit.testing.one_pass import Clip, one_pass
from pysot_toolkit.testing.ranks import cores
from pysot_toolkit.trackers.base import TRACKERS, BatchTracker
from pysot_toolkit.trackers.images import read_image

NETWORKS = {"transt": "transt", "ocean": "ocean", "dimp50": "dimpnet50"}
ON_CPU, ON_GPU = (1, 2, 8), (1, 8, 32, 64)
FILES, ENDLESS = 12, 10_000
BOX = np.array([600.0, 300.0, 90.0, 120.0])
GOAL = 8.0  # times batch 1: batches of 64 on a GPU, float32, eager


class Videos:
    """As many videos as there may be at once, in batches of one size.

    Args:
        tracker: what all of them are followed by.
        count: videos.
        size: of a batch, a divisor of ``count``.
    """

    def __init__(self, tracker: BatchTracker, files: list[str], count: int, size: int) -> None:
        clips = [Clip(str(n), [*files[n % FILES :], *files] * (ENDLESS // FILES), BOX) for n in range(count)]
        self.batch = Batch(size, min(size, cores()))
        self.count = count
        self.groups = [
            [self.batch.begin(tracker, clip, one_pass) for clip in clips[first : first + size]]
            for first in range(0, count, size)
        ]

    def step(self) -> None:
        """One frame of each video."""
        for group in self.groups:
            self.batch.step(group)
            for each in group:
                if each.error is not None:
                    raise each.error
                if hasattr(each.tracker, "bbox"):
                    each.tracker.bbox = BOX.copy()  # random weights lead anywhere, to crops of any size

    def close(self) -> None:
        """End its threads."""
        self.batch.close()


@contextmanager
def files() -> Iterator[list[str]]:
    """Frames on disk."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"{n}.jpg") for n in range(FILES)]
        for path in paths:
            rough = rng.integers(0, 256, (45, 80, 3), np.uint8)
            cv2.imwrite(path, cv2.resize(rough, (1280, 720), interpolation=cv2.INTER_CUBIC))
        yield paths


def tracker_of(arch: str, device: torch.device, precision: str = "float32") -> BatchTracker:
    """A tracker with random weights."""
    torch.manual_seed(0)
    network, kind = build_network(NETWORKS[arch]).eval(), TRACKERS.get(arch)
    if isinstance(network, DiMPnet):
        bound_scores(network)
        return kind(network, device, dataclasses.replace(kind.defaults, precision=precision))
    if arch == "ocean":
        network.connect_model.bbox_pred.weight.data.zero_()  # random ones say boxes beyond all numbers
    return kind(network, device, precision=precision)


def on_cpu(arch: str, rounds: int = 4) -> dict[int, list[float]]:
    """Seconds per frame for each size of batches, in turns; CPU time of all threads if torch has one, else wall time."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[int, list[float]] = {size: [] for size in ON_CPU}
    with files() as paths:
        tracker = tracker_of(arch, torch.device("cpu"))
        several = {size: Videos(tracker, paths, max(ON_CPU), size) for size in ON_CPU}
        for videos in several.values():
            videos.step()  # starts
        for number in range(rounds + 1):
            for size, videos in several.items():
                begin = clock()
                videos.step()
                if number:
                    seconds[size].append((clock() - begin) / videos.count)
        for videos in several.values():
            videos.close()
    return seconds


def on_gpu(
    arch: str, device: torch.device, precision: str, compiled: bool, size: int, budget: float, repeat: int
) -> dict[str, list[float]]:
    """Frames/s of one batch: with images from disk, and from memory."""
    tracker = tracker_of(arch, device, precision)
    if compiled:
        torch._dynamo.reset()
        network = tracker.network  # type: ignore[attr-defined]
        network.track = torch.compile(network.track, dynamic=False)
    found: dict[str, list[float]] = {}
    with files() as paths:
        images = {path: read_image(path) for path in paths}
        for source, read in (("disk", read_image), ("memory", images.__getitem__)):
            with mock.patch.object(testing, "read_image", read):
                videos = Videos(tracker, paths, size, size)
                for _ in range(4):
                    videos.step()
                rates = found.setdefault(source, [])
                while len(rates) < repeat:
                    steps, begin = 0, time.perf_counter()  # every step ends with a copy to the host
                    while time.perf_counter() - begin < budget or steps < 3:
                        videos.step()
                        steps += 1
                    rates.append(steps * size / (time.perf_counter() - begin))
                videos.close()
    return found


def measure() -> list[Row]:
    """Milliseconds per frame on one CPU thread, and frames per second of a GPU where there is one."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows = [row for arch in ("transt", "dimp50") for row in rows_of(arch, on_cpu(arch))]
    if torch.cuda.is_available():
        rows += gpu_rows("transt", torch.device("cuda"), 1.0)
    return rows


def rows_of(arch: str, seconds: dict[int, list[float]]) -> list[Row]:
    """Each batch against one after the other."""
    alone = scaled(seconds[1], 1e3)
    return [
        Row(f"{arch}, {size} at once", "ms", scaled(seconds[size], 1e3), alone, target=1.0)
        for size in ON_CPU[1:]
    ]


def gpu_rows(arch: str, device: torch.device, budget: float) -> list[Row]:
    """Each batch against one video with the same settings; says the figures as they come."""
    rows = []
    for precision in ("float32", "bfloat16"):
        for compiled in (False, True):
            way = f"{arch}, {precision}, {'compiled' if compiled else 'eager'}"
            rates = {size: on_gpu(arch, device, precision, compiled, size, budget, 3) for size in ON_GPU}
            for size, found in rates.items():
                disk, memory = (statistics.median(found[source]) for source in ("disk", "memory"))
                say(f"{way}, batch {size}: {disk:.0f} frames/s from disk, {memory:.0f} from memory")
            target = GOAL if (precision, compiled) == ("float32", False) else None
            rows += [
                Row(
                    f"{way}, {size} at once",
                    "frames/s",
                    rates[size]["memory"],
                    rates[1]["memory"],
                    target=target if size == max(ON_GPU) else None,
                )
                for size in ON_GPU[1:]
            ]
    return rows


def main() -> None:
    """Print the table."""
    parser = Options(__doc__)
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--arch", default="transt", choices=sorted(NETWORKS))
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads of torch, on the CPU")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="budget of each measurement, on a GPU (default: 1)"
    )
    options = parser.parse_args()
    device = choose_device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(options.threads)
        cv2.setNumThreads(options.threads)
        say(table(rows_of(options.arch, on_cpu(options.arch))))
        return
    rows = gpu_rows(options.arch, device, options.seconds)
    say(f"{options.arch} on {torch.cuda.get_device_name(device)}, {cores()} CPU cores")
    say(table(rows))


if __name__ == "__main__":
    run(main)
