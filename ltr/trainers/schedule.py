"""Learning rates as pure functions of epoch and step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Protocol

import torch


class Schedule(Protocol):
    """Sets the learning rates (and what is trained) of an optimizer; called before every step.

    Each parameter group carries its full rate as ``group["initial_lr"]``.
    """

    def begin_epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        """Called once at the start of each 1-based ``epoch``, also after a resume."""

    def begin_step(self, epoch: int, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Called before each 0-based ``step`` of ``epoch``."""


class StepDrop:
    """Full rate in epochs 1 to ``drop_epoch``, ``gamma`` times that afterwards."""

    def __init__(self, drop_epoch: int, gamma: float) -> None:
        self.drop_epoch, self.gamma = drop_epoch, gamma

    def begin_epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        _scale(optimizer, self.gamma if epoch > self.drop_epoch else 1.0)

    def begin_step(self, epoch: int, step: int, optimizer: torch.optim.Optimizer) -> None:
        pass


class StepEvery:
    """``gamma`` times the rate after every ``interval`` epochs."""

    def __init__(self, interval: int, gamma: float) -> None:
        self.interval, self.gamma = interval, gamma

    def begin_epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        _scale(optimizer, self.gamma ** ((epoch - 1) // self.interval))

    def begin_step(self, epoch: int, step: int, optimizer: torch.optim.Optimizer) -> None:
        pass


class OneCycle:
    """Linear warm-up from a twenty-fifth of the full rate, then a cosine down to a thousandth of it.

    After Smith and Topin, Super-Convergence (2018); for short runs.

    Args:
        epochs, iterations: length of the run in epochs, and of an epoch in steps.
        warmup: share of all steps on the way up.
    """

    def __init__(self, epochs: int, iterations: int, warmup: float) -> None:
        self.iterations, self.total = iterations, epochs * iterations
        self.rise = max(1, round(warmup * self.total))

    def begin_epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        pass

    def begin_step(self, epoch: int, step: int, optimizer: torch.optim.Optimizer) -> None:
        done = (epoch - 1) * self.iterations + step
        if done < self.rise:
            factor = 0.04 + 0.96 * done / self.rise
        else:
            share = min(1.0, (done - self.rise) / max(1, self.total - self.rise))
            factor = 0.001 + 0.999 * 0.5 * (1.0 + math.cos(math.pi * share))
        _scale(optimizer, factor)


class WarmUpLog:
    """Fifty rates, each held for a fiftieth of the epochs, as SPOT trains Ocean.

    Five rise geometrically from a fifth of the full rate and stop one such step below it; 45 fall
    geometrically from the full rate to a 500th of it.

    Args:
        epochs: length of the run.
    """

    _RISE = tuple(5.0 ** (i / 5 - 1) for i in range(5))
    _FALL = tuple(500.0 ** (-i / 44) for i in range(45))

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def begin_epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        factors = self._RISE + self._FALL
        _scale(optimizer, factors[min((epoch - 1) * len(factors) // self.epochs, len(factors) - 1)])

    def begin_step(self, epoch: int, step: int, optimizer: torch.optim.Optimizer) -> None:
        pass


class Staged(Protocol):
    """A network whose backbone can be frozen in part."""

    def set_trainable(self, stages: Collection[str]) -> None:
        """Train exactly these stages of the backbone; ``ValueError`` where one does not exist."""


class Unfreezing:
    """The backbone is frozen at first; from an epoch on, some of its stages are trained too.

    What is trained depends on the epoch alone, so a resumed run needs nothing but its optimizer's
    state, which begins anew in that epoch.

    Args:
        rates: sets the learning rates.
        network: the student without wrappers; all its parameters are the optimizer's from the start.
        epoch: the first one in which ``stages`` are trained.
        stages: names that ``network.set_trainable`` knows.

    Raises:
        ValueError: the backbone has no such stage.
    """

    def __init__(self, rates: Schedule, network: Staged, epoch: int, stages: Collection[str]) -> None:
        self.rates, self.network, self.epoch, self.stages = rates, network, epoch, tuple(stages)
        network.set_trainable(self.stages)  # a wrong name shows now, not after days

    def begin_epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> None:
        self.network.set_trainable(self.stages if epoch >= self.epoch else ())
        if epoch == self.epoch:
            _restart(optimizer)
        self.rates.begin_epoch(epoch, optimizer)

    def begin_step(self, epoch: int, step: int, optimizer: torch.optim.Optimizer) -> None:
        self.rates.begin_step(epoch, step, optimizer)


def _restart(optimizer: torch.optim.Optimizer) -> None:
    """Momenta, moments and step counters as they are before the first step: all of torch's begin at 0."""
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor):
                value.zero_()


def _scale(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
