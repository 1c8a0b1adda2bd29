"""What the actors of sequences share: a batch of train and test frames in, weighted losses out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from config.errors import UserError, nearest
from config.settings import Settings
from ltr.actors.base import StepResult
from ltr.actors.pairs import full_precision
from ltr.actors.picture import contact_sheet
from ltr.admin.process_group import ProcessGroup
from ltr.data.bbox import xywh_to_cxcywh
from ltr.data.processing_ltr import Label, prepare
from ltr.data.transforms import SequenceAugment

Tensors = dict[str, torch.Tensor]


class SequenceActor(ABC):
    """Trains a network on sequences; a family says what its losses are.

    In evaluation mode of the network images are normalised, and not changed otherwise.

    Args:
        network: called with ``inputs``; may be wrapped for several processes.
        objective: the losses, by the names that ``terms`` knows.
        loss_weight: of each term, by name; terms without a weight do not count, but are logged.
        labels: which score maps to make of the boxes, see ``ltr.data.processing_ltr.prepare``.
        settings: ``augment``, ``sequences.mirror`` and ``train.precision`` are used.
        group: the processes that train together; ``group.device`` is where batches go.

    Raises:
        UserError: a weight for a term that there is not.
    """

    known_terms: ClassVar[Mapping[str, tuple[str, ...]]]  # loss -> its terms

    def __init__(
        self,
        network: nn.Module,
        objective: Mapping[str, nn.Module],
        loss_weight: Mapping[str, float],
        labels: Mapping[str, Label],
        settings: Settings,
        group: ProcessGroup,
    ) -> None:
        self.network, self.objective, self.group = network, dict(objective), group
        self.loss_weight, self.labels = dict(loss_weight), dict(labels)
        terms = [term for loss in self.objective for term in self.known_terms[loss]]
        for name in self.loss_weight:
            if name not in terms:
                raise UserError(
                    f"setting objective.{name}: {type(self).__name__} has no such term, {nearest(name, terms)}"
                )
        augment = settings.augment
        self.augment = SequenceAugment(
            gray=augment.gray, brightness=augment.brightness, mirror=settings.sequences.mirror
        )
        self._unchanged = SequenceAugment(gray=0.0, brightness=0.0, mirror=0.0)
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
        """The loss of the sequences ``batch["sup"]``; see ``ltr.data.processing_ltr`` for its tensors."""
        data = self.prepare(batch["sup"])
        with torch.autocast(self.group.device.type, torch.bfloat16, enabled=self._autocast):
            outputs = self.network(**self.inputs(data))
        terms = self.terms(full_precision(outputs), data)
        loss = torch.stack([weight * terms[name] for name, weight in self.loss_weight.items()]).sum()
        stats = {"loss": loss.detach(), **{f"loss_{name}": term.detach() for name, term in terms.items()}}
        return StepResult(loss, stats, _picture(data) if picture else None)

    def prepare(self, part: Tensors) -> Tensors:
        """Network inputs and targets on the device."""
        placed = {name: value.to(self.group.device, non_blocking=True) for name, value in part.items()}
        augment = self.augment if self.plain_network.training else self._unchanged
        return prepare(placed, augment, self.labels)

    def inputs(self, data: Tensors) -> Tensors:
        """The arguments of the network, by name."""
        names = ("train_images", "test_images", "train_bbox")
        return {**{name: data[name] for name in names}, "test_proposals": data["proposals"]}

    @abstractmethod
    def terms(self, outputs: Tensors, data: Tensors) -> Tensors:
        """The terms of the loss before weighting, scalars.

        Args:
            outputs: of the network, float32.
            data: what ``ltr.data.processing_ltr.prepare`` returns.
        """


def _picture(data: Tensors) -> np.ndarray:
    """The first train and test frames of some sequences, with the target's box."""
    return contact_sheet(
        {
            kind: (images[0], xywh_to_cxcywh(data[f"{kind}_bbox"][0]) / images.shape[-1])
            for kind in ("train", "test")
            for images in [data[f"{kind}_images"]]
        }
    )
