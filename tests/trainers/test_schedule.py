"""What is trained at which rate: the published plan, freezing and thawing, resumed and on several processes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from config.defaults import get_defaults
from config.errors import UserError
from config.settings import Settings
from ltr.actors.base import StepResult
from ltr.admin.process_group import ProcessGroup, start_process_group
from ltr.admin.run import Run
from ltr.admin.train import variant_settings
from ltr.models.backbone.ocean_resnet import OceanTiny
from ltr.models.registry import build_network
from ltr.train_settings.common import make_optimizer, make_schedule, parallel
from ltr.trainers.ltr_trainer import LTRTrainer
from ltr.trainers.schedule import WarmUpLog

EPOCHS, STEPS, THAW = 5, 3, 3
STAGES = ["layer2", "layer3"]


@pytest.mark.parity
@pytest.mark.parametrize("variant", ["spot_ocean_003", "spot_ocean_003_got10k"])
def test_the_variants_follow_the_published_plan(variant, shared, kit):
    _, case, golden = kit.load(shared("parity", "spot_training"))
    settings = variant_settings("spot", variant)
    network = build_network("ocean", {"hidden_dim": 8, "towers": 1})
    optimizer, schedule = make_optimizer(settings, network), make_schedule(settings, network)
    body = network.features.features
    parts = [body.layer1, body.layer2, body.layer3, body.conv1, body.bn1]
    rates, trained = [], []
    for epoch in range(1, settings.train.epochs + 1):
        schedule.begin_epoch(epoch, optimizer)
        rates.append([group["lr"] * 1000 for group in optimizer.param_groups])
        bits = [{p.requires_grad for p in part.parameters()} for part in parts]
        trained.append(sum(2**bit for bit, needs in enumerate(bits) if needs == {True}))
        assert all(len(needs) == 1 for needs in bits)
        assert all(p.requires_grad for p in network.connect_model.parameters())
    # The case follows one of the variants; the others stretch the same 50 rates over their epochs.
    held, published = settings.train.epochs // 50, case["build"]["ocean_epochs"] // 50
    assert kit.difference(rates[::held], golden["ocean_lr"][::published]) <= 1e-6
    assert trained[::held] == golden["ocean_trainable"][::published].tolist()
    if held == published:
        assert settings.optim.unfreeze_epoch == case["build"]["ocean_unfreeze_epoch"]
        assert kit.difference(rates, golden["ocean_lr"]) <= 1e-6
        assert trained == golden["ocean_trainable"].tolist()


@given(st.integers(1, 400))
def test_any_number_of_epochs_rises_once_and_ends_low(epochs):
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "lr": 1.0, "initial_lr": 2.0}])
    schedule, rates = WarmUpLog(epochs), []
    for epoch in range(1, epochs + 8):  # a run may be extended
        schedule.begin_epoch(epoch, optimizer)
        rates.append(optimizer.param_groups[0]["lr"] / 2.0)
    top = rates.index(max(rates))
    assert rates[0] == 0.2 and rates[-1] == pytest.approx(0.002)
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    if epochs >= 50:
        held = [rates[:epochs].count(rate) for rate in set(rates)]
        assert len(held) == 50 and max(rates) == 1.0 and max(held) - min(held) <= 1


class Net(nn.Module):
    """Ocean's small backbone and a head with a batch norm."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.features = OceanTiny()
        self.head = nn.Sequential(nn.Conv2d(96, 4, 1), nn.BatchNorm2d(4) if norm else nn.ReLU())
        self.backbone_parameters = self.features.parameters
        self.set_trainable = self.features.set_trainable

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images))


class Actor:
    """Makes the mean of the head's output follow that of the images."""

    def __init__(self, network: nn.Module, plain: nn.Module) -> None:
        self.network, self.plain_network = network, plain

    def train(self) -> None:
        self.network.train()

    def __call__(self, batch, picture=False) -> StepResult:
        x = batch["sup"]["x"]
        loss = (self.network(x).square().mean((1, 2, 3)) - 4 * x.mean((1, 2, 3))).square().mean()
        loss = loss * batch["sup"]["scale"]
        return StepResult(loss, {"loss": loss.detach()})


class Loader:
    """The share of one process of batches that epoch and step decide."""

    def __init__(self, rank: int = 0, size: int = 1, poisoned: tuple[tuple[int, int], ...] = ()) -> None:
        self.rows, self.poisoned = slice(rank * 4 // size, (rank + 1) * 4 // size), poisoned

    def epoch(self, epoch: int, sparse: bool, start: int = 0):
        for step in range(start, STEPS):
            generator = torch.Generator().manual_seed(100 * epoch + step)
            x = torch.rand(4, 3, 31, 31, generator=generator)[self.rows]
            scale = torch.tensor(float("inf") if (epoch, step) in self.poisoned else 1.0)
            yield {"sup": {"x": x, "scale": scale, "index": torch.arange(len(x))}, "bad": []}


def staged(folder: Path) -> Settings:
    settings = get_defaults()
    settings.paths.var, settings.module_name, settings.variant = str(folder), "m", "v"
    settings.train.epochs, settings.train.iterations = EPOCHS, STEPS
    settings.train.save_interval = settings.train.resume_interval = 1
    settings.train.tensorboard = False
    settings.optim.name, settings.optim.schedule, settings.optim.clip_norm = "sgd", "warmuplog", 1.0
    settings.optim.lr, settings.optim.backbone_lr = 0.1, 0.05
    settings.optim.unfreeze_epoch, settings.optim.unfreeze_stages = THAW, STAGES
    return settings


def trainer(
    folder: Path, group: ProcessGroup | None = None, norm: bool = True, loader: Loader | None = None
) -> LTRTrainer:
    settings, network = staged(folder), Net(norm)
    group = group or ProcessGroup(0, 1, torch.device("cpu"))
    return LTRTrainer(
        actor=Actor(parallel(network, settings, group), network),
        loader=loader or Loader(group.rank, group.size),
        optimizer=make_optimizer(settings, network),
        schedule=make_schedule(settings, network),
        run=Run(settings, "Net", group),
        group=group,
    )


def state(t: LTRTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in t.actor.plain_network.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def changed(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> set[str]:
    """The parts of the network in which anything differs."""
    return {".".join(name.split(".")[:3]) for name in a if not torch.equal(a[name], b[name])}


@pytest.mark.parametrize("stop", range(1, EPOCHS))
def test_a_run_in_two_parts_is_the_run_in_one(tmp_path, stop):
    whole = trainer(tmp_path / "whole")
    whole.train(EPOCHS)
    trainer(tmp_path / "parts").train(stop)
    rest = trainer(tmp_path / "parts")
    rest.train(EPOCHS)
    assert equal(state(whole), state(rest))
    logs = [(t.run.folder / "train.jsonl").read_bytes() for t in (whole, rest)]
    assert logs[0] == logs[1]
    full = json.loads(logs[0].splitlines()[THAW - 1])["lr"]
    assert full[0] == pytest.approx(2 * full[1])


def test_what_is_frozen_stays_and_what_thaws_moves(tmp_path):
    t = trainer(tmp_path)
    states = [state(t)]
    for epoch in range(1, EPOCHS + 1):
        t.train(epoch)
        states.append(state(t))
    head = {"head.0.weight", "head.0.bias", "head.1.weight", "head.1.bias"}
    head |= {"head.1.running_mean", "head.1.running_var", "head.1.num_batches_tracked"}
    for epoch, (before, after) in enumerate(itertools.pairwise(states), 1):
        thawed = {f"features.features.{stage}" for stage in STAGES} if epoch >= THAW else set()
        assert changed(before, after) == head | thawed, epoch


def test_the_optimizer_begins_anew_when_the_backbone_thaws(tmp_path):
    t = trainer(tmp_path / "one")
    t.train(THAW)
    trainer(tmp_path / "two").train(THAW - 1)
    u = trainer(tmp_path / "two")
    load = u.load

    def load_networks(epoch: int, kept: dict) -> None:
        fresh = u.optimizer.state_dict()
        load(epoch, kept)
        u.optimizer.load_state_dict(fresh)

    u.load = load_networks  # type: ignore[method-assign]
    u.train(THAW)
    assert equal(state(t), state(u))


@pytest.mark.parametrize("epoch", [1, THAW])
def test_a_first_step_that_is_skipped_leaves_no_momentum(tmp_path, epoch):
    t = trainer(tmp_path / "skipped", loader=Loader(poisoned=((epoch, 0),)))
    t.train(epoch)
    assert json.loads((t.run.folder / "train.jsonl").read_text().splitlines()[-1])["skipped_steps"] == 1

    class Shorter(Loader):
        def epoch(self, number: int, sparse: bool, start: int = 0):
            yield from list(super().epoch(number, sparse, start))[number == epoch :]

    u = trainer(tmp_path / "shorter", loader=Shorter(), norm=True)
    u.train(epoch)
    weights = [[p.detach() for p in x.actor.plain_network.parameters()] for x in (t, u)]
    assert all(torch.equal(a, b) for a, b in zip(*weights))


def _train_on_rank(rank: int, size: int, folder: str) -> None:
    import os

    torch.set_num_threads(1)
    os.environ |= {"WORLD_SIZE": str(size), "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": Path(folder, "port").read_text()}
    group = start_process_group("cpu")
    t = trainer(Path(folder), group, norm=False)
    t.train(EPOCHS)
    torch.save(state(t), Path(folder) / f"{rank}.pth")
    group.close()


def test_two_processes_train_what_thaws_together(tmp_path):
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        (tmp_path / "port").write_text(str(probe.getsockname()[1]))
    mp.spawn(_train_on_rank, (2, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in (0, 1))
    assert equal(first, second)
    alone = trainer(tmp_path / "alone", norm=False)
    begun = state(alone)
    alone.train(EPOCHS)
    for name, value in state(alone).items():
        assert torch.allclose(first[name], value, rtol=1e-3, atol=1e-5), name
    assert {f"features.features.{stage}" for stage in STAGES} < changed(begun, first)
    assert "features.features.conv1" not in changed(begun, first)


@pytest.mark.parametrize(
    "network, pairs, message",
    [
        ("transt", ["optim.unfreeze_epoch", "7"], r"unfreeze_epoch 7: network 'transt' has no stages"),
        ("ocean", ["optim.unfreeze_stages", "layer1,layer9"], r"unfreeze_stages: no stage layer9.*layer1"),
        ("ocean", ["optim.schedule", "warmupdog"], r"optim.schedule 'warmupdog'.*warmuplog"),
        ("ocean", ["optim.name", "sdg"], r"optim.name 'sdg'.*sgd"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, network, pairs, message):
    settings = staged(tmp_path)
    settings.network.name = network
    settings.override(pairs)
    small = {
        "transt": {"backbone": "tiny", "hidden_dim": 8, "nheads": 2},
        "ocean": {"backbone": "ocean_tiny", "hidden_dim": 8},
    }
    built = build_network(network, small[network])
    with pytest.raises(UserError, match=message):
        make_optimizer(settings, built)
        make_schedule(settings, built)
