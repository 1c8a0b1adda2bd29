"""The actor of supervised training: labelled pairs in, loss out."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from config.settings import Settings
from ltr.actors.base import Objective, StepResult
from ltr.actors.picture import contact_sheet
from ltr.admin.process_group import ProcessGroup
from ltr.data.augment import StudentAugment
from ltr.data.bbox import clip_xywh, xywh_to_cxcywh

Part = dict[str, torch.Tensor]


class PairActor:
    """Trains a network on ``(template, search)`` pairs.

    Args:
        network: called with normalised template and search crops; may be wrapped for several processes.
        objective: turns its outputs and target boxes into a loss.
        settings: ``data`` (crop sizes), ``augment`` and ``train.precision`` are used.
        group: the processes that train together; ``group.device`` is where batches go.
    """

    def __init__(
        self, network: nn.Module, objective: Objective, settings: Settings, group: ProcessGroup
    ) -> None:
        self.network, self.objective, self.group = network, objective, group
        self.size = settings.data.search_size
        self.augment = StudentAugment(settings.augment)
        self._autocast = settings.train.precision == "bfloat16"

    @property
    def plain_network(self) -> nn.Module:
        """The network without its wrappers."""
        network = getattr(self.network, "_orig_mod", self.network)
        return getattr(network, "module", network)

    def train(self) -> None:
        """Put the network in training mode."""
        self.network.train()

    def __call__(self, batch: dict[str, Any], picture: bool = False) -> StepResult:
        """The loss of the labelled pairs ``batch["sup"]``; see ``ltr.data.loader`` for its tensors."""
        sup = self.place(batch["sup"])
        template, search, target = self.labelled(sup)
        with self.autocast():
            outputs = self.network(template, search)
        loss, stats = self.objective(full_precision(outputs), target, labelled=True)
        sheet = contact_sheet({"template": (template, None), "search": (search, target)}) if picture else None
        return StepResult(loss, {"loss": loss.detach(), **stats}, sheet)

    def labelled(self, sup: Part) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Augmented template ``[B, 3, h, w]``, search ``[B, 3, H, W]`` and target boxes (cxcywh_norm) of labelled pairs."""
        template, search = self.augment.pair(sup["template"], sup["search"], sup["draws"])
        return template, search, self.normalised(sup["search_bbox"])

    def normalised(self, bbox: torch.Tensor) -> torch.Tensor:
        """Boxes in crop px, cut at the crop's border, as cxcywh fractions of the crop."""
        return xywh_to_cxcywh(clip_xywh(bbox, self.size, self.size)) / self.size

    def place(self, part: Part) -> Part:
        """The tensors of a part of a batch on the device."""
        return {name: value.to(self.group.device, non_blocking=True) for name, value in part.items()}

    def autocast(self) -> torch.autocast:
        """bfloat16 for the network where ``train.precision`` says so."""
        return torch.autocast(self.group.device.type, torch.bfloat16, enabled=self._autocast)


def full_precision(outputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Network outputs as float32: losses and boxes are not computed in bfloat16."""
    return {name: value.float() for name, value in outputs.items()}
