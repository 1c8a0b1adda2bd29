"""The DiMP family's trackers and their published formulation, timed by part; see ``benchmarks.tracking``."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from benchmarks._clock import Clock
from benchmarks._plain_online import PlainATOM, PlainDiMP
from ltr.models.registry import build_network
from ltr.models.tracking.atom import ATOMnet
from ltr.models.tracking.dimp import DiMPnet
from pysot_toolkit.trackers.base import TRACKERS
from pysot_toolkit.trackers.online.localize import LocalizationRules
from pysot_toolkit.trackers.online.parameters import OnlineParameters
from pysot_toolkit.trackers.online.tracker import OnlineTracker

NETWORKS = {"dimp50": "dimpnet50", "dimp18": "dimpnet18", "atom": "atom_resnet18"}
_METHODS = {
    "crop": "crop",
    "_images": "resizing",
    "_extract": "backbone",
    "_classifiable": "classifier features",
    "classify": "classify",
    "_iou_maps": "IoU features",
    "_climb": "box optimisation",
    "learn": "filter update",
}
PARTS = (*_METHODS.values(), "frame", "frame with update")
TARGETS = {
    "float32": {"frame": 1.3, "frame with update": 1.5},
    "bfloat16": {"frame": 1.8, "frame with update": 1.8},
}  # times the plain formulation, 1 CPU thread
_TOLERANCE = 0.05  # px, between the boxes of both formulations
_FOUND = LocalizationRules(not_found=-np.inf, distractor=np.inf, hard_negative=np.inf)  # in every frame


class _Timed:
    """A tracker that takes every frame from the same state, with a full memory."""

    def __init__(self, tracker: OnlineTracker, image: np.ndarray, bbox: np.ndarray) -> None:
        self.tracker, self.clock = tracker, Clock(tracker.device)
        tracker.initialize(image, bbox)
        weights, (samples, boxes, _) = tracker.memory.weights, tracker.memory.contents()
        for number in range(len(weights.values) - weights.stored):
            tracker.memory.add(samples[number % len(samples)], boxes[number % len(boxes)])
        for method, part in _METHODS.items():
            self.clock.wrap(tracker, method, part, own=part == "box optimisation")
        self._state = tracker.centre, tracker.size, tracker.scale, tracker.filter

    def track(self, image: np.ndarray, update: bool) -> np.ndarray:
        """The box in an image, by the first frame's filter."""
        tracker = self.tracker
        tracker.centre, tracker.size, tracker.scale, tracker.filter = self._state
        tracker.frame = tracker.parameters.update_interval if update else 1
        with self.clock.part("frame with update" if update else "frame"):
            return tracker.track(image).bbox


def clocks_of(arch: str, device: torch.device, frames: int) -> dict[str, Clock]:
    """Clocks of the plain formulation and of the tracker in each precision, frames taken in turn.

    Every frame is tracked without and with an update of the filter.
    """
    torch.manual_seed(0)
    network = build_network(NETWORKS[arch]).eval()
    assert isinstance(network, (ATOMnet, DiMPnet))
    bound_scores(network)
    kind = TRACKERS.get(arch)
    parameters = dataclasses.replace(kind.defaults, locate=_FOUND)
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (frames + 1, 720, 1280, 3), np.uint8)
    bbox = np.array([600.0, 300.0, 90.0, 120.0])

    def timed(kind: type[OnlineTracker], parameters: OnlineParameters) -> _Timed:
        return _Timed(kind(network, device, parameters), video[0], bbox)

    trackers = {"plain": timed(PlainATOM if arch == "atom" else PlainDiMP, parameters)}
    for precision in TARGETS:
        trackers[precision] = timed(kind, dataclasses.replace(parameters, precision=precision))
    for image in video[1:]:
        for update in (False, True):
            boxes = {name: tracker.track(image, update) for name, tracker in trackers.items()}
            difference = np.abs(boxes["plain"] - boxes["float32"]).max()
            assert difference < _TOLERANCE, f"{arch}: boxes differ by {difference} px"
    return {name: tracker.clock for name, tracker in trackers.items()}


@torch.no_grad()
def bound_scores(network: ATOMnet | DiMPnet) -> None:
    """Bring an untrained network's scores of boxes into the range of 2 IoU - 1, or boxes run away, many px per step."""
    features = network.iou_features(network.extract_backbone(torch.randn(1, 3, 288, 288)))
    box = torch.tensor([[115.0, 111.0, 50.0, 66.0]])
    score = network.bb_regressor(features, features, box, box[None, None])
    network.bb_regressor.iou_predictor.weight /= score.abs().max().clamp(min=1)
