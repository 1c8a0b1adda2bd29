"""An actor knows both the network and the objective: batch in, loss and statistics out."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from config.settings import Settings
from ltr.admin.process_group import ProcessGroup

Part = dict[str, torch.Tensor]  # of a batch, or what is made of it


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


class NetworkActor:
    """What all actors do alike: hold a network, place batches, choose the precision.

    Args:
        network: what is trained; may be wrapped for several processes.
        settings: ``train.precision`` is used.
        group: the processes that train together; ``group.device`` is where batches go.
    """

    def __init__(self, network: nn.Module, settings: Settings, group: ProcessGroup) -> None:
        self.network, self.group = network, group
        self._autocast = settings.train.precision == "bfloat16"

    @property
    def plain_network(self) -> nn.Module:
        """The network without its wrappers."""
        network = getattr(self.network, "_orig_mod", self.network)
        return getattr(network, "module", network)

    def train(self) -> None:
        """Put the network in training mode."""
        self.network.train()

    def place(self, part: Part) -> Part:
        """The tensors of a part of a batch on the device."""
        return {name: value.to(self.group.device, non_blocking=True) for name, value in part.items()}

    def autocast(self) -> torch.autocast:
        """bfloat16 for the network where ``train.precision`` says so."""
        return torch.autocast(self.group.device.type, torch.bfloat16, enabled=self._autocast)


def full_precision(outputs: Part) -> Part:
    """Network outputs as float32: losses and boxes are not computed in bfloat16."""
    return {name: value.float() for name, value in outputs.items()}
