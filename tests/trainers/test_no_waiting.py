"""A training step never waits for the device: nothing in it reads a number back, or copies one there from the host.

A GPU works through a queue; what needs a value of it, or a copy from memory that is not pinned, stops the host until
the queue is empty. The same calls are seen on a CPU.
"""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ltr.actors.sparse import SparseActor
from ltr.admin.process_group import ProcessGroup
from ltr.admin.run import Run
from ltr.admin.train import variant_settings
from ltr.data.augment import DRAWS
from ltr.models.registry import build_network
from ltr.train_settings.common import make_optimizer, make_schedule, parallel
from ltr.train_settings.spot import dimp, ocean, transt
from ltr.trainers.ltr_trainer import LTRTrainer
from ltr.trainers.teacher import MovingAverage, make_teacher
from tests.actors.test_dimp_actors import ACTORS, make_actor, make_batch, small

GROUP = ProcessGroup(0, 1, torch.device("cpu"))
N, M = 2, 3

aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense,  # item, float, int, bool, if
    aten.nonzero,
    aten.masked_select,
    aten.equal,
    aten.is_nonzero,
    aten.lift_fresh,  # torch.tensor, new_tensor
    aten._unique2,
    aten.unique_consecutive,
}


class NoWaiting(TorchDispatchMode):
    """Raises where the host would wait for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket not in WAITING, f"{func} waits for the device"
        if func.overloadpacket in (aten.index, aten.index_put, aten.index_put_):
            kinds = {index.dtype for index in args[1] if index is not None}
            assert torch.bool not in kinds, f"{func} with a mask waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def no_waiting(monkeypatch):
    """A context in which reading from the device fails."""

    def fail(*_):
        raise AssertionError("a tensor is copied to the host")

    def context() -> NoWaiting:
        for name in ("cpu", "numpy", "tolist", "__array__"):
            monkeypatch.setattr(torch.Tensor, name, fail)
        return NoWaiting()

    return context


def pair_batch(s, rng) -> dict:
    """What ``ltr.data.loader`` and ``ltr.data.sparse_sequences`` give, of noise."""
    size, template = s.data.search_size, s.data.template_size

    def crops(count: int, side: int) -> torch.Tensor:
        return torch.from_numpy(rng.integers(0, 256, (count, side, side, 3), np.uint8))

    def boxes(count: int, side: int) -> torch.Tensor:
        return torch.tensor([[0.3, 0.3, 0.4, 0.3]]).repeat(count, 1) * side

    def shared(count: int) -> dict:
        noise = torch.from_numpy(0.1 * rng.standard_normal((count, 4, 4))).float()
        draws = torch.from_numpy(rng.random((count, DRAWS), np.float32))
        return {"noise": noise, "draws": draws, "index": torch.arange(count)}

    sup = {
        "template": crops(N, template), "search": crops(N, size),
        "template_bbox": boxes(N, template), "search_bbox": boxes(N, size), **shared(N),
    }  # fmt: skip
    where = torch.tensor([[10.0, 10.0, size, size]]).double().repeat(M, 1)
    unsup = {
        "key": crops(M, template), "relay": crops(M, template), "unlabeled": crops(M, size), "aug": crops(M, size),
        "key_bbox": boxes(M, template), "relay_bbox": boxes(M, template), "unlabeled_bbox": boxes(M, size),
        "unlabeled_rectangle": where, "aug_rectangle": where, "unlabeled_extract": where, "aug_extract": where,
        "unlabeled_factor": torch.ones(M).double(), "aug_factor": torch.ones(M).double(),
        "aug_mean": torch.full((M, 3), 99.0), "image_size": torch.tensor([[320.0, 240.0]]).repeat(M, 1),
        "row": torch.arange(M), "frame": torch.arange(M), **shared(M),
    }  # fmt: skip
    return {"sup": sup, "unsup": unsup}


def pair_actor(family):
    """Makes the sparse actor of a family with an objective."""

    def make(network, teacher, s, group):
        return SparseActor(parallel(network, s, group), teacher, family.objective(s, group), s, group)

    return make


def dimp_actor(network, teacher, s, group):
    return dimp.actor(parallel(network, s, group), teacher, s, group)


SPARSE = {
    "spot_transt_demo": pair_actor(transt),
    "spot_ocean_demo": pair_actor(ocean),
    "spot_dimp_demo": dimp_actor,
}


def sparse_trainer(variant: str, folder, *overrides: str):
    """A trainer of a small sparse variant, its teacher's average, and a batch."""
    s = variant_settings(
        "spot", variant, ["paths.var", str(folder), "train.tensorboard", "False", *overrides]
    )
    if variant == "spot_dimp_demo":
        s.data.template_size = s.data.search_size
    s.sparse.confidence_threshold = 0.3  # of an untrained network: some are accepted, some not
    torch.manual_seed(0)
    network = build_network(s.network.name, s.network.args)
    teacher = make_teacher(network)
    trainer = LTRTrainer(
        actor=SPARSE[variant](network, teacher, s, GROUP),
        loader=None,
        optimizer=make_optimizer(s, network),
        schedule=make_schedule(s, network),
        run=Run(s, type(network).__name__, GROUP),
        group=GROUP,
    )
    trainer.schedule.begin_epoch(1, trainer.optimizer)
    trainer.begin_epoch(1)
    batch = pair_batch(s, np.random.default_rng(0))
    return trainer, MovingAverage(teacher, network, s.sparse.keep_rate), batch


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("variant", SPARSE)
def test_a_sparse_step_never_waits_for_the_device(tmp_path, no_waiting, variant, optimizer):
    trainer, average, batch = sparse_trainer(variant, tmp_path, "optim.name", optimizer)
    trainer._step(1, 0, batch, False)  # what is made once
    before = [p.detach().clone() for p in trainer.actor.plain_network.parameters()]
    with no_waiting():
        average.update()
        result = trainer._step(1, 1, batch, False)
    after = list(trainer.actor.plain_network.parameters())
    assert any((a != b).any() for a, b in zip(after, before)) and bool(result.loss.isfinite())


@pytest.mark.parametrize(("module", "variant"), ACTORS, ids=lambda name: name)
def test_a_step_of_sequences_never_waits_for_the_device(tmp_path, no_waiting, module, variant):
    settings = small(module, variant)
    settings.paths.var = str(tmp_path)
    actor, batch = make_actor(settings), make_batch(settings)
    trainer = LTRTrainer(
        actor=actor,
        loader=None,
        optimizer=make_optimizer(settings, actor.plain_network),
        schedule=make_schedule(settings, actor.plain_network),
        run=Run(settings, "Net", GROUP),
        group=GROUP,
    )
    trainer.schedule.begin_epoch(1, trainer.optimizer)
    trainer.begin_epoch(1)
    trainer._step(1, 0, batch, False)
    with no_waiting():
        trainer._step(1, 1, batch, False)


def test_what_waits_is_noticed(no_waiting):
    x = torch.arange(3.0)
    for waiting in (
        lambda: x.sum().item(),
        lambda: bool(x[0] > 0),
        lambda: x[x > 1],
        lambda: x.nonzero(),
        lambda: x.new_tensor([1.0]),
        lambda: x.cpu(),
        lambda: x.tolist(),
        lambda: x.numpy(),
    ):
        with no_waiting(), pytest.raises(AssertionError):
            waiting()


@pytest.mark.parametrize("variant", SPARSE)
def test_a_step_in_bfloat16_learns_the_like(tmp_path, variant):
    steps = {}
    for precision in ("float32", "bfloat16"):
        trainer, _, batch = sparse_trainer(variant, tmp_path / precision, "train.precision", precision)
        steps[precision] = trainer._step(1, 0, batch, False)
        dtypes = {p.dtype for p in trainer.actor.plain_network.parameters()}
        assert dtypes == {torch.float32} and bool(steps[precision].loss.isfinite())
    full, half = (steps[precision].stats["loss"].item() for precision in steps)
    assert full != half and half == pytest.approx(full, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("variant", SPARSE)
def test_a_compiled_step_learns_the_same(tmp_path, monkeypatch, variant):
    """With the backend that captures and differentiates the graph, and generates no code, which takes minutes."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    losses = {}
    for compiled in ("False", "True"):
        trainer, _, batch = sparse_trainer(variant, tmp_path / compiled, "train.compile", compiled)
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "error", message=".*lru_cache.*"
            )  # dynamo's: it would trace what is cached
            losses[compiled] = [trainer._step(1, step, batch, False).loss.item() for step in range(2)]
        names = list(trainer.actor.plain_network.state_dict())
        assert not any("_orig_mod" in name for name in names)  # checkpoints of both are alike
    assert losses["True"] == pytest.approx(losses["False"], rel=1e-3)
