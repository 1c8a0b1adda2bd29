"""A tracker of ours inside the official ``got10k`` package (github.com/got-10k/toolkit).

Importing this module imports the package, which is no dependency of the project.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from config.errors import UserError
from pysot_toolkit.testing.one_pass import OnePassTracker

try:
    from got10k.trackers import Tracker
except ImportError as error:
    raise UserError(f"the got10k package cannot be imported ({error}); pip install got10k") from error

if TYPE_CHECKING:
    from PIL import Image


class Got10kTracker(Tracker):
    """What ``ExperimentGOT10k(...).run`` takes; its results lie in ``{result_dir}/GOT-10k/{name}``.

    Our trackers are deterministic, so that the package runs each sequence once instead of three times.

    Args:
        name: of the folder of results.
        tracker: any of ``pysot_toolkit.trackers``, or what has the same two methods.
    """

    def __init__(self, name: str, tracker: OnePassTracker) -> None:
        super().__init__(name, is_deterministic=True)
        self._tracker = tracker

    def init(self, image: Image.Image, box: np.ndarray) -> None:
        """Start on the target at ``box`` ``[4]`` (x, y, w, h px)."""
        self._tracker.initialize(_pixels(image), np.array(box, np.float64))

    def update(self, image: Image.Image) -> np.ndarray:
        """The box (x, y, w, h px) in the next frame, ``[4]``."""
        bbox, *_ = self._tracker.track(_pixels(image))
        return bbox


def _pixels(image: Image.Image) -> np.ndarray:
    """RGB uint8 ``[H, W, 3]``, writable; most experiments of the package convert, the one of VOT does not."""
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
