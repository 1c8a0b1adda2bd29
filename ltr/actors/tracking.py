"""Actors of DiMP, PrDiMP and SuperDiMP: a target classifier and a box regressor learn together."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from ltr.actors.base import Part
from ltr.actors.sequences import SequenceActor

HINGE_TERMS = ("test_clf", "test_init_clf", "test_iter_clf")
DENSITY_TERMS = ("clf_ce", "clf_ce_init", "clf_ce_iter")


class DiMPActor(SequenceActor):
    """Learns to classify, and the IoU of proposals (Bhat et al., DiMP, ICCV 2019).

    ``objective``: "iou", and "test_clf" with the label ``test_label``. The classifier's loss comes three times: of the
    last filter, of the initial one (``..._init_...``), and the mean of those in between (``..._iter_...``). A label
    ``train_label`` is given to the network.
    """

    known_terms: ClassVar = {"iou": ("iou",), "test_clf": HINGE_TERMS}

    def inputs(self, data: Part) -> Part:
        """As for all sequences; the labels of train frames where the network takes them from outside."""
        given = super().inputs(data)
        return given | {"train_label": data["train_label"]} if "train_label" in self.labels else given

    def terms(self, outputs: Part, data: Part) -> Part:
        """``iou`` of the proposals and the classifier's three terms."""
        iou = self.objective["iou"](outputs["proposal_scores"], data["proposal_iou"])
        scores, label = outputs["target_scores"], data["test_label"]
        return {"iou": iou, **classification_terms(self.objective["test_clf"], scores, label, HINGE_TERMS)}


class KLDiMPActor(DiMPActor):
    """Learns a density over boxes (Danelljan et al., PrDiMP, CVPR 2020), and to classify in either way.

    ``objective``: "bb_ce", and "clf_ce" with the label ``test_label_density`` (PrDiMP) or "test_clf" with the label
    ``test_label`` (SuperDiMP).
    """

    known_terms: ClassVar = {"bb_ce": ("bb_ce",), "clf_ce": DENSITY_TERMS, "test_clf": HINGE_TERMS}

    def terms(self, outputs: Part, data: Part) -> Part:
        """``bb_ce`` of the proposals and the terms of the classifiers that there is an objective for."""
        densities = data["proposal_density"], data["gt_density"]
        found = {"bb_ce": self.objective["bb_ce"](outputs["proposal_scores"], *densities)}
        for loss, label in (("clf_ce", "test_label_density"), ("test_clf", "test_label")):
            if loss in self.objective:
                names = self.known_terms[loss]
                found |= classification_terms(
                    self.objective[loss], outputs["target_scores"], data[label], names
                )
        return found


def classification_terms(
    loss: nn.Module, scores: torch.Tensor, label: torch.Tensor, names: tuple[str, ...]
) -> Part:
    """The loss of the filters along the optimiser's way.

    Args:
        loss: of score maps and labels ``[F, S, h, w]``.
        scores: by the filter after each iteration, from the initial one on ``[iterations + 1, F, S, h, w]``.
        label: ``[F, S, h, w]``.
        names: of the terms: of the last filter, the initial one, the mean of those in between (0 without any).
    """
    losses = torch.stack([loss(maps, label) for maps in scores])
    between = losses[1:-1].sum() / max(len(losses) - 2, 1)
    return dict(zip(names, (losses[-1], losses[0], between)))
