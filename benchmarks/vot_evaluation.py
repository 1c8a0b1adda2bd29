"""How fast VOT is evaluated: accuracy, robustness and expected average overlap of 60 videos (22,394 frames, the
longest of 1,553), 3 trackers, 15 repetitions that all differ. The baseline is the straightforward formulation, measured
on a video of one tracker and scaled up: overlaps frame by frame on filled rasters, fragments one by one, the curve
length by length; for reading, it is splitting lines.

    python -m benchmarks.vot_evaluation [--videos 60] [--frames 22394] [--repetitions 15] [--baseline 1]
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import Row, paired, scaled, table
from config.cli import Options, positive, run
from config.console import say
from pysot_toolkit.datasets.vot import VOT_TAGS, polygon_to_rectangle
from pysot_toolkit.evaluation.protocol import PROTOCOLS, Runs, Scores, SupervisedRun, Truth
from pysot_toolkit.evaluation.vot_results import parse_trajectory, read_supervised

TRACKERS = 3
IMAGE = (640, 480)
LONGEST = 1553
POLYGONS = 2  # the tracker that writes polygons; the others write rectangles
SKIP = 5  # frames from a failure to the restart
LOW, HIGH = 100, 356  # VOT2018


def main() -> None:
    """Print the table."""
    parser = Options(__doc__)
    parser.add_argument("--videos", type=positive, default=60)
    parser.add_argument("--frames", type=positive, default=22394, help="of all videos together")
    parser.add_argument("--repetitions", type=positive, default=15)
    parser.add_argument("--baseline", type=positive, default=1, help="videos the baseline is measured on")
    say(table(measure(**vars(parser.parse_args()))))


def measure(videos: int = 60, frames: int = 22394, repetitions: int = 15, baseline: int = 1) -> list[Row]:
    """Scoring three trackers whose files were read before, and parsing."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        truths = make_benchmark(root, videos, frames, repetitions)
        return _measure(root, truths, min(baseline, videos))


def _measure(root: Path, truths: list[Truth], sample: int) -> list[Row]:
    trackers = [read(root / f"tracker{k}", truths) for k in range(TRACKERS)]
    protocol = PROTOCOLS.get("pysot-vot2018")()

    def score(chosen: list[Truth], runs: list[Runs]) -> Scores:
        scores = {truth.name: protocol.score(truth, run) for truth, run in zip(chosen, runs)}
        protocol.by_attribute(scores, {})
        return protocol.summarise(list(scores.values()))

    # The videos whose lengths are closest to the mean, so that scaling by frames is fair.
    mean = np.mean([len(truth.bbox) for truth in truths])
    chosen = sorted(range(len(truths)), key=lambda k: abs(len(truths[k].bbox) - mean))[:sample]
    few = [truths[k] for k in chosen]
    supervised = [trackers[0][k].supervised or [] for k in chosen]
    got, want = score(few, [trackers[0][k] for k in chosen]), straightforward(few, supervised)
    for key, value in want.items():
        assert np.isclose(got.values[key], value, rtol=0, atol=1e-6, equal_nan=True), (
            f"{key}: the two sides disagree, {got.values[key]} and {value}"
        )
    scale = TRACKERS * sum(len(truth.bbox) for truth in truths) / sum(len(truth.bbox) for truth in few)
    ours, plain = paired(
        lambda: [score(truths, runs) for runs in trackers], lambda: straightforward(few, supervised), 2
    )
    rows = [Row("scoring 3 trackers", "s", ours, scaled(plain, scale))]

    folders = [root / "tracker0" / "baseline" / truth.name for truth in few]
    paths = [path for folder in folders for path in sorted(folder.glob("*.txt"))]
    texts = [path.read_bytes() for path in paths]
    lines = sum(text.count(b"\n") for text in texts)
    parsed, split = paired(
        lambda: [parse_trajectory(text) for text in texts], lambda: [split_lines(path) for path in paths]
    )
    return [
        *rows,
        Row("parsing a line of a result file", "us", scaled(parsed, 1e6 / lines), scaled(split, 1e6 / lines)),
    ]


def make_benchmark(root: Path, videos: int, frames: int, repetitions: int) -> list[Truth]:
    """Turned rectangles that wander and change size, with tags, and the results of three trackers."""
    random = np.random.Generator(np.random.PCG64(0))
    truths = []
    for number, length in enumerate(lengths(random, videos, frames)):
        polygon = wander(random, length)
        tags = {tag: (random.random(length) < 0.2).astype(np.int64) for tag in VOT_TAGS[: number % 6]}
        truths.append(
            Truth(f"video-{number:02d}", polygon_to_rectangle(polygon), None, None, IMAGE, "", polygon, tags)
        )
        for k in range(TRACKERS):
            folder = root / f"tracker{k}" / "baseline" / truths[-1].name
            folder.mkdir(parents=True)
            for repetition in range(1, repetitions + 1):
                lost = failures(random, length, (0.003, 0.01, 0.003)[k])
                text = result(random, polygon if k == POLYGONS else truths[-1].bbox, lost, 2.0 + 2 * k)
                (folder / f"{truths[-1].name}_{repetition:03d}.txt").write_text(text)
    return truths


def lengths(random: np.random.Generator, videos: int, frames: int) -> list[int]:
    """Uneven lengths that add up to ``frames``; the longest is ``LONGEST`` where that fits."""
    longest = min(LONGEST, frames)
    if videos == 1:
        return [frames]
    shares = random.gamma(2.0, size=videos - 1) + 0.2
    rest = np.floor(shares / shares.sum() * (frames - longest)).astype(int)
    rest[0] += frames - longest - rest.sum()
    return [longest, *rest.tolist()]


def wander(random: np.random.Generator, frames: int) -> np.ndarray:
    """Corners of a turned rectangle in each frame, float64 ``[frames, 8]`` px."""
    centre = np.cumsum(random.normal(0, 3, (frames, 2)), axis=0)
    span = np.array(IMAGE) - 120
    centre = 60 + np.abs((centre + random.uniform(0, span)) % (2 * span) - span)  # reflected at the border
    half = np.exp(np.cumsum(random.normal(0, 0.01, (frames, 2)), axis=0)) * random.uniform(12, 50, 2)
    half = np.clip(half, 8, 90)
    angle = np.cumsum(random.normal(0, 0.02, frames))
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1) * half[:, :1]
    across = np.stack([-np.sin(angle), np.cos(angle)], axis=1) * half[:, 1:]
    corners = [
        centre - along - across,
        centre + along - across,
        centre + along + across,
        centre - along + across,
    ]
    return np.concatenate(corners, axis=1).round(4)


def failures(random: np.random.Generator, frames: int, rate: float) -> list[int]:
    """Frames of failures, no two within ten frames."""
    found: list[int] = []
    for frame in (np.flatnonzero(random.random(frames) < rate)).tolist():
        if frame > (found[-1] + SKIP + 5 if found else 0):
            found.append(frame)
    return found


def result(random: np.random.Generator, regions: np.ndarray, lost: list[int], noise: float) -> str:
    """A result file: the regions moved about by ``noise`` px, failures, and restarts five frames behind them."""
    shift = np.tile(random.normal(0, noise, (len(regions), 2)), regions.shape[1] // 2)
    if regions.shape[1] == 4:
        shift[:, 2:] = random.normal(0, noise / 2, (len(regions), 2))
        regions = np.concatenate([regions[:, :2], np.maximum(regions[:, 2:], 2 * noise + 4)], axis=1)
    lines = [",".join(f"{number:.4f}" for number in row) for row in (regions + shift).tolist()]
    lines[0] = "1"
    for frame in lost:
        lines[frame : frame + SKIP + 1] = ["2", *["0"] * (SKIP - 1), "1"][: len(lines) - frame]
    return "\n".join(lines) + "\n"


def read(folder: Path, truths: list[Truth]) -> list[Runs]:
    found = []
    for truth in truths:
        runs, faults = read_supervised(folder, [truth.name], len(truth.bbox))
        assert runs is not None and not faults, faults
        found.append(runs)
    return found


def straightforward(
    truths: list[Truth], trackers: list[list[SupervisedRun]], low: int = LOW, high: int = HIGH, tag: str = ""
) -> dict[str, float]:
    """The definition, one frame, one fragment and one length at a time.

    Args:
        truths: with polygons.
        trackers: the repetitions of each sequence.
        low, high: lengths between which the curve is averaged.
        tag: weighs fragments by its frames; "": all frames.
    """
    accuracy: list[float] = []
    fragments: list[tuple[list[float], float]] = []
    lost = total = 0.0
    longest = max(len(truth.bbox) for truth in truths)
    for truth, runs in zip(truths, trackers):
        target, frames = truth.polygon.tolist(), len(truth.bbox)
        tagged = truth.tags[tag].tolist() if tag else [1] * frames
        counted = []
        for repetition in runs:
            code = repetition.code.tolist()
            rows = zip(repetition.regions.values.tolist(), repetition.regions.length.tolist())
            regions = [row[:size] for row, size in rows]
            pairs = list(zip(target, regions, code))
            wide = [overlap(g, r, truth.image_size) if c == 3 else math.nan for g, r, c in pairs]
            for frame, c in enumerate(code):
                if c == 1:
                    wide[frame : frame + 10] = [math.nan] * len(wide[frame : frame + 10])
            counted.append(wide)
            bounds = (truth.image_size[0] - 1, truth.image_size[1] - 1)
            overlaps = [overlap(g, r, bounds) if c == 3 else math.nan for g, r, c in pairs]
            broken = [frame for frame, c in enumerate(code) if c == 2]
            lost += len(broken) / len(runs)
            points = [0] + [frame + SKIP for frame in broken if frame + SKIP <= frames]
            for k, start in enumerate(points):
                ended = k + 1 < len(points)
                stop = points[k + 1] + 1 if ended else frames
                if start == stop:
                    continue
                part = [0.0 if broken and math.isnan(o) else o for o in overlaps[start:stop]]
                if ended:
                    part += [0.0] * (longest - len(part))
                fragments.append((part, sum(tagged[start:stop]) / (stop - start)))
        for column in zip(*counted):
            known = [o for o in column if not math.isnan(o)]
            accuracy += [sum(known) / len(known)] if known else []
        total += frames
    curve = [1.0]
    for i in range(1, longest):
        defined = [(sum(part[1 : i + 1]) / i, weight) for part, weight in fragments if len(part) > i]
        weights = sum(weight for _, weight in defined)
        mean = sum(o * weight for o, weight in defined) / weights if weights else math.nan
        curve.append(mean if defined else 0.0)
    interval = [value for value in curve[low - 1 : high] if not math.isnan(value)]
    return {
        "eao": sum(interval) / len(interval) if interval else math.nan,
        "accuracy": sum(accuracy) / len(accuracy) if accuracy else math.nan,
        "robustness": 100 * lost / total,
        "lost": lost,
    }


def overlap(first: list[float], second: list[float], bounds: tuple[int, int]) -> float:
    """VOT's raster overlap: both regions are filled pixel row by pixel row."""
    polygons = [np.array(corners(region), np.float32) for region in (first, second)]
    low = np.array([np.maximum(np.floor(p.min(0)), 0) for p in polygons])
    high = np.array([np.minimum(np.ceil(p.max(0)), bounds) for p in polygons])
    common = np.prod(np.minimum(*high) - np.maximum(*low))
    areas = np.prod(high - low, axis=1)
    if common / (areas.sum() - common) <= 0:
        return 0.0
    origin = low.min(0)
    width, height = (np.trunc(high.max(0) - origin) + 1).astype(int)
    masks = [filled(p - origin, width, height) for p in polygons]
    either = (masks[0] | masks[1]).sum()
    return float(np.float32((masks[0] & masks[1]).sum()) / np.float32(either)) if either else math.nan


def corners(region: list[float]) -> list[tuple[float, float]]:
    if len(region) == 4:
        x, y, w, h = np.array(region, np.float32)
        return [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
    return list(zip(region[0::2], region[1::2]))


def filled(polygon: np.ndarray, width: int, height: int) -> np.ndarray:
    points = np.copysign(np.floor(np.abs(polygon) + 0.5), polygon).tolist()
    mask = np.zeros((height, width), bool)
    for row in range(height):
        met = []
        for (x1, y1), (x2, y2) in zip(points, points[-1:] + points[:-1]):
            if y1 != y2 and min(y1, y2) <= row <= max(y1, y2):
                met.append(int(x1 + (row - y1) / (y2 - y1) * (x2 - x1)))
        met.sort()
        k = 0
        while k + 1 < len(met):
            if met[k] == met[k + 1]:
                k += 1
                continue
            mask[row, max(met[k], 0) : max(min(met[k + 1], width - 1) + 1, 0)] = True
            k += 2
    return mask


def split_lines(path: Path) -> list[list[float]]:
    with open(path) as file:
        return [list(map(float, line.strip().split(","))) for line in file]


if __name__ == "__main__":
    run(main)
