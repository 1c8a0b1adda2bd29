"""Trackers without a network, and a command that puts them at the queue (also under ``mpiexec``).

python tests/testing/fakes.py KIND DATASET: KIND "still" repeats the first box; "fails-NAME" cannot follow
the sequence NAME; "bug-NAME" has a programming error there; "kills" its process there; "slow" waits at each frame.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from config.cli import Parser, run
from pysot_toolkit.datasets.benchmarks import open_benchmark
from pysot_toolkit.testing.queue import Candidate, report, run_queue
from pysot_toolkit.testing.ranks import one_voice


class Still:
    """Answers with the first box, one pixel further right at each frame."""

    def __init__(self, kind: str = "still", pause: float = 0.0) -> None:
        self.kind, self.pause = kind, pause

    def initialize(self, image: np.ndarray, bbox: np.ndarray) -> None:
        self.bbox = bbox

    def track(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        time.sleep(self.pause)
        if self.kind == "fails" and image.shape[:2] == (360, 640):  # DragonBaby alone has this size
            raise RuntimeError("out of memory")
        if self.kind == "bug" and image.shape[:2] == (360, 640):
            raise TypeError("a mistake in the tracker")
        if self.kind == "kills" and image.shape[:2] == (360, 640):
            os.kill(os.getpid(), signal.SIGKILL)
        self.bbox = self.bbox + np.array([1, 0, 0, 0])
        return self.bbox, 0.5


def build(arch: str, checkpoint: Path, settings: object, device: object) -> Still:
    """Makes the tracker that ``arch`` names."""
    return Still(arch, 0.02 if arch == "slow" else 0.0)


def main() -> int:
    parser = Parser("Put a fake tracker at the queue.")
    parser.add_argument("kind")
    parser.add_argument("dataset")
    parser.add_argument("checkpoints", nargs="+", type=Path)
    options, settings = parser.parse()
    outcome = run_queue(
        lambda: [Candidate(path.stem, path) for path in options.checkpoints],
        lambda: open_benchmark(options.dataset, settings),
        options.dataset,
        options.kind,
        settings,
        build=build,
    )
    return report(outcome, options.dataset, settings) if outcome.speaks else 0


if __name__ == "__main__":
    run(one_voice(main))
