"""A tracker without a network for the VOT toolkit; run as a file it serves itself over TraX."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from pysot_toolkit.testing.vot_client import serve


class Drifting:
    """Loses its target twice, drifting to the right faster than it moves; after the third start its box stays and
    grows, so that the last fragment is long enough for every part of the toolkit's scores. Then all over again.
    """

    def __init__(self) -> None:
        self.starts = 0

    def initialize(self, image: np.ndarray, bbox: np.ndarray) -> None:
        self.bbox, self.frames = np.asarray(bbox, np.float64), 0
        self.starts += 1

    def track(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        self.frames += 1
        change = (-1.5, -1.2, 3.0, 2.4) if self.starts % 3 == 0 else (15.0, 0.0, 0.0, 0.0)
        self.bbox = self.bbox + np.array(change)
        return self.bbox, 1 / (1 + self.frames % 7 + 0.01 * self.frames)


if __name__ == "__main__":
    serve(Drifting(), "drifting")
