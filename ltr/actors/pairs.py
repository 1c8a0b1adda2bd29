"""The actor of supervised training: labelled pairs in, loss out."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from config.settings import Settings
from ltr.actors.base import NetworkActor, Objective, Part, StepResult, full_precision
from ltr.actors.picture import Row, contact_sheet
from ltr.admin.process_group import ProcessGroup
from ltr.data.augment import StudentAugment
from ltr.data.bbox import clip_xywh, xywh_to_cxcywh


class PairActor(NetworkActor):
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
        super().__init__(network, settings, group)
        self.objective = objective
        self.size = settings.data.search_size
        self.augment = StudentAugment(settings.augment)

    def __call__(self, batch: dict[str, Any], picture: bool = False) -> StepResult:
        """The loss of the labelled pairs ``batch["sup"]``; see ``ltr.data.loader`` for its tensors."""
        data = self.labelled(self.place(batch["sup"]))
        loss, stats = self.labelled_loss(self.outputs(data), data)
        sheet = contact_sheet(self.rows(data, "template", "search")) if picture else None
        return StepResult(loss, {"loss": loss.detach(), **stats}, sheet)

    def labelled(self, sup: Part) -> Part:
        """Augmented ``template [B, 3, h, w]``, ``search [B, 3, H, W]`` and ``target [B, 4]`` (cxcywh_norm)."""
        template, search = self.augment.pair(sup["template"], sup["search"], sup["draws"])
        return {"template": template, "search": search, "target": self.normalised(sup["search_bbox"])}

    def outputs(self, data: Part) -> Part:
        """What the network says, float32."""
        with self.autocast():
            return full_precision(self.network(data["template"], data["search"]))

    def labelled_loss(self, outputs: Part, data: Part) -> tuple[torch.Tensor, Part]:
        """Loss and statistics of labelled data."""
        return self.objective(outputs, data["target"], labelled=True)

    def rows(self, data: Part, template: str, search: str) -> dict[str, Row]:
        """The crops with their boxes under these names, for a picture."""
        return {template: (data["template"], None), search: (data["search"], data["target"])}

    def normalised(self, bbox: torch.Tensor) -> torch.Tensor:
        """Boxes in crop px, cut at the crop's border, as cxcywh fractions of the crop."""
        return xywh_to_cxcywh(clip_xywh(bbox, self.size, self.size)) / self.size
