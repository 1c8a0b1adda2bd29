"""How fast masks are compared: J and F of two objects in frames of 480 x 854 px, the size of DAVIS.

Baselines, measured in the same run on the same masks: the definitions written down in numpy, where
a boundary is dilated by shifting it to every offset of the tolerance disk; and whole frames dilated
by OpenCV, which is what the reference program does. All sides must agree. One process and one
thread; milliseconds are CPU time per frame.

    python benchmarks/vos.py [--frames 70] [--baseline 10]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from PIL import Image

from pysot_toolkit.datasets.masks import check_mask, read_mask
from pysot_toolkit.evaluation.davis import Davis, compare, tolerance_disk
from pysot_toolkit.evaluation.protocol import Runs, Truth

HEIGHT, WIDTH, OBJECTS = 480, 854, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=70)
    parser.add_argument("--baseline", type=int, default=10, help="frames the baselines are measured on")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), max(options.frames, 3), options.baseline)


def measure(root: Path, frames: int, sample: int) -> None:
    truth, result = make_video(root / "truth", frames, 0), make_video(root / "result", frames, 6)
    whole, scores = timed(
        lambda: Davis().score(Truth("video", np.empty((1, 4)), masks=truth), Runs([], masks=result))
    )
    reading, pairs = timed(lambda: [(read_mask(a), read_mask(b)) for a, b in zip(truth, result)])
    checking, _ = timed(lambda: [check_mask(path) for path in result])

    inner = pairs[1:-1][:sample]
    disk = tolerance_disk((HEIGHT, WIDTH))
    ours, got = timed(lambda: [each_object(a, b, lambda x, y: compare(x, y, disk)) for a, b in inner])
    opencv, also = timed(
        lambda: [each_object(a, b, lambda x, y: straightforward(x, y, by_opencv)) for a, b in inner]
    )
    plain, want = timed(
        lambda: [each_object(a, b, lambda x, y: straightforward(x, y, by_shifts)) for a, b in inner]
    )
    assert np.allclose(got, want, atol=1e-12) and np.allclose(got, also, atol=1e-12), "the sides disagree"
    stored = np.stack([scores.parts["J"], scores.parts["F"]], axis=-1).swapaxes(0, 1)[: len(inner)]
    assert np.allclose(stored, want, atol=1e-12), "the protocol disagrees with the definitions"

    per_frame, per_sample = 1e3 / frames, 1e3 / len(inner)
    print(f"J and F of {OBJECTS} objects, {WIDTH} x {HEIGHT} px, ms per frame")
    print(f"  ours, in memory                       {ours * per_sample:7.2f}")
    print(f"  whole frames, OpenCV's dilation       {opencv * per_sample:7.2f}  ({opencv / ours:.1f}x)")
    print(f"  the definitions in numpy              {plain * per_sample:7.2f}  ({plain / ours:.1f}x)")
    print(f"  reading annotation and result         {reading * per_frame:7.2f}")
    print(f"  checking the result file              {checking * per_frame:7.2f}")
    print(f"  protocol davis, reading included      {whole * per_frame:7.2f}")


def make_video(folder: Path, frames: int, offset: int) -> tuple[Path, ...]:
    """Two wobbling blobs that move; ``offset`` px beside the truth for a result."""
    folder.mkdir()
    angle = np.linspace(0, 2 * np.pi, 200)
    paths = []
    for frame in range(frames):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        for number, (x, size) in enumerate(((250, 110), (560, 60)), 1):
            radius = size * (1 + 0.15 * np.sin(5 * angle + 0.1 * frame) + 0.08 * np.sin(13 * angle + offset))
            outline = [x + frame + offset + radius * np.cos(angle), 240 + radius * np.sin(angle)]
            cv2.fillPoly(mask, [np.stack(outline, -1).round().astype(np.int32)], number)
        image = Image.fromarray(mask)
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 759)
        paths.append(folder / f"{frame:05d}.png")
        image.save(paths[-1])
    return tuple(paths)


def each_object(truth: np.ndarray, result: np.ndarray, compared: Callable) -> list[tuple[float, float]]:
    return [compared(truth == number, result == number) for number in range(1, OBJECTS + 1)]


def straightforward(truth: np.ndarray, result: np.ndarray, dilated: Callable) -> tuple[float, float]:
    """J and F of one object on whole frames."""
    region = np.sum(truth & result) / np.sum(truth | result)
    edges = [whole_boundary(mask) for mask in (truth, result)]
    near = [dilated(edge) for edge in edges]
    recall = np.sum(edges[0] & near[1]) / np.sum(edges[0])
    precision = np.sum(edges[1] & near[0]) / np.sum(edges[1])
    return float(region), float(2 * precision * recall / (precision + recall))


def whole_boundary(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask ^ padded[:-1, 1:]) | (mask ^ padded[1:, :-1]) | (mask ^ padded[1:, 1:])


def by_opencv(edge: np.ndarray) -> np.ndarray:
    return cv2.dilate(edge.astype(np.uint8), tolerance_disk(edge.shape)).astype(bool)


def by_shifts(edge: np.ndarray) -> np.ndarray:
    height, width = edge.shape
    radius = int(np.ceil(0.008 * np.sqrt(height**2 + width**2)))
    padded = np.pad(edge, radius)
    near = np.zeros_like(edge)
    for y in range(-radius, radius + 1):
        for x in range(-radius, radius + 1):
            if y * y + x * x <= radius * radius:
                near |= padded[radius + y : radius + y + height, radius + x : radius + x + width]
    return near


def timed(work: Callable, repeat: int = 3):
    """Median CPU seconds of this process, which other load changes least, and the last outcome."""
    seconds, outcome = [], None
    for _ in range(repeat):
        start = time.process_time()
        outcome = work()
        seconds.append(time.process_time() - start)
    return float(np.median(seconds)), outcome


if __name__ == "__main__":
    main()
