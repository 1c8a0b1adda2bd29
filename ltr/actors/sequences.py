"""What the actors of sequences share: a batch of train and test frames in, weighted losses out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from config.errors import UserError, nearest
from config.settings import Settings
from ltr.actors.base import NetworkActor, Part, StepResult, full_precision
from ltr.actors.picture import Row, contact_sheet
from ltr.admin.process_group import ProcessGroup
from ltr.data.bbox import xywh_to_cxcywh
from ltr.data.processing_ltr import Label, prepare
from ltr.data.transforms import SequenceAugment


class SequenceActor(NetworkActor, ABC):
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
        super().__init__(network, settings, group)
        self.objective = dict(objective)
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

    def __call__(self, batch: dict[str, Any], picture: bool = False) -> StepResult:
        """The loss of the sequences ``batch["sup"]``; see ``ltr.data.processing_ltr`` for its tensors."""
        data = self.prepare(batch["sup"])
        loss, stats = self.losses(self.outputs(data), data)
        sheet = contact_sheet(sequence_rows(data, "train", "test")) if picture else None
        return StepResult(loss, {"loss": loss.detach(), **stats}, sheet)

    def prepare(self, part: Part) -> Part:
        """Network inputs and targets on the device."""
        augment = self.augment if self.plain_network.training else self._unchanged
        return prepare(self.place(part), augment, self.labels)

    def inputs(self, data: Part) -> Part:
        """The arguments of the network, by name."""
        names = ("train_images", "test_images", "train_bbox")
        return {**{name: data[name] for name in names}, "test_proposals": data["proposals"]}

    def outputs(self, data: Part) -> Part:
        """What the network says, float32."""
        with self.autocast():
            return full_precision(self.network(**self.inputs(data)))

    def losses(self, outputs: Part, data: Part) -> tuple[torch.Tensor, Part]:
        """The weighted loss, and its terms, detached."""
        terms = self.terms(outputs, data)
        loss = torch.stack([weight * terms[name] for name, weight in self.loss_weight.items()]).sum()
        return loss, {f"loss_{name}": term.detach() for name, term in terms.items()}

    @abstractmethod
    def terms(self, outputs: Part, data: Part) -> Part:
        """The terms of the loss before weighting, scalars.

        Args:
            outputs: of the network, float32.
            data: what ``ltr.data.processing_ltr.prepare`` returns.
        """


def sequence_rows(data: Part, train: str, test: str) -> dict[str, Row]:
    """The first train and test frames of some sequences with the target's box, under these names, for a picture."""
    return {
        name: (images[0], xywh_to_cxcywh(data[f"{kind}_bbox"][0]) / images.shape[-1])
        for name, kind in ((train, "train"), (test, "test"))
        for images in [data[f"{kind}_images"]]
    }
