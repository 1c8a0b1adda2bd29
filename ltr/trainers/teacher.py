"""The teacher: a moving average of the student."""

from __future__ import annotations

import copy

import torch
from torch import nn


def make_teacher(student: nn.Module) -> nn.Module:
    """A copy of the student in evaluation mode, without gradients."""
    return copy.deepcopy(student).eval().requires_grad_(False)


class MovingAverage:
    """``teacher = keep_rate * teacher + (1 - keep_rate) * student``, running statistics included.

    All floating tensors move in one fused call; integer counters are averaged and truncated.
    Tarvainen and Valpola, Mean Teachers, NeurIPS 2017.

    Args:
        teacher, student: networks with the same state dict names and shapes.
        keep_rate: share of the teacher that stays at each update.
    """

    def __init__(self, teacher: nn.Module, student: nn.Module, keep_rate: float) -> None:
        self.keep_rate = keep_rate
        theirs = student.state_dict(keep_vars=True)
        pairs = [(value, theirs[name]) for name, value in teacher.state_dict(keep_vars=True).items()]
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Move the teacher towards the student."""
        teacher, student = [t for t, _ in self._floats], [s for _, s in self._floats]
        torch._foreach_lerp_(teacher, student, 1.0 - self.keep_rate)
        if self._counters:
            mine = torch.stack([t for t, _ in self._counters]).double()
            theirs = torch.stack([s for _, s in self._counters]).double()
            moved = (self.keep_rate * mine + (1.0 - self.keep_rate) * theirs).long()
            torch._foreach_copy_([t for t, _ in self._counters], list(moved.unbind()))
