"""What a tracker is, and how one is made from a checkpoint."""

from __future__ import annotations

import copy
import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from torch import nn

from config.errors import UserError, nearest
from config.registry import Registry
from config.settings import Settings
from ltr.admin.checkpoint_reader import Checkpoint, read_checkpoint

TRACKERS = Registry("tracker", "pysot_toolkit.trackers")

_PRECISIONS = ("float32", "bfloat16")

T = TypeVar("T")


# Crops per call of a network on the CPU. More gain nothing there and leave its caches (benchmarks/batch_testing.py).
_ON_CPU = 2


class Prediction(NamedTuple):
    """The answer for one frame."""

    bbox: np.ndarray  # float64 [4], (x, y, w, h) image px
    score: float  # how sure the tracker is; comparable within one tracker
    lost: bool = False  # the tracker itself says that it has lost the target, where it can tell


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


class BatchTracker(Tracker):
    """A tracker whose frame has three parts, the middle one of which serves many targets at once.

    The targets are those of twins (see ``twin``): trackers with one network, each with a state of its own.

    Attributes:
        device: where the network runs.
    """

    device: torch.device

    @abstractmethod
    def crop(self, image: np.ndarray) -> Any:
        """What the network is to see of the next frame: an array, uint8 ``[S, S, 3]`` for most trackers.

        It may be anything on the host whose ``shape`` tells which crops can be seen together.
        It changes nothing, and is called from any thread.
        """

    @abstractmethod
    def locate(self, twins: Sequence[Any], crops: Sequence[Any]) -> Sequence[Any] | np.ndarray:
        """What the network says of crops of one shape, in one call: for each what its twin's ``move`` takes.

        It changes nothing, of the twins neither.

        Args:
            twins: B trackers with this one's network, it may be among them.
            crops: theirs, in that order.
        """

    @abstractmethod
    def move(self, found: Any, width: int, height: int) -> Prediction:
        """Move the target to where the network has found it, and answer.

        Args:
            found: what ``locate`` says of this tracker's crop.
            width: of the image, px.
            height: of the image, px.
        """

    def track(self, image: np.ndarray) -> Prediction:
        """See ``Tracker.track``."""
        found = self.locate([self], [self.crop(image)])
        return self.move(found[0], image.shape[1], image.shape[0])


def in_calls(crops: Sequence[Any], device: torch.device) -> list[list[int]]:
    """Which of the crops, by number, a network on ``device`` is to see in one call: of one shape, and not too many."""
    groups: dict[Any, list[int]] = {}
    for number, one in enumerate(crops):
        groups.setdefault(one.shape, []).append(number)
    most = _ON_CPU if device.type == "cpu" else max(len(crops), 1)
    return [group[first : first + most] for group in groups.values() for first in range(0, len(group), most)]


def track_together(trackers: Sequence[Tracker], image: np.ndarray) -> list[Prediction]:
    """What a tracker and its twins say of one frame, RGB uint8 ``[H, W, 3]``, in few calls of the network."""
    leader = trackers[0]
    if len(trackers) == 1 or not isinstance(leader, BatchTracker):
        return [tracker.track(image) for tracker in trackers]
    twins = cast(Sequence[BatchTracker], trackers)
    crops = [each.crop(image) for each in twins]
    found: dict[int, Any] = {}
    for group in in_calls(crops, leader.device):
        located = leader.locate([twins[n] for n in group], [crops[n] for n in group])
        found |= zip(group, located)
    return [each.move(found[n], image.shape[1], image.shape[0]) for n, each in enumerate(twins)]


def twin(tracker: T) -> T:
    """A tracker with the networks of ``tracker``, which has not been started, and a state of its own."""
    shared = {id(part): part for part in vars(tracker).values() if isinstance(part, nn.Module)}
    return copy.deepcopy(tracker, shared)


def build_tracker(
    arch: str, checkpoint: str | os.PathLike[str], settings: Settings, device: torch.device
) -> Tracker:
    """The tracker registered as ``arch`` with the weights of a checkpoint file, ours or a published one.

    Raises:
        UserError: unknown tracker, unreadable file, or weights of another network.
    """
    kind = TRACKERS.get(arch)
    return kind.from_checkpoint(read_checkpoint(checkpoint), Path(checkpoint), settings, device)


def initial_box(bbox: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The box to start from, float64 ``[4]``, a copy.

    Args:
        bbox: (x, y, w, h) px.
        image: ``[H, W, 3]``, the frame it is given in.

    Raises:
        UserError: it is no (x, y, w, h) with an area, or none of it lies in the image.
    """
    box = np.array(bbox, np.float64)
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= 0).any():
        raise UserError(
            f"initial box {box.tolist()}: is no box (x, y, w, h) with an area; mend the annotation"
        )
    height, width = image.shape[:2]
    if (box[:2] + box[2:] <= 0).any() or box[0] >= width or box[1] >= height:
        raise UserError(
            f"initial box {box.tolist()}: lies outside the image of {width} x {height} px; mend the annotation"
        )
    return box


def checked_precision(precision: str) -> str:
    """``precision`` itself.

    Raises:
        UserError: it is neither float32 nor bfloat16.
    """
    if precision not in _PRECISIONS:
        raise UserError(f"setting 'tracker.precision' is '{precision}': {nearest(precision, _PRECISIONS)}")
    return precision


def inference_autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context a network of that precision is called in."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


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
