"""Learning rates as pure functions of epoch and step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
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


def _scale(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
