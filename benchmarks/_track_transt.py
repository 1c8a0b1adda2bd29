"""TransT's tracker and its published formulation, timed by part; see ``benchmarks.tracking``."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks._clock import Clock
from benchmarks._plain_transt import Features, PlainTransT
from ltr.data.augment import normalise
from ltr.data.crop import crop
from ltr.models.registry import build_network
from ltr.models.tracking.transt import TransT
from pysot_toolkit.trackers.base import Prediction
from pysot_toolkit.trackers.transt import TransTTracker

PARTS = ("template", "crop", "backbone", "fusion", "heads", "update", "frame")
TARGETS = {
    "float32": {"frame": 1.55},
    "bfloat16": {"frame": 2.4},
}  # times the plain formulation, 1 CPU thread


class Plain:
    """A tracker over the published formulation: the same crops and the same update of the box."""

    def __init__(self, network: TransT, device: torch.device, clock: Clock) -> None:
        self.tracker = TransTTracker(network, device)  # for geometry and update; its network is not used
        self.network = PlainTransT(network.to(device))
        self.clock, self.device = clock, device

    @torch.inference_mode()
    def initialize(self, image: np.ndarray, bbox: np.ndarray) -> None:
        """See ``Tracker.initialize``."""
        self.tracker.bbox = bbox
        self.pad = image.mean((0, 1))
        with self.clock.part("template"):
            pixels, _ = crop(image, bbox, self.tracker.template_factor, self.tracker.template_size, self.pad)
            self.template: Features = self.network.features(self._input(pixels))

    @torch.inference_mode()
    def track(self, image: np.ndarray) -> np.ndarray:
        """See ``Tracker.track``."""
        with self.clock.part("frame"):
            with self.clock.part("crop"):
                pixels, _ = crop(
                    image, self.tracker.bbox, self.tracker.search_factor, self.tracker.search_size, self.pad
                )
                search = self._input(pixels)
            with self.clock.part("backbone"):
                features = self.network.features(search)
            with self.clock.part("fusion"):
                fused = self.network.fuse(self.template, features)
            with self.clock.part("heads"):
                outputs = self.network.heads(fused)
            with self.clock.part("update"):
                found = self.tracker.choose(outputs)
                return self.tracker.move(found[0], image.shape[1], image.shape[0]).bbox

    def _input(self, pixels: np.ndarray) -> torch.Tensor:
        return normalise(torch.from_numpy(pixels)[None].to(self.device)).contiguous()


class Timed(TransTTracker):
    """The tracker with a clock at its parts."""

    def attach(self, clock: Clock) -> Timed:
        """Measure with ``clock`` from now on."""
        self.clock = clock
        clock.watch("backbone", self.network.backbone, self.network.input_proj)
        clock.watch("fusion", self.network.featurefusion_network)
        clock.watch("heads", self.network.class_embed, self.network.bbox_embed)
        return self

    def _input(self, crops: np.ndarray) -> torch.Tensor:
        result = super()._input(crops)
        self.clock.times["crop"].append(self.clock.now() - self.begin)
        return result

    def choose(self, outputs):  # type: ignore[no-untyped-def]
        """See ``TransTTracker.choose``."""
        self.answered = self.clock.now()
        return super().choose(outputs)

    def move(self, found: np.ndarray, width: int, height: int) -> Prediction:
        """See ``TransTTracker.move``."""
        answer = super().move(found, width, height)
        self.clock.times["update"].append(self.clock.now() - self.answered)
        return answer

    def initialize(self, image: np.ndarray, bbox: np.ndarray) -> None:
        """See ``Tracker.initialize``."""
        self.begin = self.clock.now()
        with self.clock.part("template"):
            super().initialize(image, bbox)
        for name in ("crop", "backbone"):
            self.clock.times[name].clear()

    def track(self, image: np.ndarray):  # type: ignore[no-untyped-def]
        """See ``Tracker.track``."""
        self.begin = self.clock.now()
        with self.clock.part("frame"):
            return super().track(image)


def clocks_of(device: torch.device, frames: int) -> dict[str, Clock]:
    """Clocks of the plain formulation and of the tracker in each precision, frames taken in turn."""
    torch.manual_seed(0)
    network = build_network("transt").eval().requires_grad_(False)
    assert isinstance(network, TransT)
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (frames + 1, 720, 1280, 3), np.uint8)
    bbox = np.array([600.0, 300.0, 90.0, 120.0])
    clocks = {name: Clock(device) for name in ("plain", "float32", "bfloat16")}
    plain = Plain(network, device, clocks["plain"])
    timed = [Timed(network, device, precision=name).attach(clocks[name]) for name in TARGETS]
    trackers: list[Plain | Timed] = [plain, *timed]
    for tracker in trackers:
        for _ in range(3):
            tracker.initialize(video[0], bbox)
    for image in video[1:]:
        for tracker in trackers:
            tracker.track(image)
            (tracker.tracker if isinstance(tracker, Plain) else tracker).bbox = bbox  # everyone crops alike
    return clocks
