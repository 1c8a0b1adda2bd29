"""The loop: non-finite gradients, bad samples, and going on from any epoch."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
import torch

from config.defaults import get_defaults
from config.errors import UserError
from ltr.actors.base import StepResult
from ltr.admin.process_group import ProcessGroup
from ltr.admin.run import Run
from ltr.train_settings.common import begin
from ltr.trainers.ltr_trainer import LTRTrainer
from ltr.trainers.schedule import OneCycle


class Actor:
    """Fits a line with dropout; a batch may poison its gradient."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.plain_network = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1)
        )

    def train(self) -> None:
        self.plain_network.train()

    def __call__(self, batch, picture=False) -> StepResult:
        x = batch["sup"]["x"]
        loss = (self.plain_network(x)[:, 0] - x.sum(1)).square().mean() * batch["sup"]["scale"]
        return StepResult(loss, {"loss": loss.detach()})


class Loader:
    def __init__(self, poisoned=(), bad=(), signals=()) -> None:
        self.poisoned, self.bad, self.signals = set(poisoned), set(bad), dict(signals)

    def epoch(self, epoch: int, sparse: bool, start: int = 0):
        for step in range(start, 4):
            torch.manual_seed(100 * epoch + step)
            if number := self.signals.pop((epoch, step), 0):
                signal.raise_signal(number)
            scale = torch.tensor(float("inf") if (epoch, step) in self.poisoned else 1.0)
            sup = {"x": torch.randn(6, 4), "scale": scale, "index": torch.arange(6)}
            yield {"sup": sup, "bad": ["img.jpg: is truncated"] if (epoch, step) in self.bad else []}


def trainer(folder: Path, loader: Loader | None = None, clip: float = 0.0) -> LTRTrainer:
    settings = get_defaults()
    settings.paths.var, settings.module_name, settings.variant = str(folder), "m", "v"
    settings.train.epochs, settings.train.iterations = 5, 4
    settings.train.save_interval, settings.train.resume_interval = 2, 1
    settings.train.tensorboard, settings.optim.clip_norm = False, clip
    settings.train.max_nonfinite, settings.data.max_bad_samples = 3, 2
    group, actor = ProcessGroup(0, 1, torch.device("cpu")), Actor()
    parameters = [{"params": list(actor.plain_network.parameters()), "lr": 0.05, "initial_lr": 0.05}]
    return LTRTrainer(
        actor=actor,
        loader=loader or Loader(),
        optimizer=torch.optim.AdamW(parameters, fused=True),
        schedule=OneCycle(5, 4, 0.2),
        run=Run(settings, "Net", group),
        group=group,
    )


def weights(t: LTRTrainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in t.actor.plain_network.parameters()]


def equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b))


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_run_in_two_parts_is_the_run_in_one(tmp_path, stop):
    whole = trainer(tmp_path / "whole")
    whole.train(5)
    first = trainer(tmp_path / "parts")
    first.train(stop)
    (first.run.folder / "train.jsonl").open("ab").write(b'{"epoch":99}\n')  # written, but never saved
    del first
    second = trainer(tmp_path / "parts")
    second.train(5)
    assert equal(weights(whole), weights(second))
    logs = [(t.run.folder / "train.jsonl").read_bytes() for t in (whole, second)]
    assert logs[0] == logs[1] and [json.loads(line)["epoch"] for line in logs[0].splitlines()] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert second.run.store.epochs() == sorted({2, 4, 5, stop})  # the last epoch of a call is kept


@pytest.mark.faults
@pytest.mark.parametrize("moments", [[(1, 0)], [(2, 3)], [(1, 2), (1, 3), (3, 1), (5, 3)]])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_step_and_costs_nothing(tmp_path, capsys, number, moments):
    faults = {"poisoned": [(1, 1), (3, 1), (3, 2)], "bad": [(1, 0), (1, 2), (3, 0), (3, 3)]}
    whole = trainer(tmp_path / "whole", Loader(**faults))
    whole.train(5)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job's may be ignored
    try:
        for epoch, step in moments:
            part = trainer(tmp_path / "parts", Loader(signals={(epoch, step): number}, **faults))
            with pytest.raises((KeyboardInterrupt, SystemExit)) as end:
                part.train(5)
            assert isinstance(end.value, KeyboardInterrupt) or end.value.code == 143
            assert (part.epoch, part.step) == (epoch - 1, step + 1)
            said = f"saved after epoch {epoch - 1} and {step + 1} steps of the next"
            assert said in capsys.readouterr().out
            part.run._lock.close()  # as the end of its process would
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupt)
    parts = trainer(tmp_path / "parts", Loader(**faults))
    parts.train(5)
    assert equal(weights(whole), weights(parts))
    whole_log, parts_log = ((t.run.folder / "train.jsonl").read_bytes() for t in (whole, parts))
    assert whole_log == parts_log and b'"skipped_steps":2' in whole_log and b'"bad_samples":2' in whole_log
    files = [{path.name for path in t.run.folder.iterdir()} for t in (whole, parts)]
    assert files[0] == files[1]  # what was saved within an epoch is gone


@pytest.mark.faults
def test_a_second_signal_ends_the_run_at_once(tmp_path):
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        loader = Loader(signals={(2, 1): signal.SIGINT})
        t = trainer(tmp_path, loader)
        step = t._step

        def interrupted(epoch, number, *rest):
            if (epoch, number) == (2, 1):
                signal.raise_signal(signal.SIGINT)
            return step(epoch, number, *rest)

        t._step = interrupted  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            t.train(5)
    finally:
        signal.signal(signal.SIGINT, interrupt)
    assert (t.epoch, t.step) == (1, 1)
    assert t.run.store.newest() == 1 and t.run.store.newest_step(1) is None


@pytest.mark.faults
@pytest.mark.parametrize("damage", ["s", "state", "manifest", "base"])
def test_a_damaged_save_within_an_epoch_is_named_and_the_epoch_before_is_taken(tmp_path, capsys, damage):
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        t = trainer(tmp_path / "parts", Loader(signals={(4, 1): signal.SIGINT}))
        with pytest.raises(KeyboardInterrupt):
            t.train(5)
    finally:
        signal.signal(signal.SIGINT, interrupt)
    store = t.run.store
    path = {"manifest": store.manifest(3, 2), "base": store.weights(3, "s")}.get(damage) or store.weights(
        3, damage, 2
    )
    path.write_bytes(path.read_bytes()[:-7])
    t.run._lock.close()
    capsys.readouterr()
    parts, whole = trainer(tmp_path / "parts"), trainer(tmp_path / "whole")
    parts.train(5)
    printed = capsys.readouterr()
    assert f"going on after epoch {2 if damage == 'base' else 3} (" in printed.out
    assert path.name in printed.err and "falling back to the checkpoint before it" in printed.err
    whole.train(5)
    assert equal(weights(whole), weights(parts))


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_a_step_with_a_non_finite_gradient_changes_nothing(tmp_path, clip):
    t = trainer(tmp_path, Loader(poisoned=[(1, 2)]), clip)
    seen = []
    update = t._guarded_update
    t._guarded_update = lambda: (seen.append(weights(t)), update(), seen.append(weights(t)))  # type: ignore[method-assign]
    t.train(1)
    for step in range(4):
        assert equal(seen[2 * step], seen[2 * step + 1]) == (step == 2)
    assert all(torch.isfinite(w).all() for w in weights(t))
    state = t.optimizer.state_dict()["state"][0]
    assert state["step"].item() == 3
    log = json.loads((t.run.folder / "train.jsonl").read_text())
    assert log["skipped_steps"] == 1 and log["loss"] is not None


def test_gradients_that_stay_non_finite_stop_the_run(tmp_path):
    t = trainer(tmp_path, Loader(poisoned=[(2, step) for step in range(1, 4)]))
    with pytest.raises(UserError, match="not finite in 3 steps in a row.*optim.lr"):
        t.train(5)
    assert t.run.store.newest() == 1


def test_too_many_bad_samples_stop_the_run_and_name_the_file(tmp_path, capsys):
    t = trainer(tmp_path, Loader(bad=[(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]))
    with pytest.raises(UserError, match=r"more than 2 unreadable samples.*img.jpg: is truncated"):
        t.train(5)
    assert t.run.store.newest() == 1
    assert "sample replaced: img.jpg" in capsys.readouterr().err
    assert json.loads((t.run.folder / "train.jsonl").read_text().splitlines()[0])["bad_samples"] == 2


@pytest.mark.parametrize(
    "key, value", [("train.resume_interval", "0"), ("data.workers", "-1"), ("seed", "-3")]
)
def test_an_impossible_setting_is_refused_before_anything_is_opened(key, value):
    settings = get_defaults()
    settings.override([key, value])
    with pytest.raises(UserError, match=rf"setting {key} {value}: must be at least \d"):
        begin(settings)
