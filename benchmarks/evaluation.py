"""How fast a benchmark is evaluated: 280 videos of 2,500 frames, 3 trackers, all three one-pass curves.

The baseline is the straightforward formulation, measured in the same run on a few videos and scaled
up: each curve reads the result file again, line by line, and counts the frames threshold by
threshold. Both sides use one process and one thread; seconds are CPU seconds.

    python benchmarks/evaluation.py [--videos 280] [--frames 2500] [--baseline 8]
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

import numpy as np
import orjson

from config.environment import load_settings
from pysot_toolkit.datasets.text import parse_table
from pysot_toolkit.evaluation.evaluate import evaluate
from pysot_toolkit.evaluation.ope import NORM_PRECISION_THRESHOLDS, PRECISION_THRESHOLDS, SUCCESS_THRESHOLDS

TRACKERS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=280)
    parser.add_argument("--frames", type=int, default=2500)
    parser.add_argument("--baseline", type=int, default=8, help="videos the baseline is measured on")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        truth = make_benchmark(root, options.videos, options.frames)
        measure(root, truth, options.videos, options.frames, min(options.baseline, options.videos))


def measure(root: Path, truth: dict[str, np.ndarray], videos: int, frames: int, sample: int) -> None:
    settings = load_settings(["paths.test.OTB100", str(root / "OTB100"), "paths.var", str(root)])
    ours, report = timed(lambda: evaluate(settings, "OTB100", results=root / "results"))

    paths = [
        root / "results" / "OTB100" / f"tracker{k}" / f"{name}.txt"
        for name in list(truth)[:sample]
        for k in range(TRACKERS)
    ]
    plain, curves = timed(lambda: [straightforward(truth[path.stem], path) for path in paths])
    for path, want in zip(paths, curves):
        got = report.scores["pysot-ope"][path.parent.name].sequences[path.stem].curves
        assert all(np.allclose(got[key], want[key], atol=1e-12) for key in want), (
            f"{path}: the two sides disagree"
        )

    lines, _ = timed(lambda: [split_lines(path) for path in paths], repeat=5)
    fast, _ = timed(lambda: [parse_table(path.read_bytes()) for path in paths], repeat=5)
    scale = videos / sample
    print(
        f"{videos} videos x {frames} frames x {TRACKERS} trackers, success + precision + normalised precision, 1 process"
    )
    print(f"  ours, annotation JSON included        {ours:7.2f} s")
    print(
        f"  per line and per threshold            {plain * scale:7.2f} s  ({plain:.2f} s on {sample} videos, scaled x{scale:g})"
    )
    print(f"  ratio                                 {plain * scale / ours:7.1f}x")
    per_file = 1e3 / len(paths)
    print(f"reading one result file of {frames} lines")
    print(f"  ours                                  {fast * per_file:7.2f} ms")
    print(f"  splitting lines                       {lines * per_file:7.2f} ms")
    print(f"  ratio                                 {lines / fast:7.1f}x  (target 4x)")


def make_benchmark(root: Path, videos: int, frames: int) -> dict[str, np.ndarray]:
    """Random walks as ground truth (pysot JSON) and three noisy trackers; returns the true boxes."""
    random = np.random.Generator(np.random.PCG64(0))
    truth: dict[str, np.ndarray] = {}
    table = {}
    for number in range(videos):
        name = f"video-{number:03d}"
        walk = np.cumsum(random.normal(0, 3, (frames, 2)), axis=0) + 300
        boxes = np.concatenate([walk, random.uniform(20, 80, (frames, 2))], axis=1).round(2)
        truth[name] = boxes
        images = [f"{name}/img/{frame:08d}.jpg" for frame in range(1, frames + 1)]
        table[name] = {
            "img_names": images,
            "gt_rect": boxes.tolist(),
            "attr": ["FM"] if number % 3 else ["SV"],
        }
        for k in range(TRACKERS):
            path = root / "results" / "OTB100" / f"tracker{k}" / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savetxt(path, boxes + random.normal(0, 2 + 5 * k, boxes.shape), fmt="%.4f", delimiter=",")
    (root / "OTB100").mkdir()
    (root / "OTB100" / "OTB100.json").write_bytes(orjson.dumps(table))
    return truth


def straightforward(truth: np.ndarray, path: Path) -> dict[str, list[float]]:
    """The three curves of one video; each reads the file and goes through the thresholds."""
    total = len(truth)
    overlaps = _overlaps(truth, split_lines(path))
    success = [np.sum(overlaps > threshold) / total for threshold in SUCCESS_THRESHOLDS]
    errors = _centre_errors(truth, split_lines(path), np.ones(2))
    precision = [np.sum(errors <= threshold) / total for threshold in PRECISION_THRESHOLDS]
    errors = _centre_errors(truth, split_lines(path), truth[:, 2:] + 1e-16)
    norm_precision = [np.sum(errors <= threshold) / total for threshold in NORM_PRECISION_THRESHOLDS]
    return {"success": success, "precision": precision, "norm_precision": norm_precision}


def split_lines(path: Path) -> np.ndarray:
    with open(path) as file:
        return np.array([list(map(float, line.strip().split(","))) for line in file])


def _overlaps(truth: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    left_top = np.maximum(truth[:, :2], boxes[:, :2])
    right_bottom = np.minimum(truth[:, :2] + truth[:, 2:], boxes[:, :2] + boxes[:, 2:])
    inner = np.maximum(right_bottom - left_top, 0).prod(axis=1)
    return np.clip(inner / (truth[:, 2:].prod(axis=1) + boxes[:, 2:].prod(axis=1) - inner), 0, 1)


def _centre_errors(truth: np.ndarray, boxes: np.ndarray, unit: np.ndarray) -> np.ndarray:
    true_centre = (truth[:, :2] + (truth[:, 2:] - 1) / 2) / unit
    errors = np.sqrt((((boxes[:, :2] + (boxes[:, 2:] - 1) / 2) / unit - true_centre) ** 2).sum(axis=1))
    return np.where((true_centre > 0).all(axis=1), errors, -1.0)


def timed(work: Callable[[], object], repeat: int = 1):
    """Median CPU seconds of this process, which other load changes least, and the last outcome."""
    seconds, outcome = [], None
    for _ in range(repeat):
        start = time.process_time()
        outcome = work()
        seconds.append(time.process_time() - start)
    return float(np.median(seconds)), outcome


if __name__ == "__main__":
    main()
