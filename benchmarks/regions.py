"""How fast VOT's raster overlap is: a polygon per frame against 15 repetitions of rectangles. The baseline is the
definition taken at its word, for one pair after the other: both shapes are drawn into a mask of their common window,
row by row, and the masks are compared. It is measured on some of the pairs and must agree exactly.

    python -m benchmarks.regions [--frames 373] [--extent 90] [--baseline 150]
"""

from __future__ import annotations

import numpy as np

from benchmarks import Row, paired, scaled, table, timed
from config.cli import Options, positive, run
from config.console import say
from pysot_toolkit.evaluation.protocol import Regions
from pysot_toolkit.evaluation.regions import VotRaster, exact_overlaps, regions_of, vot_overlaps

REPETITIONS = 15
SIZE = (640, 480)


def main() -> None:
    """Print the table."""
    parser = Options(__doc__)
    parser.add_argument("--frames", type=positive, default=373)
    parser.add_argument("--extent", type=positive, default=90, help="mean width of the target in px")
    parser.add_argument(
        "--baseline", type=positive, default=150, help="pairs that the baseline is measured on"
    )
    say(table(measure(**vars(parser.parse_args()))))


def measure(frames: int = 373, extent: float = 90, baseline: int = 150) -> list[Row]:
    """Microseconds per pair of regions, by kind."""
    truth, predictions = make_video(frames, extent)
    sample = min(baseline, frames)
    raster = VotRaster(truth, SIZE)

    def drawn_pairs() -> list[float]:
        return [drawn_overlap(*pair) for pair in zip(truth.values[:sample], predictions[0].values)]

    overlaps = raster.overlaps_many(predictions)
    assert (overlaps[0][:sample] == drawn_pairs()).all(), "the two sides disagree"
    each, few = 1e6 / frames, 1e6 / sample
    times = len(predictions)
    many, plain = paired(lambda: raster.overlaps_many(predictions), drawn_pairs)
    once, plainly = paired(lambda: vot_overlaps(truth, predictions[0], SIZE), drawn_pairs)
    rows = [
        Row(f"rectangles of {times} repetitions", "us", scaled(many, each / times), scaled(plain, few)),
        Row("rectangles, a truth used once", "us", scaled(once, each), scaled(plainly, few)),
    ]
    others = {
        "polygon and polygon": lambda: vot_overlaps(truth, truth, SIZE),
        "rectangles, exact areas": lambda: exact_overlaps(truth, predictions[0], SIZE),
    }
    for name, work in others.items():
        rows.append(Row(name, "us", scaled([timed(work)[0] for _ in range(3)], each)))
    return rows


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
    run(main)
