"""Actors of ATOM: proposals in test frames are scored for the target of a train frame."""

from __future__ import annotations

from typing import ClassVar

from ltr.actors.base import Part
from ltr.actors.sequences import SequenceActor


class AtomActor(SequenceActor):
    """Learns the IoU of proposals (Danelljan et al., ATOM, CVPR 2019). ``objective``: "iou"."""

    known_terms: ClassVar = {"iou": ("iou",)}

    def terms(self, outputs: Part, data: Part) -> Part:
        """``iou``: of the predicted and the true ``2 * IoU - 1``."""
        return {"iou": self.objective["iou"](outputs["proposal_scores"], data["proposal_iou"])}


class AtomBBKLActor(SequenceActor):
    """Learns a density over boxes by maximum likelihood (Danelljan et al., PrDiMP, CVPR 2020). ``objective``: "bb_ml".

    The proposals begin with the target's box.
    """

    known_terms: ClassVar = {"bb_ml": ("bb_ml",)}

    def terms(self, outputs: Part, data: Part) -> Part:
        """``bb_ml``: negative log-likelihood of the box under the density that the scores stand for."""
        return {"bb_ml": self.objective["bb_ml"](outputs["proposal_scores"], data["proposal_density"])}
