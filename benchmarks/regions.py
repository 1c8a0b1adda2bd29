"""How fast VOT's raster overlap is: a polygon per frame against 15 repetitions of rectangles.

The baseline is the definition taken at its word, for one pair after the other: both shapes are drawn
into a mask of their common window, row by row, and the masks are compared. It is measured in the same
run on some of the pairs and must agree exactly. Both sides use one process and one thread; times are
CPU times.

    python benchmarks/regions.py [--frames 373] [--extent 90] [--baseline 150]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.evaluation import timed
from pysot_toolkit.evaluation.protocol import Regions
from pysot_toolkit.evaluation.regions import VotRaster, exact_overlaps, regions_of, vot_overlaps

REPETITIONS = 15
SIZE = (640, 480)
FRAMES = 22394  # of 60 videos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=373)
    parser.add_argument("--extent", type=float, default=90, help="mean width of the target in px")
    parser.add_argument("--baseline", type=int, default=150, help="pairs that the baseline is measured on")
    options = parser.parse_args()
    truth, predictions = make_video(options.frames, options.extent)
    measure(truth, predictions, min(options.baseline, options.frames))


def measure(truth: Regions, predictions: list[Regions], sample: int) -> None:
    frames, pairs = len(truth.length), len(truth.length) * len(predictions)
    prepare, raster = timed(lambda: VotRaster(truth, SIZE), repeat=15)
    together, overlaps = timed(lambda: raster.overlaps_many(predictions), repeat=15)
    single, _ = timed(lambda: vot_overlaps(truth, predictions[0], SIZE), repeat=15)
    polygons, _ = timed(lambda: vot_overlaps(truth, truth, SIZE), repeat=5)
    exact, _ = timed(lambda: exact_overlaps(truth, predictions[0], SIZE), repeat=3)
    plain, want = timed(
        lambda: [drawn_overlap(*pair) for pair in zip(truth.values[:sample], predictions[0].values)]
    )
    assert (overlaps[0][:sample] == want).all(), "the two sides disagree"

    heights = np.ptp(truth.values[:, 1::2], axis=1)
    print(
        f"{frames} frames x {len(predictions)} repetitions, polygons {heights.mean():.0f} px high, 1 process"
    )
    print(f"  rows of the truth                     {prepare / frames * 1e6:8.2f} us per frame")
    print(f"  rectangles over them                  {together / pairs * 1e6:8.2f} us per pair")
    print(f"  a truth used once                     {single / frames * 1e6:8.2f} us per pair")
    print(f"  polygon and polygon                   {polygons / frames * 1e6:8.2f} us per pair")
    print(f"  exact (shapely)                       {exact / frames * 1e6:8.2f} us per pair")
    print(f"  masks, pair by pair                   {plain / sample * 1e6:8.2f} us per pair")
    print(f"  ratio                                 {plain / sample / (together / pairs):8.1f}x")
    whole = FRAMES * 3 * (prepare / frames + REPETITIONS * together / pairs)
    print(f"  60 videos x 3 trackers x {REPETITIONS}           {whole:8.2f} s")


def make_video(frames: int, extent: float) -> tuple[Regions, list[Regions]]:
    """A turned rectangle that wanders, grows and turns, and noisy boxes around it."""
    random = np.random.Generator(np.random.PCG64(0))
    centre = np.clip(np.cumsum(random.normal(0, 3, (frames, 2)), axis=0) + np.array(SIZE) / 2, 0, SIZE)
    angle = random.uniform(0, np.pi) + np.cumsum(random.normal(0, 0.02, frames))
    width = extent * np.exp(np.cumsum(random.normal(0, 0.01, frames)))
    corners = np.array([-1 - 0.8j, 1 - 0.8j, 1 + 0.8j, -1 + 0.8j]) / 2
    turned = np.exp(1j * angle)[:, None] * corners * width[:, None]
    points = np.stack([turned.real, turned.imag], axis=2) + centre[:, None]
    low = points.min(axis=1)
    boxes = np.concatenate([low, points.max(axis=1) - low], axis=1)
    noisy = [boxes + random.normal(0, 0.1 * extent, boxes.shape) for _ in range(REPETITIONS)]
    return regions_of(points.reshape(frames, 8).round(4)), [regions_of(rows.round(4)) for rows in noisy]


def drawn_overlap(polygon: np.ndarray, box: np.ndarray) -> float:
    """The overlap of one pair from its two masks."""
    x, y, w, h = box
    shapes = [
        np.array(row, np.float32).reshape(-1, 2)
        for row in (polygon, (x, y, x + w, y, x + w, y + h, x, y + h))
    ]
    low = [np.maximum(np.floor(points.min(axis=0)), 0) for points in shapes]
    high = [np.minimum(np.ceil(points.max(axis=0)), SIZE) for points in shapes]
    if (np.minimum(*high) <= np.maximum(*low)).any():
        return 0.0
    origin = np.minimum(*low)
    width, height = (np.maximum(*high) - origin).astype(int) + 1
    first, second = (drawn(points - origin, width, height) for points in shapes)
    return float(np.float32((first & second).sum()) / np.float32((first | second).sum()))


def drawn(points: np.ndarray, width: int, height: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    x, y = (np.sign(points) * np.floor(np.abs(points.astype(np.float64)) + 0.5)).T
    last_x, last_y = np.roll(x, 1), np.roll(y, 1)
    sloped = y != last_y
    for row in range(height):
        met = sloped & (np.minimum(y, last_y) <= row) & (row <= np.maximum(y, last_y))
        marks = x[met] + (row - y[met]) / (last_y[met] - y[met]) * (last_x[met] - x[met])
        if met.any():
            start, stop = int(marks.min()), int(marks.max())  # a convex shape: one span
            if start < stop and stop >= 0:
                mask[row, max(start, 0) : stop + 1] = True
    return mask


if __name__ == "__main__":
    main()
