"""DiMP, PrDiMP and SuperDiMP tracking.

Bhat et al., Learning Discriminative Model Prediction for Tracking, ICCV 2019;
Danelljan et al., Probabilistic Regression for Visual Tracking, CVPR 2020.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from config.errors import UserError
from config.settings import Settings
from ltr.admin.checkpoint_reader import Checkpoint, build_recorded, recipe, trained_numbers
from ltr.data.labels import GaussianLabel
from ltr.models.tracking.dimp import DiMPnet, published_args
from pysot_toolkit.trackers.base import TRACKERS
from pysot_toolkit.trackers.online.augmentation import Augmentations
from pysot_toolkit.trackers.online.localize import LocalizationRules
from pysot_toolkit.trackers.online.parameters import OnlineParameters, overridden
from pysot_toolkit.trackers.online.refine import Refinement
from pysot_toolkit.trackers.online.tracker import Features, OnlineTracker

_CROP_SETTINGS = {"sample_size": "search_size", "search_factor": "search_factor"}  # ours: as trained


class DiMPTracker(OnlineTracker):
    """A filter that the network learns on the first frame and goes on learning from what it finds."""

    network: DiMPnet
    name: ClassVar[str] = "dimp50"
    published: ClassVar[str] = "dimpnet50"  # the network of a file that does not say which it holds

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, path: Path, settings: Settings, device: torch.device
    ) -> DiMPTracker:
        """Our networks and crops as trained, published ones by the name of their constructor."""
        network, trained = network_of(checkpoint, cls.published, path)
        if not isinstance(network, DiMPnet):
            raise UserError(
                f"{path}: holds a {type(network).__name__}, which the tracker {cls.name} cannot run"
            )
        return cls(network, device, overridden(cls.defaults, {**trained, **settings.tracker}))

    def samples(self, features: Features) -> torch.Tensor:
        """See ``OnlineTracker.samples``."""
        return self.network.classification_features(features)

    def begin(self, samples: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """See ``OnlineTracker.begin``."""
        self.kernel = self.network.classifier.filter_size
        found = self.network.classifier.get_filter(
            samples[:, None],
            boxes[:, None],
            labels=self._labels(boxes)[:, None],
            num_iter=self.parameters.initial_iterations,
        )
        self.filter = found.filter
        return samples

    def classify(self, samples: torch.Tensor) -> torch.Tensor:
        """See ``OnlineTracker.classify``."""
        return self.network.classifier.classify(self.filter, samples[:, None])[:, 0]

    def learn(self, iterations: int) -> None:
        """See ``OnlineTracker.learn``."""
        samples, boxes, weights = self.memory.contents()
        found = self.network.classifier.filter_optimizer(
            self.filter,
            samples[:, None],
            boxes[:, None],
            labels=self._labels(boxes)[:, None],
            sample_weight=weights[:, None],
            num_iter=iterations,
        )
        self.filter = found.filter

    def map_geometry(self, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See ``OnlineTracker.map_geometry``."""
        return (size - 1) / 2, self.output / self.feature_size

    def _labels(self, boxes: torch.Tensor) -> torch.Tensor:
        """Score maps that SuperDiMP-simple is to learn; the others make their own."""
        p, (rows, columns) = self.parameters, self.feature_size
        sides = (p.sample_size, p.sample_size)
        bump = GaussianLabel(
            sigma=p.label_sigma / p.search_factor,
            kernel=self.kernel,
            features=(int(columns), int(rows)),
            image=sides,
        )
        return bump(boxes)


def network_of(checkpoint: Checkpoint, published: str, path: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The network that a checkpoint holds, and the tracker's arguments that its training decided.

    Args:
        published: the registered name of the network of a file that does not say which it holds.
        path: the file.

    Raises:
        UserError: it does not say how its network is built, or holds weights of another.
    """
    own = recipe(checkpoint, path)
    if own is None:
        given = checkpoint.constructor or {}
        name, kwds = given.get("fun_name", published), given.get("kwds", {})
        if (
            not isinstance(name, str)
            or not isinstance(kwds, dict)
            or not all(isinstance(key, str) for key in kwds)
        ):
            raise UserError(f"{path}: does not say how its network is built; restore it or take another")
        own = name, published_args(kwds)
    return build_recorded(checkpoint, *own, path), trained_numbers(checkpoint, _CROP_SETTINGS, path)


MANY_AUGMENTATIONS = Augmentations(
    rotations=(5, -5, 10, -10, 20, -20, 30, -30, 45, -45, -60, 60),
    blurs=((2, 0.2), (0.2, 2), (3, 1), (1, 3), (2, 2)),
    dropouts=7,
)
_RELATIVE = Refinement(space="relative", iterations=10, step=(2.5e-3, 2.5e-3))

_DIMP = OnlineParameters()
_PRDIMP = replace(
    _DIMP,
    preprocess="softmax",
    probabilities=True,
    even_score=0.04,
    locate=LocalizationRules(not_found=0.04),
    refine=_RELATIVE,
)
_WIDE: dict[str, Any] = {
    "sample_size": 352, "search_factor": 6.0, "border": "inside_major", "max_shrink": 1.5
}  # fmt: skip
_SUPER = replace(_DIMP, **_WIDE, refine=_RELATIVE)
# for videos of VOT, where a lost target is put back: it is never given up
_VOT = replace(
    _DIMP,
    sample_size=224,
    search_factor=4.0,
    memory_size=250,
    learning_rate=0.0075,
    initial_weight=0.0,
    update_interval=10,
    initial_iterations=25,
    update_iterations=3,
    hard_negative_iterations=3,
    window=True,
    augment=MANY_AUGMENTATIONS,
    locate=LocalizationRules(not_found=0.0, distractor=100.0, hard_negative=0.45, displacement=0.7),
)
_VOT19 = replace(
    _VOT,
    sample_size=256,
    search_factor=4.5,
    memory_size=100,
    initial_iterations=15,
    update_iterations=2,
    hard_negative_iterations=2,
    expansion=1.4,
    augment=Augmentations(
        rotations=(-5, 10, -30, 60),
        blurs=((2, 0.2), (1, 3)),
        relative_shifts=((0.6, 0.6), (-0.6, -0.6)),
        dropouts=3,
    ),
    refine=Refinement(iterations=3),
)
_PRDIMP_VOT = replace(
    _VOT,
    learning_rate=0.01,
    update_interval=1,
    update_iterations=1,
    hard_negative_iterations=1,
    probabilities=True,
    even_score=0.04,
    locate=LocalizationRules(not_found=0.0, distractor=99999.0, hard_negative=999999.0, displacement=0.7),
    refine=_RELATIVE,
)

PARAMETERS: dict[str, tuple[str, OnlineParameters]] = {
    "dimp": ("dimpnet50", _DIMP),  # any network of the family, as own trainings make them
    "dimp18": ("dimpnet18", _DIMP),
    "dimp50": ("dimpnet50", _DIMP),
    "prdimp18": ("klcedimpnet18", _PRDIMP),
    "prdimp50": ("klcedimpnet50", replace(_PRDIMP, **_WIDE)),
    "super_dimp": ("dimpnet50", _SUPER),
    "super_dimp_simple": ("dimpnet50_simple", _SUPER),
    "dimp18_vot": ("dimpnet18", _VOT),
    "dimp50_vot": ("dimpnet50", _VOT),
    "dimp50_vot19": ("dimpnet50", _VOT19),
    "prdimp50_vot18": ("klcedimpnet50", _PRDIMP_VOT),
}
"""The published parameter sets: the network each is for, and the parameters."""

for _name, (_published, _parameters) in PARAMETERS.items():
    _members = {"name": _name, "published": _published, "defaults": _parameters, "__module__": __name__}
    TRACKERS.register(_name)(type(f"DiMPTracker_{_name}", (DiMPTracker,), _members))
