"""Networks of the trackers under ``torch.compile``, as the benchmark of batches compiles them on a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ltr.models.registry import build_network
from pysot_toolkit.trackers.base import TRACKERS
from tests.trackers import test_ocean_tracker as ocean
from tests.trackers import test_transt_tracker as transt


@pytest.mark.parametrize("arch, small", [("transt", transt), ("ocean", ocean)])
def test_a_frame_is_one_graph_and_the_same_answer(arch, small):
    """With the backend that captures the graph and generates no code, which takes minutes."""
    video = np.random.default_rng(0).integers(0, 256, (4, 90, 120, 3), np.uint8)
    torch.manual_seed(0)
    tracker = TRACKERS.get(arch)(build_network(arch, small.ARGS), torch.device("cpu"), **small.SIZES)
    plain = small.run(tracker, video)
    torch._dynamo.reset()
    tracker.network.track = torch.compile(
        tracker.network.track, dynamic=False, fullgraph=True, backend="aot_eager"
    )
    for one, other in zip(plain, small.run(tracker, video), strict=True):
        assert np.abs(one.bbox - other.bbox).max() < 1e-3 and abs(one.score - other.score) < 1e-5
