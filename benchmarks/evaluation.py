"""How fast a benchmark is evaluated: 280 videos of 2,500 frames, 3 trackers, all three one-pass curves. Baselines run
on a few of the videos and are scaled up: splitting lines in Python for reading, and for scoring numpy on the rows of
the boxes, threshold by threshold.

The work that a second process takes over is measured in elapsed time, and memory as what results add to the peak of
a process that evaluates the benchmark without any, against all files and boxes together.

    python -m benchmarks.evaluation [--videos 280] [--frames 2500] [--baseline 8]
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks import Row, paired, scaled, table
from config.cli import Options, positive, run
from config.console import say
from config.environment import load_settings
from pysot_toolkit.datasets.text import parse_table
from pysot_toolkit.evaluation.evaluate import evaluate
from pysot_toolkit.evaluation.ope import NORM_PRECISION_THRESHOLDS, PRECISION_THRESHOLDS, SUCCESS_THRESHOLDS
from pysot_toolkit.evaluation.protocol import PROTOCOLS, Runs, Scores, Truth
from pysot_toolkit.evaluation.report import Report

TRACKERS = [f"tracker{k}" for k in range(3)]
LIMIT = 11 / 20  # s: pysot's toolkit needs 11 CPU seconds for 280 videos, and reads every file three times
_MIB = 2**20


def main() -> None:
    """Print the table."""
    parser = Options(__doc__)
    parser.add_argument("--videos", type=positive, default=280)
    parser.add_argument("--frames", type=positive, default=2500)
    parser.add_argument("--baseline", type=positive, default=8, help="videos the baselines are measured on")
    say(table(measure(**vars(parser.parse_args()))))


def measure(videos: int = 280, frames: int = 2500, baseline: int = 8) -> list[Row]:
    """Reading, scoring, processes, memory."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        truth = make_benchmark(root, videos, frames)
        sample = list(truth)[:baseline]
        return [
            measure_reading(root, sample),
            measure_scoring(root, truth, sample),
            measure_processes(root, videos),
            measure_memory(root, truth),
        ]


def measure_reading(root: Path, sample: list[str]) -> Row:
    """One result file."""
    paths = [result_path(root, tracker, name) for name in sample for tracker in TRACKERS]
    ours, plain = paired(
        lambda: [parse_table(path.read_bytes()) for path in paths],
        lambda: [split_lines(path) for path in paths],
    )
    each = 1e3 / len(paths)
    return Row("reading one result file", "ms", scaled(ours, each), scaled(plain, each), target=4)


def measure_scoring(root: Path, truth: dict[str, np.ndarray], sample: list[str]) -> Row:
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

    def plainly() -> list[dict[str, list[float]]]:
        return [straightforward(truth[key[1]], boxes[key]) for key in keys]

    scores = score()
    for key, want in zip(keys, plainly()):
        got = scores[key].curves
        assert all(np.allclose(got[name], want[name], atol=1e-12) for name in want), f"{key}: they disagree"
    ours, plain = paired(score, plainly, 3)
    return Row("scoring all that was read", "s", ours, scaled(plain, len(boxes) / len(keys)), limit=LIMIT)


def measure_processes(root: Path, videos: int) -> Row:
    """From files to the report, under every protocol that can score boxes."""

    def evaluated(processes: int) -> None:
        report = run_evaluation(root, "OTB100", TRACKERS, protocols=("all",), processes=processes)
        assert all(report.usable(tracker) == videos for tracker in TRACKERS)

    ours, plain = paired(lambda: evaluated(2), lambda: evaluated(1), 2, time.perf_counter)
    return Row("files to report, all protocols: 2 processes against 1, elapsed", "s", ours, plain)


def measure_memory(root: Path, truth: dict[str, np.ndarray]) -> Row:
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
    # A peak is measured in pages and depends on what was freed when: less than one MiB is none.
    more = max(with_results - without, _MIB)
    return Row("memory that results take", "MiB", [more / _MIB], [everything / _MIB])


def _peaks(root: Path) -> tuple[int, int]:
    """Bytes, after evaluating a tracker without results and after evaluating all that have some."""
    peaks = []
    for trackers in (["nothing"], TRACKERS):
        run_evaluation(root, "LaSOT", trackers, protocols=("pysot-ope",), allow_missing=True)
        # not ru_maxrss: that of a new process begins with what its parent held
        status = Path("/proc/self/status").read_text()
        peaks.append(int(status.partition("VmHWM:")[2].split()[0]) * 1024)
    return peaks[0], peaks[1]


def run_evaluation(root: Path, dataset: str, trackers: list[str], **more: Any) -> Report:
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


if __name__ == "__main__":
    run(main)
