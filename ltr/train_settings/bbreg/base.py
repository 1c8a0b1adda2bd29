"""What the variants of ATOM share."""

from __future__ import annotations

from torch import nn

from config.settings import Settings, open_node
from ltr.actors.bbreg import AtomActor, AtomBBKLActor
from ltr.admin.process_group import ProcessGroup
from ltr.data.proposals import MixtureBoxes, PerturbedBoxes
from ltr.models.loss.kl import MLRegression
from ltr.train_settings.sequences import configure_published, set_batch, train_sequences


def configure_atom(settings: Settings) -> None:
    """The published settings of ATOM (Danelljan et al., CVPR 2019) with GOT-10k added."""
    configure_published(settings)
    settings.network.name = "atom_resnet18"
    settings.sequences.train_frames = settings.sequences.test_frames = 1
    settings.sequences.max_gap, settings.sequences.mode = 50, "interval"
    settings.sequences.crop = "centred"
    settings.sequences.center_jitter_train = settings.sequences.scale_jitter_train = 0.0
    settings.sequences.proposals = open_node(count=16, min_iou=0.1, sigmas=[0.01, 0.05, 0.1, 0.2, 0.3])
    set_batch(settings, 64, samples=64000, validated=32000)
    settings.optim.rates = open_node(bb_regressor=1e-3)
    settings.objective.update(iou=1.0)


def use_mixture(settings: Settings) -> None:
    """Proposals from a mixture of two densities, and frames farther apart (Danelljan et al., CVPR 2020)."""
    settings.sequences.max_gap = 200
    settings.sequences.proposals = open_node(count=128, sigmas=[[0.05, 0.05], [0.5, 0.5]])


def train_atom(settings: Settings) -> None:
    """Learn IoUs of perturbed boxes."""
    train_sequences(settings, atom_actor, PerturbedBoxes)


def train_gmm(settings: Settings) -> None:
    """Learn IoUs of boxes from a mixture."""
    train_sequences(settings, atom_actor, MixtureBoxes)


def train_ml(settings: Settings) -> None:
    """Learn a density over boxes."""
    train_sequences(settings, ml_actor, MixtureBoxes)


def atom_actor(network: nn.Module, settings: Settings, group: ProcessGroup) -> AtomActor:
    """ATOM's actor."""
    return AtomActor(network, {"iou": nn.MSELoss()}, settings.objective, {}, settings, group)


def ml_actor(network: nn.Module, settings: Settings, group: ProcessGroup) -> AtomBBKLActor:
    """The actor of maximum-likelihood regression."""
    return AtomBBKLActor(network, {"bb_ml": MLRegression()}, settings.objective, {}, settings, group)
