"""What the verbs import, imported before they are forked."""

import cv2
import torch
import torch.utils.data

import scripts.eval
import scripts.run_training
import scripts.test  # noqa: F401
from ltr.dataset.base import DATASETS
from ltr.models.registry import NETWORKS
from pysot_toolkit.datasets.base import BENCHMARKS
from pysot_toolkit.evaluation.protocol import PROTOCOLS, RESULT_READERS
from pysot_toolkit.trackers.base import TRACKERS

torch.set_num_threads(1)
cv2.setNumThreads(0)
for registry in (NETWORKS, DATASETS, BENCHMARKS, TRACKERS, PROTOCOLS, RESULT_READERS):
    registry.names()
