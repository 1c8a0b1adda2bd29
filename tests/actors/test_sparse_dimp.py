"""One sparse step of DiMP: crops, the teacher's box, the record, and what the student learns."""

from __future__ import annotations

import copy

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from config.defaults import get_defaults
from config.errors import UserError
from ltr.actors.sparse_dimp import CLIMBS, RATIOS, STEP, SparseDiMPActor
from ltr.admin.process_group import ProcessGroup
from ltr.data.adaptive_crop import boxes_to_crop, boxes_to_image
from ltr.data.augment import DRAWS, Draw, normalise
from ltr.data.bbox import iou_xyxy, xywh_to_cxcywh, xywh_to_xyxy
from ltr.data.processing_ltr import Jitter
from ltr.data.sampler import FrameBox, LabelledPair, SparseInstance
from ltr.data.sparse_sequences import SparseSequenceProcessing, proposals_about
from ltr.models.bbreg.refine import by_autograd, climb, highest, peaks, starting_boxes
from ltr.models.registry import build_network
from ltr.models.tracking.dimp import STRIDE
from ltr.train_settings.spot import dimp

SIZE, B, P = 96, 5, 4
SIDES = torch.tensor([SIZE, SIZE])
WHITE = 200


def overlap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return iou_xyxy(xywh_to_xyxy(a), xywh_to_xyxy(b))[0]


class Teacher:
    """A teacher that knows where the target is in the unlabeled crop, and predicts IoUs ``scale`` times as large.

    It scores cells ``sharpness`` times as high as the label, and the last proposal's IoU too high by ``favour``.
    """

    sharpness, favour = 1.0, 0.0

    def __init__(self, network: torch.nn.Module, truth: torch.Tensor, label, scale: torch.Tensor) -> None:
        self.network, self.truth, self.label, self.scale = network, truth, label, scale
        self.classifier = self.bb_regressor = self
        self.extract_backbone, self.iou_features = network.extract_backbone, network.iou_features
        self.classification_features = network.classification_features
        self.get_filter = network.classifier.get_filter
        self.get_modulation = network.bb_regressor.get_modulation
        self.get_iou_feat = network.bb_regressor.get_iou_feat

    def classify(self, filter, features):
        return self.sharpness * self.label(self.truth)[None]

    def predict_iou(self, modulation, features, proposals):
        iou = self.scale[:, None] * overlap(proposals, self.truth[:, None].expand_as(proposals))
        iou[:, -1] += self.favour
        return 2 * iou - 1


@pytest.fixture
def step():
    """A function that makes an actor whose teacher is as sure as it is told, and a batch for it."""

    def make(scale: list[float], mirror: bool = False):
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        s = get_defaults()
        dimp.configure(s)
        s.data.search_size, s.data.search_factor = SIZE, 4.0
        s.network.args.update(backbone="ltr_tiny", out_feature_dim=8, iou_dim=8, optim_iter=2)
        s.augment.gray = s.augment.brightness = 0.0
        group = ProcessGroup(0, 1, torch.device("cpu"))
        network = build_network(s.network.name, s.network.args)
        truth = torch.from_numpy(np.c_[rng.uniform(90, 150, (B, 2)), rng.uniform(30, 50, (B, 2))])
        corner = (truth[:, :2] - rng.uniform(45, 60, (B, 2))).floor()
        unlabeled = torch.cat([corner, torch.full((B, 2), 144.0)], 1).double()
        aug = unlabeled + torch.tensor([7.0, -4.0, 16.0, 16.0])
        in_crop = boxes_to_crop(truth, unlabeled, SIDES).float()
        label = dimp.actor(network, network, s, group).learner.labels["test_label"]
        teacher = Teacher(copy.deepcopy(network), in_crop, label, torch.tensor(scale))
        actor = dimp.actor(network, teacher, s, group)
        draws = torch.full((B, DRAWS), 0.99)
        draws[:, Draw.ANGLE] = 0.5  # no rotation
        draws[:, Draw.MIRROR] = 0.0 if mirror else 0.99
        crop = torch.from_numpy(rng.integers(0, 256, (B, SIZE, SIZE, 3), dtype=np.uint8))
        box = torch.tensor([[36.0, 36.0, 24.0, 24.0]]).repeat(B, 1)
        noise = torch.from_numpy(0.2 * rng.standard_normal((B, P, 4))).float()
        coarse = in_crop * torch.tensor([1.0, 1.0, 1.15, 0.9])
        unsup = {
            "key": crop, "relay": crop, "unlabeled": crop, "aug": crop, "key_bbox": box, "relay_bbox": box + 1,
            "unlabeled_bbox": coarse, "unlabeled_rectangle": unlabeled, "aug_rectangle": aug,
            "aug_mean": torch.zeros(B, 3), "image_size": torch.tensor([[320.0, 240.0]]).repeat(B, 1),
            "row": torch.arange(B) + 10, "frame": torch.arange(B) + 20, "index": torch.arange(B) + 30,
            "draws": draws, "noise": noise,
        }  # fmt: skip
        sup = {
            "template": crop[:2], "search": crop[:2], "template_bbox": box[:2], "search_bbox": box[:2] + 3,
            "draws": draws[:2], "noise": noise[:2], "index": torch.arange(2),
        }  # fmt: skip
        return actor, {"sup": sup, "unsup": unsup}, truth

    return make


def test_confident_boxes_are_recorded_in_the_image_and_learned_in_the_aug_crop(step):
    actor, batch, truth = step([1.0, 0.3, 1.0, 0.2, 1.0])
    unsup = batch["unsup"]
    bbox, confidence = actor.teach(unsup)
    good = [0, 2, 4]
    assert (overlap(bbox, truth)[good] > 0.85).all()
    most = actor.teacher.scale * peak(actor.teacher)
    assert (confidence < most).all() and (confidence > 0.75 * most)[good].all()

    result = actor(batch)
    records = actor.take_records()
    assert records["row"].tolist() == [10, 12, 14] and records["frame"].tolist() == [20, 22, 24]
    assert records["order"].tolist() == [30, 32, 34]
    np.testing.assert_allclose(records["bbox"], bbox[good].numpy(), atol=1e-4)
    np.testing.assert_allclose(records["confidence"], confidence[good].numpy(), atol=1e-6)
    assert len(actor.take_records()) == 0
    assert result.stats["acceptance"].item() == pytest.approx(3 / 5)

    order = torch.tensor([0, 2, 4, 0, 2])
    data = actor.unlabelled(unsup, bbox, order)
    expected = boxes_to_crop(bbox, unsup["aug_rectangle"], SIDES)[order].float()
    torch.testing.assert_close(data["test_bbox"][0], expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(data["train_bbox"][0], unsup["relay_bbox"][order])
    torch.testing.assert_close(
        data["proposal_iou"][0], 2 * overlap(data["proposals"][0], expected[:, None].expand(-1, P, -1)) - 1
    )
    centre = peaks(data["test_label"][0], 16, SIZE, 0.0)
    assert ((centre - xywh_to_cxcywh(expected)[:, :2]).abs() <= 8 + 1e-3).all()

    result.loss.backward()
    assert all(p.grad is None for p in actor.teacher.network.parameters())
    untrained = [
        name for name, p in actor.network.named_parameters() if p.grad is None or not p.grad.isfinite().all()
    ]
    assert not untrained


def peak(teacher: Teacher) -> torch.Tensor:
    return teacher.classify(None, None)[0].flatten(1).amax(1)


def test_one_box_that_is_scored_too_high_does_not_decide(step):
    actor, batch, _ = step([0.5] * B)
    bbox, confidence = actor.teach(batch["unsup"])
    actor.teacher.favour = 0.45  # of nine boxes
    favoured, surer = actor.teach(batch["unsup"])
    torch.testing.assert_close(favoured, bbox)
    torch.testing.assert_close(surer - confidence, 0.05 * peak(actor.teacher))


def test_a_classifier_in_doubt_lowers_the_confidence(step):
    actor, batch, _ = step([1.0] * B)
    actor.window_penalty = 0.0  # a window has more to say about a flat map
    bbox, confidence = actor.teach(batch["unsup"])
    actor.teacher.sharpness = 0.5
    same, halved = actor.teach(batch["unsup"])
    torch.testing.assert_close(same, bbox)
    torch.testing.assert_close(halved, confidence / 2)


def test_the_loss_weighs_both_parts_by_their_samples(step):
    actor, batch, _ = step([1.0] * B)
    stats = {name: float(value) for name, value in actor(batch).stats.items()}
    weights = actor.learner.loss_weight
    labelled = sum(weight * stats[f"loss_{name}"] for name, weight in weights.items())
    pseudo = sum(weight * stats[f"pseudo_loss_{name}"] for name, weight in weights.items())
    assert stats["loss_unsup"] == pytest.approx(pseudo, rel=1e-5)
    assert stats["loss"] == pytest.approx((2 * labelled + B * pseudo) / (2 + B), rel=1e-5)


def test_without_a_confident_box_the_labelled_pairs_alone_are_learned(step):
    actor, batch, _ = step([0.1] * B)
    result = actor(batch)
    assert len(actor.take_records()) == 0
    stats = {name: float(value) for name, value in result.stats.items()}
    labelled = sum(weight * stats[f"loss_{name}"] for name, weight in actor.learner.loss_weight.items())
    assert stats["loss"] == pytest.approx(labelled, rel=1e-5)
    assert np.isnan(stats["pseudo_loss_iou"])  # left out of the epoch's mean


def test_the_teacher_scores_boxes_as_the_network_does(step):
    actor, batch, _ = step([1.0] * B)
    unsup = batch["unsup"]
    network = actor.teacher.network.eval().requires_grad_(False)
    honest = SparseDiMPActor(actor.network, network, actor.learner, _settings(), actor.group)
    bbox, confidence = honest.teach(unsup)
    key, unlabeled = (normalise(unsup[name])[None] for name in ("key", "unlabeled"))

    def said(boxes: torch.Tensor) -> dict[str, torch.Tensor]:
        return network(key, unlabeled, unsup["key_bbox"][None], boxes[None])

    maps = said(unsup["unlabeled_bbox"][:, None])["target_scores"][-1, 0]
    centre = peaks(maps, STRIDE, SIZE, honest.window_penalty)
    start = starting_boxes(centre, unsup["unlabeled_bbox"][:, 2:], RATIOS)
    slope = by_autograd(lambda boxes: said(boxes)["proposal_scores"][0])
    boxes, raised = highest(climb(slope, start, CLIMBS + 1, (STEP, STEP), most=2.0))
    iou = ((raised.mean(1) + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(confidence, iou * maps.flatten(1).amax(1).clamp(0, 1), atol=1e-5, rtol=0)
    expected = boxes_to_image(boxes.mean(1).double(), unsup["unlabeled_rectangle"], SIDES)
    inside = (expected[:, :2] > 0).all(1) & (expected[:, :2] + expected[:, 2:] < unsup["image_size"]).all(1)
    assert inside.any()  # the others are cut
    torch.testing.assert_close(bbox[inside], expected[inside], atol=1e-3, rtol=0)


def _settings():
    s = get_defaults()
    dimp.configure(s)
    s.data.search_size = SIZE
    s.augment.gray = s.augment.brightness = 0.0
    return s


def test_a_mirrored_target_stays_in_its_box(step):
    actor, batch, _ = step([1.0] * B, mirror=True)
    unsup = batch["unsup"]
    in_aug = torch.tensor([[20.0, 30.0, 16.0, 24.0]], dtype=torch.float64).repeat(B, 1)
    unsup["aug"] = torch.zeros(B, SIZE, SIZE, 3, dtype=torch.uint8)
    unsup["aug"][:, 30:54, 20:36] = WHITE
    bbox = boxes_to_image(in_aug, unsup["aug_rectangle"], SIDES)
    data = actor.unlabelled(unsup, bbox, torch.arange(B))
    torch.testing.assert_close(
        data["test_bbox"][0, 0], torch.tensor([SIZE - 36.0, 30.0, 16.0, 24.0]), atol=1e-3, rtol=0
    )
    image = data["test_images"][0, 0, 0]
    rows, columns = (image > image.mean()).nonzero().unbind(1)
    assert (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1) == (60, 76, 30, 54)


@pytest.mark.parametrize("place", [(100, 80), (2, 3), (250, 190)], ids=["middle", "corner", "other corner"])
def test_boxes_lie_on_the_target_in_every_crop(tmp_path, place):
    x, y, w, h = *place, 40, 32
    image = np.zeros((240, 320, 3), np.uint8)
    image[y : y + h, x : x + w] = WHITE
    path = str(tmp_path / "frame.png")
    cv2.imwrite(path, image)
    frame = FrameBox(path, np.array([x, y, w, h], np.float64))
    processing = SparseSequenceProcessing(
        size=SIZE, search_factor=4.0, train_jitter=Jitter(1.0, 0.2), test_jitter=Jitter(1.5, 0.3), proposals=P, sigmas=[0.1]
    )  # fmt: skip
    rng = np.random.default_rng(0)
    pair = processing.pair(LabelledPair(frame, frame), rng)
    instance = processing.instance(SparseInstance(frame, frame, frame, 3, 7, "reviewing"), rng)
    aug_bbox = boxes_to_crop(frame.bbox, instance["aug_rectangle"], np.array([SIZE, SIZE]))
    crops = [(pair[name], pair[f"{name}_bbox"]) for name in ("template", "search")]
    crops += [(instance[name], instance[f"{name}_bbox"]) for name in ("key", "relay", "unlabeled")]
    for pixels, bbox in [*crops, (instance["aug"], aug_bbox)]:
        rows, columns = (pixels[..., 0] > WHITE / 2).nonzero()
        shown = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        expected = np.clip([bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3]], 0, SIZE)
        inner = expected > 0  # at the image's border its pixels are repeated to the crop's
        assert np.abs(np.array(shown) - expected)[inner & (expected < SIZE)].max(initial=0) <= 1.01
    assert instance["row"] == 3 and instance["frame"] == 7


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(2, 200), st.floats(2, 200), st.floats(0.01, 0.5))
def test_proposals_overlap_their_box_enough(seed, width, height, sigma):
    noise = sigma * torch.randn(2, 16, 4, generator=torch.Generator().manual_seed(seed))
    bbox = torch.tensor([[5.0, -3.0, width, height]]).repeat(2, 1)
    proposals, iou = proposals_about(bbox, noise, 0.1)
    assert (iou > 0.1).all() and (proposals[..., 2:] > 0).all()
    torch.testing.assert_close(iou, overlap(proposals, bbox[:, None].expand_as(proposals)))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_boxes_climb_and_never_fall(seed):
    random = torch.Generator().manual_seed(seed)
    truth = torch.cat([20 + 20 * torch.rand(3, 2, generator=random), torch.full((3, 2), 20.0)], 1)
    begin = truth[:, None] + 6 * torch.rand(3, 4, 4, generator=random) - 3

    def score(boxes: torch.Tensor) -> torch.Tensor:
        return overlap(boxes, truth[:, None].expand_as(boxes))

    way = climb(by_autograd(score), begin, 6, (1.0, 1.0), most=2.0)
    boxes, top = highest(way)
    torch.testing.assert_close(top, score(boxes))
    assert (top >= score(begin)).all() and top.mean() > score(begin).mean() + 0.02
    change = way.boxes[1:, ..., 2:] / way.boxes[:-1, ..., 2:]
    assert change.max() <= 2 + 1e-5 and change.min() >= 0.5 - 1e-5


@pytest.mark.parametrize(
    "key, value, said", [("cuont", 3, "count"), ("count", 0, "at least one"), ("sigmas", [], "at least one")]
)
def test_impossible_proposals_are_refused_in_one_line(key, value, said):
    s = _settings()
    s.sequences.proposals[key] = value
    with pytest.raises(UserError, match=said):
        dimp.make_processing(s)
