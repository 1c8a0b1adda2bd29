"""What a tracker is, and how one is made from a checkpoint."""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from config.errors import UserError, nearest
from config.registry import Registry
from config.settings import Settings
from ltr.admin.checkpoint_reader import Checkpoint, read_checkpoint

TRACKERS = Registry("tracker", "pysot_toolkit.trackers")


class Prediction(NamedTuple):
    """The answer for one frame."""

    bbox: np.ndarray  # float64 [4], (x, y, w, h) image px
    score: float  # how sure the tracker is; comparable within one tracker


class Tracker(ABC):
    """Follows one target: ``initialize`` on the first frame, then ``track`` frame by frame."""

    @classmethod
    @abstractmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, path: Path, settings: Settings, device: torch.device
    ) -> Tracker:
        """A tracker with the weights of ``checkpoint``, which was read from ``path``.

        ``settings.tracker`` overrides what the checkpoint or the defaults say.
        """

    @abstractmethod
    def initialize(self, image: np.ndarray, bbox: np.ndarray) -> None:
        """Take the target at ``bbox`` ``[4]`` (x, y, w, h px) in ``image``, RGB uint8 ``[H, W, 3]``."""

    @abstractmethod
    def track(self, image: np.ndarray) -> Prediction:
        """Locate the target in the next frame, RGB uint8 ``[H, W, 3]``."""


def build_tracker(
    arch: str, checkpoint: str | os.PathLike[str], settings: Settings, device: torch.device
) -> Tracker:
    """The tracker registered as ``arch`` with the weights of a checkpoint file, ours or a published one.

    Raises:
        UserError: unknown tracker, unreadable file, or weights of another network.
    """
    kind = TRACKERS.get(arch)
    return kind.from_checkpoint(read_checkpoint(checkpoint), Path(checkpoint), settings, device)


def tracker_args(kind: type[Tracker], settings: Settings, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """``defaults`` overridden by ``settings.tracker``.

    Raises:
        UserError: ``settings.tracker`` names something that the constructor of ``kind`` does not take.
    """
    signature = inspect.signature(kind)
    known = [name for name, p in signature.parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    for name in settings.tracker:
        if name not in known:
            raise UserError(
                f"setting 'tracker.{name}': no such argument of the tracker, {nearest(name, known)}"
            )
    return {**defaults, **settings.tracker}
