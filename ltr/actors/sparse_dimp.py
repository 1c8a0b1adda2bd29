"""The actor of sparse supervision for DiMP: as ``SparseActor``, with a filter and an IoU network in place of pairs."""

from __future__ import annotations

import torch
from torch import nn

from config.settings import Settings
from ltr.actors.base import Part
from ltr.actors.picture import Row
from ltr.actors.sequences import sequence_rows
from ltr.actors.sparse import SparseActor
from ltr.actors.tracking import DiMPActor
from ltr.admin.process_group import ProcessGroup
from ltr.data.adaptive_crop import boxes_to_crop, boxes_to_image
from ltr.data.augment import normalise
from ltr.data.bbox import clip_xywh
from ltr.data.sparse_sequences import proposals_about
from ltr.models.bbreg.refine import by_autograd, climb, highest, peaks, starting_boxes
from ltr.models.tracking.dimp import STRIDE, DiMPnet
from ltr.ops.constant import constant

RATIOS = (0.8, 1.0, 1.25)  # of the coarse box's sides: where the teacher's boxes begin
CLIMBS, STEP = 10, 1.0  # iterations and step of refinement; PrDiMP's and SuperDiMP's trackers take as many


class SparseDiMPActor(SparseActor):
    """One sparse step of DiMP; what is accepted, recorded and averaged is that of ``SparseActor``.

    The teacher learns a filter on the key crop, takes the highest cell of the unlabeled crop, and lets boxes about
    it climb to where its IoU network scores them highest. Their mean is the box; their mean predicted IoU times the
    score of the cell is the confidence. The best one of them would be the one whose IoU is most over-estimated
    (docs/sparse_dimp.md has the figures). The student learns its
    filter on the relay crop and is judged on the aug crop: by the label map of the pseudo box and by the IoU of
    proposals about it, beside labelled pairs as train and test frames. Batches: ``ltr.data.sparse_sequences``.

    Bhat et al., DiMP, ICCV 2019; SPOT, Sparsely-Supervised Object Tracking, IEEE TIP 2024.

    Args:
        network: the student, a ``DiMPnet``; may be wrapped for several processes.
        teacher: its moving average, in evaluation mode.
        learner: says what supervised DiMP loses with its outputs; its weights are used.
        settings: ``data.search_size``, ``sequences.proposals.min_iou``, ``augment``, ``sparse`` and ``train.precision``
            are used.
        group: the processes that train together.
    """

    teacher: DiMPnet

    def __init__(
        self,
        network: nn.Module,
        teacher: nn.Module,
        learner: DiMPActor,
        settings: Settings,
        group: ProcessGroup,
    ) -> None:
        super().__init__(network, teacher, learner, settings, group)  # type: ignore[arg-type]  # losses of sequences
        self.learner = learner
        self.min_iou = settings.sequences.proposals.min_iou

    @torch.no_grad()
    def teach(self, unsup: Part) -> tuple[torch.Tensor, torch.Tensor]:
        """The teacher's boxes float64 ``[B, 4]`` (xywh in image px, cut at the image's border) and confidences ``[B]``."""
        coarse = unsup["unlabeled_bbox"]
        with self.autocast():
            network = self.teacher
            key, unlabeled = (
                network.extract_backbone(normalise(unsup[name])) for name in ("key", "unlabeled")
            )
            seen = [network.classification_features(features)[None] for features in (key, unlabeled)]
            fitted = network.classifier.get_filter(seen[0], unsup["key_bbox"][None])
            scores = network.classifier.classify(fitted.filter, seen[1])[0].float()
            modulation = network.bb_regressor.get_modulation(network.iou_features(key), unsup["key_bbox"])
            features = network.bb_regressor.get_iou_feat(network.iou_features(unlabeled))
        centre = peaks(scores, STRIDE, self.size, self.window_penalty)
        way = climb(
            by_autograd(lambda boxes: network.bb_regressor.predict_iou(modulation, features, boxes)),
            starting_boxes(centre, coarse[:, 2:], RATIOS),
            CLIMBS + 1,  # what the last step led to is not scored
            (STEP, STEP),
            most=2.0,
        )
        boxes, raised = highest(way)
        in_crop = boxes.mean(1).double()
        side = torch.full_like(in_crop[:, :2], self.size)
        width, height = unsup["image_size"].double().unbind(-1)
        bbox = clip_xywh(boxes_to_image(in_crop, unsup["unlabeled_rectangle"], side), width, height)
        iou = ((raised.mean(1) + 1) / 2).clamp(0, 1)
        return bbox, iou * scores.flatten(1).amax(1).clamp(0, 1)

    def labelled(self, sup: Part) -> Part:
        """Labelled pairs as the learner's data: the template is the train frame, the search crop the test frame."""
        template, search = self.augment.pair(sup["template"], sup["search"], sup["draws"])
        return self._data(template, sup["template_bbox"], search, sup["search_bbox"], sup["noise"])

    @torch.no_grad()
    def unlabelled(self, unsup: Part, bbox: torch.Tensor, order: torch.Tensor) -> Part:
        """Augmented relay and aug crops as the learner's data, with boxes ``[B, 4]`` of the image, in ``order``."""
        side = torch.full_like(bbox[:, :2], self.size)
        in_aug = boxes_to_crop(bbox, unsup["aug_rectangle"], side).float()
        # Augmentation counts from the middle of the first pixel.
        to_pixels = constant((0.5, 0.5, 0.0, 0.0), in_aug.dtype, in_aug.device)
        relay, aug, in_aug = self.augment.unlabelled_pair(
            unsup["relay"][order],
            unsup["aug"][order],
            in_aug[order] - to_pixels,
            unsup["aug_mean"][order],
            unsup["draws"],
        )
        return self._data(relay, unsup["relay_bbox"][order], aug, in_aug + to_pixels, unsup["noise"])

    def outputs(self, data: Part) -> Part:
        """What the student says, float32; see ``DiMPnet``."""
        return self.learner.outputs(data)

    def labelled_loss(self, outputs: Part, data: Part) -> tuple[torch.Tensor, Part]:
        """The weighted loss and its terms, detached."""
        return self.learner.losses(outputs, data)

    def together(self, labelled: Part, pseudo: Part) -> tuple[Part, Part]:
        """What the student says of both, in one call: its batch norms see them together."""
        count = labelled["test_bbox"].shape[1]
        outputs = self.outputs({name: torch.cat([labelled[name], pseudo[name]], 1) for name in labelled})
        first, rest = (_sequences(outputs, part) for part in (slice(count), slice(count, None)))
        return first, rest

    def pseudo_loss(self, outputs: Part, data: Part, taken: torch.Tensor) -> tuple[torch.Tensor, Part]:
        """As ``labelled_loss``; 0 where ``taken`` is 0."""
        loss, stats = self.learner.losses(outputs, data)
        return loss * taken, stats

    def rows(self, data: Part, template: str, search: str) -> dict[str, Row]:
        """Train and test frames with their boxes under these names, for a picture."""
        return sequence_rows(data, template, search)

    def _data(
        self,
        train: torch.Tensor,
        train_bbox: torch.Tensor,
        test: torch.Tensor,
        test_bbox: torch.Tensor,
        noise: torch.Tensor,
    ) -> Part:
        """Data of ``ltr.data.processing_ltr.prepare``: one train and one test frame of B sequences."""
        proposals, iou = proposals_about(test_bbox, noise, self.min_iou)
        data = {
            "train_images": train,
            "train_bbox": train_bbox,
            "test_images": test,
            "test_bbox": test_bbox,
            "proposals": proposals,
            "proposal_iou": 2 * iou - 1,
            "test_label": self.learner.labels["test_label"](test_bbox),
        }
        return {name: value[None] for name, value in data.items()}


def _sequences(outputs: Part, part: slice) -> Part:
    """The outputs of some of the sequences."""
    scores, proposals = outputs["target_scores"], outputs["proposal_scores"]
    return {"target_scores": scores[:, :, part], "proposal_scores": proposals[:, part]}
