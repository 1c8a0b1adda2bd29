"""Two processes with half of the batch each take the steps of one with all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from config.defaults import get_defaults
from ltr.actors.sparse import SparseActor
from ltr.admin.process_group import ProcessGroup
from ltr.data.augment import DRAWS
from ltr.models.loss.transt import TransTObjective
from ltr.models.registry import build_network
from ltr.trainers.teacher import make_teacher

SUP, UNSUP, STEPS, SIZE = 2, 6, 3, 64
CASES = {"unequal": [0, 3, 4, 5], "on one process alone": [1], "none": []}


def batch(step: int, rank: int, size: int) -> dict:
    """Noise with boxes in it: this process's share of the batch of a step."""
    rng = np.random.default_rng(step)

    def crops(count: int, side: int) -> torch.Tensor:
        return torch.from_numpy(rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8))

    def boxes(count: int) -> np.ndarray:
        return np.concatenate([rng.uniform(20, 30, (count, 2)), rng.uniform(10, 20, (count, 2))], 1)

    def draws(count: int) -> torch.Tensor:
        return torch.from_numpy(rng.random((count, DRAWS), dtype=np.float32))

    sup = {"template": crops(SUP, 32), "search": crops(SUP, SIZE), "draws": draws(SUP)}
    sup |= {"search_bbox": torch.from_numpy(boxes(SUP)).float(), "index": torch.arange(SUP)}
    unsup = {"key": crops(UNSUP, 32), "relay": crops(UNSUP, 32), "draws": draws(UNSUP)}
    unsup |= {"unlabeled": crops(UNSUP, SIZE), "aug": crops(UNSUP, SIZE)}
    for name in ("unlabeled", "aug"):
        unsup[f"{name}_extract"] = torch.from_numpy(boxes(UNSUP))
        unsup[f"{name}_factor"] = torch.full((UNSUP,), 0.9, dtype=torch.float64)
    unsup |= {"aug_mean": torch.zeros(UNSUP, 3), "image_size": torch.full((UNSUP, 2), 80.0)}
    unsup |= {name: torch.arange(UNSUP) for name in ("row", "frame", "index")}

    def share(part: dict, count: int) -> dict:
        first, last = count * rank // size, count * (rank + 1) // size
        return {name: value[first:last] for name, value in part.items()}

    return {"sup": share(sup, SUP), "unsup": share(unsup, UNSUP)}


def train(rank: int, size: int, folder: str) -> None:
    """What ``steps`` says of each case, in a file of the first process."""
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=size)
    group = ProcessGroup(rank, size, torch.device("cpu"))
    said = {case: steps(group, accepted) for case, accepted in CASES.items()}
    if group.first:
        torch.save(said, Path(folder) / f"{size}.pt")
    if size > 1:
        dist.destroy_process_group()


def steps(group: ProcessGroup, accepted: list[int]) -> dict:
    """Weights, losses and recorded frames of a few steps in which the teacher is sure of the named instances alone."""
    torch.manual_seed(0)
    args = {"backbone": "tiny", "hidden_dim": 16, "nheads": 2, "dim_feedforward": 32, "dropout": 0.0}
    network = build_network("transt", args | {"featurefusion_layers": 1}).eval()
    teacher = make_teacher(network)
    settings = get_defaults()
    settings.data.search_size, settings.data.template_size = SIZE, 32
    settings.sparse.confidence_threshold = 0.5
    actor = SparseActor(
        DistributedDataParallel(network) if group.size > 1 else network,
        teacher,
        TransTObjective(mean_over_ranks=group.mean),
        settings,
        group,
    )
    teach = actor.teach

    def answer(unsup):
        sure = torch.isin(unsup["index"], torch.tensor(accepted))
        return teach(unsup)[0], torch.where(sure, 0.9, 0.1)

    actor.teach = answer  # type: ignore[method-assign]
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
    losses = []
    for step in range(STEPS):
        result = actor(batch(step, group.rank, group.size))
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        losses.append(group.mean(result.loss.detach()))
    records = np.sort(group.gather(actor.take_records()), order=["order", "confidence"])
    return {"net": network.state_dict(), "losses": torch.stack(losses), "frames": records["frame"].tolist()}


def test_weights_and_losses_are_those_of_one_process(tmp_path):
    train(0, 1, str(tmp_path))
    mp.spawn(train, (2, str(tmp_path)), nprocs=2)
    one, two = (torch.load(tmp_path / f"{size}.pt") for size in (1, 2))
    for case, accepted in CASES.items():
        assert one[case]["frames"] == two[case]["frames"] == sorted(accepted * STEPS)
        torch.testing.assert_close(one[case]["losses"], two[case]["losses"], rtol=1e-5, atol=1e-6)
        for name, value in one[case]["net"].items():
            torch.testing.assert_close(
                value, two[case]["net"][name], rtol=1e-4, atol=1e-6, msg=f"{case}: {name}"
            )
