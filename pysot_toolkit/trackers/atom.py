"""ATOM tracking. Danelljan et al., ATOM: Accurate Tracking by Overlap Maximization, CVPR 2019."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from config.errors import UserError
from config.settings import Settings
from ltr.admin.checkpoint_reader import Checkpoint
from ltr.data.labels import GaussianLabel
from ltr.models.layers.normalization import InstanceL2Norm
from ltr.models.tracking.atom import ATOMnet
from pysot_toolkit.trackers.base import TRACKERS
from pysot_toolkit.trackers.dimp import MANY_AUGMENTATIONS, network_of
from pysot_toolkit.trackers.online.atom_filter import (
    Regularisation,
    Training,
    classify,
    learn_both,
    learn_filter,
    project,
)
from pysot_toolkit.trackers.online.localize import LocalizationRules
from pysot_toolkit.trackers.online.parameters import OnlineParameters, overridden
from pysot_toolkit.trackers.online.refine import Refinement
from pysot_toolkit.trackers.online.tracker import Features, OnlineTracker

LAYER = "layer3"  # of the backbone, that the filter sees


@dataclass(frozen=True, kw_only=True)
class ATOMParameters(OnlineParameters):
    """Parameters of ATOM; iterations are those of conjugate gradient."""

    kernel: int = 4  # side of the filter, cells
    channels: int = 64  # of the projected features
    filter_reg: float = 0.1
    projection_reg: float = 1e-4
    linearisations: int = 6  # of the first frame's problem, among which its iterations are divided


class ATOMTracker(OnlineTracker):
    """A filter that is learned from nothing on the first frame, with a projection of the backbone's features."""

    network: ATOMnet
    parameters: ATOMParameters
    name: ClassVar[str] = "atom"
    defaults: ClassVar[ATOMParameters] = ATOMParameters()

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, path: Path, settings: Settings, device: torch.device
    ) -> ATOMTracker:
        """Our networks and crops as trained, published ones by the name of their constructor."""
        network, trained = network_of(checkpoint, "atom_resnet18", path)
        if not isinstance(network, ATOMnet):
            raise UserError(
                f"{path}: holds a {type(network).__name__}, which the tracker {cls.name} cannot run"
            )
        return cls(network, device, overridden(cls.defaults, {**trained, **settings.tracker}))

    def samples(self, features: Features) -> torch.Tensor:
        """See ``OnlineTracker.samples``; here they are not projected yet."""
        return InstanceL2Norm()(features[LAYER])

    def begin(self, samples: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """See ``OnlineTracker.begin``."""
        p = self.parameters
        self.kernel = p.kernel
        size, channels = (p.kernel, p.kernel), samples.shape[1]
        filter = self._random(1, p.channels, *size) / (p.channels * p.kernel**2)
        projection = self._random(p.channels, channels, 1, 1) / math.sqrt(channels)
        data = Training(samples, self._labels(boxes), samples.new_full((len(samples),), 1 / len(samples)))
        iterations = [p.initial_iterations // p.linearisations] * p.linearisations
        self.filter, self.projection = learn_both(data, filter, projection, iterations, self._reg()).x
        return project(samples, self.projection)

    def kept(self, samples: torch.Tensor) -> torch.Tensor:
        """See ``OnlineTracker.kept``."""
        return project(samples, self.projection)

    def classify(self, samples: torch.Tensor) -> torch.Tensor:
        """See ``OnlineTracker.classify``; scores are interpolated to one per px."""
        scores = upsampled(classify(samples, self.filter), self.parameters.sample_size)
        if self.parameters.window:
            scores = scores * _window(scores.shape[-1]).to(scores.device, non_blocking=True)
        return scores

    def window(self, size: tuple[int, int]) -> None:
        """No window on top: both peaks are sought with that of ``classify``."""

    def learn(self, iterations: int) -> None:
        """See ``OnlineTracker.learn``."""
        samples, boxes, weights = self.memory.contents()
        data = Training(samples, self._labels(boxes), weights)
        (self.filter,) = learn_filter(data, self.filter, iterations, self._reg()).x

    def map_geometry(self, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See ``OnlineTracker.map_geometry``; an even filter's scores are half a cell off."""
        return size // 2 if self.kernel % 2 == 0 else (
            size - self.output / self.feature_size
        ) / 2, self.output / size

    def _labels(self, boxes: torch.Tensor) -> torch.Tensor:
        p, (rows, columns) = self.parameters, self.feature_size
        bump = GaussianLabel(
            sigma=p.label_sigma / p.search_factor,
            kernel=p.kernel,
            features=(int(columns), int(rows)),
            image=(p.sample_size, p.sample_size),
            pad_even=False,
        )
        return bump(boxes)

    def _reg(self) -> Regularisation:
        return Regularisation(self.parameters.filter_reg, self.parameters.projection_reg)

    def _random(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator).to(self.device)


def upsampled(scores: torch.Tensor, size: int) -> torch.Tensor:
    """Square maps ``[S, n, n]`` interpolated by their Fourier series to ``[S, size, size]``, ``size > n``: the value
    at cell i of n comes to ``i * size / n``."""
    n = scores.shape[-1]
    spectrum = torch.fft.fftshift(torch.fft.rfft2(scores), -2)
    if n % 2 == 0:  # the highest frequency is two, of opposite signs
        edge = spectrum[:, :1] / 2
        spectrum = torch.cat([edge, spectrum[:, 1:], edge], 1)
        spectrum = torch.cat([spectrum[..., :-1], spectrum[..., -1:] / 2], 2)
    rows, columns = spectrum.shape[1:]
    padded = spectrum.new_zeros(len(scores), size, size // 2 + 1)
    first = size // 2 - n // 2
    padded[:, first : first + rows, :columns] = spectrum
    return torch.fft.irfft2(torch.fft.ifftshift(padded, -2), s=(size, size)) * (size / n) ** 2


def _window(size: int) -> torch.Tensor:
    """Hann window ``[size, size]`` about the middle that ``map_geometry`` says for an even filter."""
    distance = (torch.arange(size) - size // 2).abs()
    line = (1 + torch.cos(2 * math.pi * distance / (size + 2))) / 2
    return torch.outer(line, line)


_ATOM = ATOMParameters(
    memory_size=250,
    update_interval=10,
    initial_iterations=60,
    update_iterations=5,
    hard_negative_iterations=5,
    augment=MANY_AUGMENTATIONS,
)
_VOT = replace(
    _ATOM,
    sample_size=224,
    search_factor=4.0,
    learning_rate=0.0075,
    initial_weight=0.0,
    window=True,
    locate=LocalizationRules(not_found=-1.0, distractor=100.0, hard_negative=0.3, displacement=0.7),
)
PARAMETERS = {
    "atom": _ATOM,
    "atom_gmm_sampl": replace(_ATOM, refine=Refinement(space="relative", iterations=10, step=(1e-2, 5e-2))),
    "atom_prob_ml": replace(_ATOM, refine=Refinement(space="relative", iterations=10, step=(2e-4, 1e-3))),
    "atom_vot": _VOT,
}
"""The published parameter sets."""

for _name, _parameters in PARAMETERS.items():
    _members = {"name": _name, "defaults": _parameters, "__module__": __name__}
    TRACKERS.register(_name)(type(f"ATOMTracker_{_name}", (ATOMTracker,), _members))
