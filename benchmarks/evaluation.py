"""How fast a benchmark is evaluated: 280 videos of 2,500 frames, 3 trackers, all three one-pass curves.

Reading, scoring, the share of work that a second process takes over, and memory are measured apart. Baselines
run on a few videos in the same process and are scaled up: splitting lines in Python for reading, and
for scoring numpy on the rows of the boxes, threshold by threshold. Seconds are CPU seconds of one
thread unless they are called elapsed.

    python benchmarks/evaluation.py [--videos 280] [--frames 2500] [--baseline 8]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import orjson

from config.environment import load_settings
from pysot_toolkit.datasets.text import parse_table
from pysot_toolkit.evaluation.evaluate import evaluate
from pysot_toolkit.evaluation.ope import NORM_PRECISION_THRESHOLDS, PRECISION_THRESHOLDS, SUCCESS_THRESHOLDS
from pysot_toolkit.evaluation.protocol import PROTOCOLS, Runs, Scores, Truth
from pysot_toolkit.evaluation.report import Report

TRACKERS = [f"tracker{k}" for k in range(3)]
TARGET = 11 / 20  # s: pysot's toolkit needs 11 CPU seconds for 280 videos, and reads every file three times
_MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=280)
    parser.add_argument("--frames", type=int, default=2500)
    parser.add_argument("--baseline", type=int, default=8, help="videos the baselines are measured on")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        truth = make_benchmark(root, options.videos, options.frames)
        size = f"{options.videos} videos x {options.frames} frames x {len(TRACKERS)} trackers"
        print(f"{size}, success + precision + normalised precision")
        sample = list(truth)[: options.baseline]
        measure_reading(root, sample)
        measure_scoring(root, truth, sample)
        measure_processes(root, options.videos)
        measure_memory(root, truth)


def measure_reading(root: Path, sample: list[str]) -> None:
    paths = [result_path(root, tracker, name) for name in sample for tracker in TRACKERS]
    ours, _ = timed(lambda: [parse_table(path.read_bytes()) for path in paths], repeat=5)
    plain, _ = timed(lambda: [split_lines(path) for path in paths], repeat=5)
    print("reading one result file")
    print(f"  ours                        {1e3 * ours / len(paths):8.2f} ms")
    print(f"  splitting lines             {1e3 * plain / len(paths):8.2f} ms")
    print(f"  ratio                       {plain / ours:8.1f}x  (target 4x)")


def measure_scoring(root: Path, truth: dict[str, np.ndarray], sample: list[str]) -> None:
    """All files are read before the clock starts."""
    protocol = PROTOCOLS.get("pysot-ope")()
    boxes = {
        (tracker, name): parse_table(result_path(root, tracker, name).read_bytes())
        for name in truth
        for tracker in TRACKERS
    }

    def score() -> dict[tuple[str, str], Scores]:
        scores = {key: protocol.score(Truth(key[1], truth[key[1]]), Runs([boxes[key]])) for key in boxes}
        for tracker in TRACKERS:
            protocol.summarise([scores[tracker, name] for name in truth])
        return scores

    keys = [(tracker, name) for name in sample for tracker in TRACKERS]
    ours, scores = timed(score, repeat=5)
    plain, curves = timed(lambda: [straightforward(truth[key[1]], boxes[key]) for key in keys], repeat=5)
    for key, want in zip(keys, curves):
        got = scores[key].curves
        assert all(np.allclose(got[name], want[name], atol=1e-12) for name in want), f"{key}: they disagree"
    scaled = plain * len(boxes) / len(keys)
    print("scoring all that was read")
    print(f"  ours                        {ours:8.3f} s  (target {TARGET:.2f} s)")
    print(f"  threshold by threshold      {scaled:8.3f} s  ({plain:.3f} s for {len(sample)} videos, scaled)")
    print(f"  ratio                       {scaled / ours:8.1f}x")


def measure_processes(root: Path, videos: int) -> None:
    """From files to the report, under every protocol that can score boxes."""
    print("from files to the report, every protocol")
    elapsed = []
    for processes in (1, 2):
        before, start = workers_seconds(), time.perf_counter()
        own, report = timed(
            lambda n=processes: run(root, "OTB100", TRACKERS, protocols=("all",), processes=n)
        )
        elapsed.append(time.perf_counter() - start)
        assert all(report.usable(tracker) == videos for tracker in TRACKERS)
        shares = f"{own:.2f} s CPU, in workers {workers_seconds() - before:.2f} s"
        print(f"  --num {processes}                     {elapsed[-1]:8.2f} s elapsed  ({shares})")
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"  ratio                       {elapsed[0] / elapsed[1]:8.2f}x  ({cores} cores, load {load:.1f})")


def workers_seconds() -> float:
    """CPU seconds of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure_memory(root: Path, truth: dict[str, np.ndarray]) -> None:
    """What results add to the peak of a process that has evaluated the benchmark without any.

    The annotation is in LaSOT's folders here: the peak of parsing one large JSON file would hide the rest.
    """
    for name, boxes in truth.items():
        folder = root / "LaSOT" / name
        folder.mkdir(parents=True)
        (folder / "groundtruth.txt").write_text(as_lines(boxes))
        for flags in ("full_occlusion", "out_of_view"):
            (folder / f"{flags}.txt").write_text(",".join("0" * len(boxes)))
    (root / "results" / "LaSOT").symlink_to(root / "results" / "OTB100")
    (root / "results" / "OTB100" / "nothing").mkdir()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        without, with_results = pool.submit(_peaks, root).result()
    files = [result_path(root, tracker, name) for name in truth for tracker in TRACKERS]
    everything = sum(path.stat().st_size for path in files) + len(files) * next(iter(truth.values())).nbytes
    more = (with_results - without) / _MIB
    print("peak memory of one process")
    print(f"  without results             {without / _MIB:8.1f} MiB")
    print(f"  with results                {with_results / _MIB:8.1f} MiB, {more:.1f} MiB more")
    print(f"  files and boxes, all videos {everything / _MIB:8.1f} MiB")
    print(f"  files and boxes, one video  {everything / len(truth) / _MIB:8.1f} MiB")


def _peaks(root: Path) -> tuple[int, int]:
    """Bytes, after evaluating a tracker without results and after evaluating all that have some."""
    peaks = []
    for trackers in (["nothing"], TRACKERS):
        run(root, "LaSOT", trackers, protocols=("pysot-ope",), allow_missing=True)
        # not ru_maxrss: that of a new process begins with what its parent held
        status = Path("/proc/self/status").read_text()
        peaks.append(int(status.partition("VmHWM:")[2].split()[0]) * 1024)
    return peaks[0], peaks[1]


def run(root: Path, dataset: str, trackers: list[str], **more: Any) -> Report:
    settings = load_settings([f"paths.test.{dataset}", str(root / dataset), "paths.var", str(root)])
    return evaluate(settings, dataset, trackers=trackers, results=root / "results", **more)


def as_lines(boxes: np.ndarray) -> str:
    return "%.4f,%.4f,%.4f,%.4f\n" * len(boxes) % tuple(boxes.ravel())


def result_path(root: Path, tracker: str, name: str) -> Path:
    return root / "results" / "OTB100" / tracker / f"{name}.txt"


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
        for k, tracker in enumerate(TRACKERS):
            noisy = boxes + random.normal(0, 2 + 5 * k, boxes.shape)
            noisy[:, 2:] = np.maximum(noisy[:, 2:], 1)
            path = result_path(root, tracker, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(as_lines(noisy))
    (root / "OTB100").mkdir()
    (root / "OTB100" / "OTB100.json").write_bytes(orjson.dumps(table))
    return truth


def straightforward(truth: np.ndarray, boxes: np.ndarray) -> dict[str, list[float]]:
    """The three curves of one video, a threshold at a time."""
    total = len(truth)
    overlaps = _overlaps(truth, boxes)
    success = [np.sum(overlaps > threshold) / total for threshold in SUCCESS_THRESHOLDS]
    errors = _centre_errors(truth, boxes, np.ones(2))
    precision = [np.sum(errors <= threshold) / total for threshold in PRECISION_THRESHOLDS]
    errors = _centre_errors(truth, boxes, truth[:, 2:] + 1e-16)
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


def timed(work: Callable[[], Any], repeat: int = 1) -> tuple[float, Any]:
    """Median CPU seconds of this process, which other load changes least, and the last outcome."""
    seconds, outcome = [], None
    for _ in range(repeat):
        start = time.process_time()
        outcome = work()
        seconds.append(time.process_time() - start)
    return float(np.median(seconds)), outcome


if __name__ == "__main__":
    main()
