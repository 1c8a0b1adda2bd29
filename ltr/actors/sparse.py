"""The actor of sparse supervision: a teacher locates, a student learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from config.settings import Settings
from ltr.actors.base import Objective, Part, StepResult, full_precision
from ltr.actors.pairs import PairActor
from ltr.actors.picture import contact_sheet
from ltr.admin.process_group import ProcessGroup
from ltr.data.augment import normalise
from ltr.data.bbox import clip_xywh, cxcywh_to_xywh
from ltr.data.crop import box_to_crop, box_to_image
from ltr.data.sampler_state import RECORD

# Of a batch: what is random in a place of the student's batch, whichever instance comes there; what it is not shown.
_OF_PLACES = ("draws", "noise")
_NOT_SHOWN = ("key", "unlabeled")


class SparseActor(PairActor):
    """One sparse step: the teacher's confident boxes train the student beside the labelled pairs.

    teacher(key, unlabeled) gives a box and its predicted IoU; boxes under the threshold are dropped,
    the others are recorded in image coordinates and mapped into the aug crop; student(relay, aug)
    learns from them together with student(template, search). SPOT, Sparsely-Supervised Object Tracking, IEEE TIP 2024.

    Args:
        network: the student.
        teacher: its moving average, in evaluation mode.
        rest: as for ``PairActor``; ``settings.sparse`` is used too.
    """

    def __init__(
        self,
        network: nn.Module,
        teacher: nn.Module,
        objective: Objective,
        settings: Settings,
        group: ProcessGroup,
    ) -> None:
        super().__init__(network, objective, settings, group)
        self.teacher = teacher
        self.threshold = settings.sparse.confidence_threshold
        self.window_penalty = settings.sparse.window_penalty
        self._found: list[torch.Tensor] = []

    def __call__(self, batch: dict[str, Any], picture: bool = False) -> StepResult:
        """The loss of one batch; without an unsupervised part it is that of the labelled pairs."""
        if "unsup" not in batch:
            return super().__call__(batch, picture)
        sup, unsup = self.place(batch["sup"]), self.place(batch["unsup"])

        bbox, confidence = self.teach(unsup)
        accepted = confidence >= self.threshold
        self._record(unsup, accepted, bbox, confidence)
        taken, shown, boxes, order = self.refilled(unsup, bbox, accepted)

        labelled, pseudo = self.labelled(sup), self.unlabelled(shown, boxes, order)
        outputs_sup, outputs_unsup = self.together(labelled, pseudo)
        loss_sup, stats = self.labelled_loss(outputs_sup, labelled)
        loss_unsup, pseudo_stats = self.pseudo_loss(outputs_unsup, pseudo, taken)

        count = len(sup["index"])
        share = taken * len(unsup["index"])  # 0 where nothing at all was accepted
        loss = (count * loss_sup + share * loss_unsup) / (count + share)
        nothing = torch.full_like(loss.detach(), torch.nan)  # left out of the epoch's mean
        stats = {
            "loss": loss.detach(),
            **stats,
            "loss_unsup": loss_unsup.detach(),
            "acceptance": accepted.float().mean(),
            **{f"pseudo_{name}": torch.where(taken > 0, v, nothing) for name, v in pseudo_stats.items()},
        }
        rows = (
            self.rows(labelled, "template", "search") | self.rows(pseudo, "relay", "aug") if picture else {}
        )
        return StepResult(loss, stats, contact_sheet(rows) if picture else None)

    @torch.no_grad()
    def teach(self, unsup: Part) -> tuple[torch.Tensor, torch.Tensor]:
        """The teacher's boxes ``[B, 4]`` (xywh in image px, cut at the image's border) and predicted IoUs ``[B]``."""
        with self.autocast():
            outputs = full_precision(self.teacher(normalise(unsup["key"]), normalise(unsup["unlabeled"])))
        found = self.objective.decode(outputs, self.window_penalty)
        in_crop = cxcywh_to_xywh(found.bbox_cxcywh_norm.double() * self.size)
        bbox = box_to_image(in_crop, unsup["unlabeled_extract"], unsup["unlabeled_factor"], self.size)
        width, height = unsup["image_size"].double().unbind(-1)
        return clip_xywh(bbox, width, height), found.confidence

    @torch.no_grad()
    def refilled(
        self, unsup: Part, bbox: torch.Tensor, accepted: torch.Tensor
    ) -> tuple[torch.Tensor, Part, torch.Tensor, torch.Tensor]:
        """What fills this process's places of the student's unsupervised batch, as in one process with all of it.

        An instance may lie on another process, so the crops of all go round (uint8, about a fifteenth of the
        gradients of a TransT at the published batch).

        Returns:
            1 where anything was accepted, else 0; the instances of all processes, their boxes ``[N, 4]``, and which of
            them fills each place, int64 ``[B]``.
        """
        everywhere = self.group.gather_rows(accepted.to(torch.uint8)) > 0
        first = self.group.rank * len(accepted)
        order = refill_order(everywhere)[first : first + len(accepted)]
        shown = {name: value for name, value in unsup.items() if name not in _NOT_SHOWN}
        for name in sorted(shown.keys() - set(_OF_PLACES)):  # in the same order everywhere
            shown[name] = self.group.gather_rows(shown[name])
        return everywhere.any().float(), shown, self.group.gather_rows(bbox), order

    @torch.no_grad()
    def unlabelled(self, unsup: Part, bbox: torch.Tensor, order: torch.Tensor) -> Part:
        """Augmented relay and aug crops as ``labelled`` data, with boxes ``[B, 4]`` of the image, in ``order``."""
        in_aug = box_to_crop(bbox, unsup["aug_extract"], unsup["aug_factor"], self.size).float()
        relay, aug, in_aug = self.augment.unlabelled_pair(
            unsup["relay"][order],
            unsup["aug"][order],
            in_aug[order],
            unsup["aug_mean"][order],
            unsup["draws"],
        )
        return {"template": relay, "search": aug, "target": self.normalised(in_aug)}

    def together(self, labelled: Part, pseudo: Part) -> tuple[Part, Part]:
        """What the student says of both, in one call: its batch norms see them together."""
        count = len(labelled["target"])
        outputs = self.outputs({name: torch.cat([labelled[name], pseudo[name]]) for name in labelled})
        first, rest = slice(count), slice(count, None)
        return {k: v[first] for k, v in outputs.items()}, {k: v[rest] for k, v in outputs.items()}

    def pseudo_loss(self, outputs: Part, data: Part, taken: torch.Tensor) -> tuple[torch.Tensor, Part]:
        """Loss and statistics of pseudo labels; ``taken`` is 0 where nothing was accepted: then the loss is 0."""
        weight = taken.expand(len(data["target"]))
        return self.objective(outputs, data["target"], labelled=False, weight=weight)

    def _record(
        self, unsup: Part, accepted: torch.Tensor, bbox: torch.Tensor, confidence: torch.Tensor
    ) -> None:
        columns = torch.stack([accepted, unsup["index"], unsup["row"], unsup["frame"]], 1).double()
        self._found.append(torch.cat([columns, bbox.double(), confidence.double()[:, None]], 1))

    def take_records(self) -> np.ndarray:
        """The accepted pseudo labels since the last call, as ``RECORD`` rows."""
        if not self._found:
            return np.zeros(0, RECORD)
        table = torch.cat(self._found).cpu().numpy()
        self._found = []
        table = table[table[:, 0] > 0]
        records = np.zeros(len(table), RECORD)
        records["order"], records["row"], records["frame"] = table[:, 1], table[:, 2], table[:, 3]
        records["bbox"], records["confidence"] = table[:, 4:8], table[:, 8]
        return records


def refill_order(accepted: torch.Tensor) -> torch.Tensor:
    """Which instance fills each slot of the student's unsupervised batch.

    The accepted instances in their order, repeated from the first until the batch is full; without
    any, the order as it is. No synchronisation with the host.

    Args:
        accepted: bool ``[B]``.

    Returns:
        int64 ``[B]``.
    """
    first = torch.argsort(~accepted, stable=True)
    slot = torch.arange(len(accepted), device=accepted.device)
    return first[slot % torch.where(accepted.any(), accepted.sum(), len(accepted))]
