"""What the verbs import, imported before they are forked."""

from __future__ import annotations

import importlib

import cv2
import torch

from ltr.dataset.base import DATASETS
from ltr.models.backbone.registry import BACKBONES
from ltr.models.registry import NETWORKS
from pysot_toolkit.datasets.base import BENCHMARKS
from pysot_toolkit.evaluation.protocol import PROTOCOLS, RESULT_READERS
from pysot_toolkit.trackers.base import TRACKERS

for registry in (NETWORKS, BACKBONES, DATASETS, BENCHMARKS, TRACKERS, PROTOCOLS, RESULT_READERS):
    registry.names()
for name in (
    "ltr.train_settings.spot.spot_transt_003",
    "ltr.models.backbone.pretrained",
    "torch.utils.serialization.config",
    "multiprocessing.synchronize",
    "scripts.eval",
    "scripts.run_training",
    "scripts.test",
):
    importlib.import_module(name)
torch.set_num_threads(1)
cv2.setNumThreads(0)
