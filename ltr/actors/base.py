"""An actor knows both the network and the objective: batch in, loss and statistics out."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn


class StepResult(NamedTuple):
    """What one step gives the trainer."""

    loss: torch.Tensor  # scalar with gradient
    stats: dict[str, torch.Tensor]  # scalars, detached, still on the device
    picture: np.ndarray | None = None  # some student inputs with boxes, RGB uint8 [H, W, 3], where asked for


class Decoded(Protocol):
    """The best box of each sample, as an objective's ``decode`` gives it."""

    bbox_cxcywh_norm: torch.Tensor  # [B, 4], fractions of the search crop
    score: torch.Tensor  # [B], windowed
    confidence: torch.Tensor  # [B], predicted IoU


class Objective(Protocol):
    """What the actors ask of a loss; see ``ltr.models.loss``."""

    def __call__(
        self,
        outputs: dict[str, torch.Tensor],
        target_cxcywh_norm: torch.Tensor,
        labelled: bool,
        weight: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss and statistics of a batch; ``weight [B]`` of 0 leaves a sample out."""

    def decode(self, outputs: dict[str, torch.Tensor], window_penalty: float) -> Any:
        """The best box of each sample."""


class Actor(Protocol):
    """What a trainer asks of an actor."""

    @property
    def plain_network(self) -> nn.Module:
        """The network without a wrapper for several processes or compilation."""

    def __call__(self, batch: dict[str, Any], picture: bool = False) -> StepResult:
        """The loss of one batch."""

    def train(self) -> None:
        """Put the trained network in training mode."""
