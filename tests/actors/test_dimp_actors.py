"""What ATOM, DiMP, PrDiMP and SuperDiMP learn from a batch, at which rates, and what they are shown."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from config.errors import UserError
from config.settings import Settings
from ltr.actors.sequences import SequenceActor
from ltr.actors.tracking import DiMPActor, KLDiMPActor
from ltr.admin.process_group import ProcessGroup
from ltr.admin.train import variant_settings
from ltr.data.augment import MEAN, STD
from ltr.data.proposals import MixtureBoxes, PerturbedBoxes
from ltr.data.transforms import FRAME_DRAWS
from ltr.models.loss.target import LBHinge
from ltr.models.registry import build_network
from ltr.train_settings.bbreg import base as bbreg
from ltr.train_settings.common import make_optimizer, make_schedule
from ltr.train_settings.dimp import base as dimp
from ltr.train_settings.sequences import make_label, make_processing

GROUP = ProcessGroup(0, 1, torch.device("cpu"))
SIZE, SEQUENCES = 64, 4
ACTORS = {
    ("bbreg", "atom"): (bbreg.atom_actor, PerturbedBoxes),
    ("bbreg", "atom_paper"): (bbreg.atom_actor, PerturbedBoxes),
    ("bbreg", "atom_gmm_sampl"): (bbreg.atom_actor, MixtureBoxes),
    ("bbreg", "atom_prob_ml"): (bbreg.ml_actor, MixtureBoxes),
    ("dimp", "dimp18"): (dimp.dimp_actor, PerturbedBoxes),
    ("dimp", "dimp50"): (dimp.dimp_actor, PerturbedBoxes),
    ("dimp", "prdimp18"): (dimp.prdimp_actor, MixtureBoxes),
    ("dimp", "prdimp50"): (dimp.prdimp_actor, MixtureBoxes),
    ("dimp", "super_dimp"): (dimp.super_dimp_actor, MixtureBoxes),
    ("dimp", "super_dimp_simple"): (dimp.super_dimp_simple_actor, MixtureBoxes),
}
each_variant = pytest.mark.parametrize("module, variant", ACTORS, ids=lambda name: name)


def small(module: str, variant: str) -> Settings:
    """A variant whose network and crops are small; all else is its own."""
    settings = variant_settings(module, variant)
    settings.network.args.update(backbone="ltr_small", iou_dim=16)
    if module == "dimp":
        settings.network.args.update(out_feature_dim=16)
    if "frozen_backbone_layers" in settings.network.args:
        settings.network.args.frozen_backbone_layers = ["layer2"]
    settings.data.search_size = SIZE
    return settings


def make_actor(settings: Settings) -> SequenceActor:
    torch.manual_seed(0)
    network = build_network(settings.network.name, settings.network.args)
    make, _ = ACTORS[settings.module_name, settings.variant]
    return make(network, settings, GROUP)


def make_batch(settings: Settings, seed: int = 0) -> dict:
    """Bright rectangles on noise; the proposals are the variant's own."""
    rng = np.random.default_rng(seed)
    _, kind = ACTORS[settings.module_name, settings.variant]
    make_processing(settings, kind)  # the arguments are those that the kind takes
    proposals = kind(**settings.sequences.proposals)
    samples = []
    for _ in range(SEQUENCES):
        sample: dict = {"gray_draw": rng.random(dtype=np.float32)}
        for part, count in (
            ("train", settings.sequences.train_frames),
            ("test", settings.sequences.test_frames),
        ):
            corner, side = rng.integers(12, 32, (count, 2)), rng.integers(12, 24, (count, 2))
            images = rng.integers(0, 90, (count, SIZE, SIZE, 3)).astype(np.uint8)
            for image, (x, y), (w, h) in zip(images, corner, side):
                image[y : y + h, x : x + w] += 120
            sample[f"{part}_images"] = images
            sample[f"{part}_bbox"] = np.concatenate([corner, side], 1).astype(np.float32)
            sample[f"{part}_draws"] = rng.random((count, FRAME_DRAWS), np.float32)
        samples.append(sample | proposals(sample["test_bbox"], rng))
    return {"sup": {name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]}}


@each_variant
def test_the_loss_of_a_fixed_batch_falls_at_the_published_rates(module, variant):
    settings = small(module, variant)
    actor, batch = make_actor(settings), make_batch(settings)
    optimizer = make_optimizer(settings, actor.plain_network)
    actor.train()
    before = {name: value.clone() for name, value in actor.plain_network.named_parameters()}
    losses = []
    for _ in range(25):
        result = actor(batch)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        losses.append(result.loss.item())
        assert all(math.isfinite(value.item()) for value in result.stats.values())
    assert np.mean(losses[-3:]) < np.mean(losses[:3])

    rated = dict(settings.optim.rates.flat())
    frozen = tuple(settings.network.args.get("frozen_backbone_layers", ()))
    for name, value in actor.plain_network.named_parameters():
        trained = name.startswith(tuple(f"{part}." for part in rated)) and not name.startswith(
            tuple(f"feature_extractor.{stage}" for stage in frozen)
        )
        assert value.requires_grad == trained, name
        assert trained or torch.equal(value, before[name]), name
    moved = {n for n, value in actor.plain_network.named_parameters() if not torch.equal(value, before[n])}
    assert all(any(name.startswith(f"{part}.") for name in moved) for part in rated)


@each_variant
def test_rates_fall_to_a_fifth_every_fifteen_epochs(module, variant):
    settings = small(module, variant)
    network = build_network(settings.network.name, settings.network.args)
    optimizer, schedule = make_optimizer(settings, network), make_schedule(settings, network)
    full = [rate for _, rate in settings.optim.rates.flat()]
    for epoch, factor in (
        (1, 1),
        (15, 1),
        (16, 0.2),
        (30, 0.2),
        (31, 0.04),
        (45, 0.04),
        (46, 0.008),
        (50, 0.008),
    ):
        schedule.begin_epoch(epoch, optimizer)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([r * factor for r in full])
    assert settings.train.epochs == 50


@each_variant
def test_gradients_of_shares_average_to_that_of_the_batch(module, variant):
    """So any number of processes trains the same, but for the regressor's batch norms, which see their share."""
    settings = small(module, variant)
    actor, batch = make_actor(settings), make_batch(settings)["sup"]
    actor.train()
    for part in actor.plain_network.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.eval()

    def gradient(first: int, last: int) -> torch.Tensor:
        result = actor({"sup": {name: value[first:last] for name, value in batch.items()}})
        trained = [p for p in actor.plain_network.parameters() if p.requires_grad]
        slopes = torch.autograd.grad(result.loss, trained, allow_unused=True)
        return torch.cat([slope.flatten() for slope in slopes if slope is not None])

    whole = gradient(0, SEQUENCES)
    average = (gradient(0, SEQUENCES // 2) + gradient(SEQUENCES // 2, SEQUENCES)) / 2
    assert whole.abs().max() > 0
    assert torch.allclose(average, whole, rtol=1e-3, atol=1e-4 * whole.abs().max().item())


class Answers(nn.Module):
    """Gives what it was made with, and keeps what it was asked."""

    def __init__(self, **answers: torch.Tensor) -> None:
        super().__init__()
        self.answers = nn.ParameterDict(answers)

    def forward(self, **asked: torch.Tensor) -> dict[str, torch.Tensor]:
        self.asked = asked
        return dict(self.answers)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_dimp_weighs_the_last_the_first_and_the_filters_between(iterations):
    settings = small("dimp", "dimp50")
    batch, cells = make_batch(settings), SIZE // 16 + 1
    frames, count = settings.sequences.test_frames, settings.sequences.proposals.count
    torch.manual_seed(1)
    network = Answers(
        target_scores=torch.randn(iterations + 1, frames, SEQUENCES, cells, cells),
        proposal_scores=torch.randn(frames, SEQUENCES, count),
    )
    actor = dimp.dimp_actor(network, settings, GROUP)
    result = actor(batch)

    label = make_label(settings)(batch["sup"]["test_bbox"].transpose(0, 1))
    scores = network.answers["target_scores"]
    wrong = torch.where(label < 0.05, F.relu(scores), scores - label).square().mean((1, 2, 3, 4))
    iou = (network.answers["proposal_scores"] - batch["sup"]["proposal_iou"].transpose(0, 1)).square().mean()
    between = wrong[1:-1].mean() if iterations > 1 else torch.zeros(())
    assert result.loss.item() == pytest.approx(
        (iou + 100 * wrong[-1] + 100 * wrong[0] + 400 * between).item(), rel=1e-5
    )
    assert result.stats["loss_test_init_clf"].item() == pytest.approx(wrong[0].item(), rel=1e-5)


def test_prdimp_compares_densities():
    settings = small("dimp", "prdimp50")
    batch, cells = make_batch(settings), SIZE // 16 + 1
    frames, count = settings.sequences.test_frames, settings.sequences.proposals.count
    torch.manual_seed(1)
    network = Answers(
        target_scores=torch.randn(3, frames, SEQUENCES, cells, cells),
        proposal_scores=torch.randn(frames, SEQUENCES, count),
    )
    stats = dimp.prdimp_actor(network, settings, GROUP)(batch).stats

    density = make_label(settings, density=True)(batch["sup"]["test_bbox"].transpose(0, 1))
    assert density.sum((-2, -1)) == pytest.approx(np.ones((frames, SEQUENCES)), rel=1e-5)
    log_p = network.answers["target_scores"].flatten(-2).log_softmax(-1)
    entropy = -(density.flatten(-2) * log_p).sum(-1).mean((1, 2))
    names = ("loss_clf_ce_init", "loss_clf_ce_iter", "loss_clf_ce")
    assert [stats[name].item() for name in names] == pytest.approx(entropy.tolist(), rel=1e-5)


def test_only_training_changes_images():
    settings = small("dimp", "super_dimp_simple")
    settings.augment.gray = settings.sequences.mirror = 1.0
    batch, cells = make_batch(settings), SIZE // 16 + 1
    frames, count = settings.sequences.test_frames, settings.sequences.proposals.count
    network = Answers(
        target_scores=torch.randn(2, frames, SEQUENCES, cells, cells),
        proposal_scores=torch.randn(frames, SEQUENCES, count),
    )
    actor = dimp.super_dimp_simple_actor(network, settings, GROUP)
    pixels = batch["sup"]["train_images"].transpose(0, 1).permute(0, 1, 4, 2, 3) / 255
    plain = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    bbox = batch["sup"]["train_bbox"].transpose(0, 1)
    label = make_label(settings)

    network.eval()
    actor(batch)
    assert torch.allclose(network.asked["train_images"], plain, atol=1e-5)
    assert torch.equal(network.asked["train_bbox"], bbox)
    assert torch.equal(network.asked["train_label"], label(bbox))

    actor.train()
    sheet = actor(batch, picture=True).picture
    assert sheet is not None and sheet.shape[0] > 2 * SIZE
    assert not torch.allclose(network.asked["train_images"], plain, atol=1e-2)
    assert torch.allclose(network.asked["train_bbox"][..., 0], SIZE - bbox[..., 0] - bbox[..., 2])
    assert torch.equal(network.asked["train_label"], label(network.asked["train_bbox"]))


def test_wrong_names_are_named():
    settings = small("dimp", "dimp50")
    network = build_network(settings.network.name, settings.network.args)
    with pytest.raises(UserError, match="objective.test_iter: DiMPActor has no such term.*test_iter_clf"):
        DiMPActor(network, {"test_clf": LBHinge(threshold=0.05)}, {"test_iter": 1.0}, {}, settings, GROUP)
    with pytest.raises(UserError, match="objective.iou: KLDiMPActor"):
        KLDiMPActor(network, {"bb_ce": nn.Module()}, {"iou": 1.0}, {}, settings, GROUP)
    with pytest.raises(UserError, match="proposals.gt_sigma: PerturbedBoxes"):
        settings.sequences.proposals.update(gt_sigma=[0.05, 0.05])
        make_processing(settings, PerturbedBoxes)
    with pytest.raises(UserError, match="optim.rates.classifer: no such part.*classifier"):
        settings.optim.rates.update(classifer=1.0)
        make_optimizer(settings, network)
    with pytest.raises(UserError, match="search_size 70: must be a multiple of 16"):
        settings.data.search_size = 70
        make_label(settings)
