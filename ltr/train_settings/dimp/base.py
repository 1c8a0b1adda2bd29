"""What the variants of DiMP, PrDiMP and SuperDiMP share."""

from __future__ import annotations

from torch import nn

from config.settings import Settings, open_node
from ltr.actors.tracking import DiMPActor, KLDiMPActor
from ltr.admin.process_group import ProcessGroup
from ltr.data.proposals import MixtureBoxes, PerturbedBoxes
from ltr.models.loss.kl import KLRegression, KLRegressionGrid
from ltr.models.loss.target import LBHinge
from ltr.train_settings.sequences import configure_published, make_label, set_batch, train_sequences

HINGE = 0.05  # labels below it are background


def configure_dimp(settings: Settings) -> None:
    """The published settings of DiMP-50 (Bhat et al., ICCV 2019)."""
    configure_published(settings)
    settings.network.name = "dimpnet50"
    settings.network.args.update(filter_size=4)
    settings.sequences.weights = [0.25, 1.0, 1.0, 1.0]
    settings.sequences.proposals = open_node(count=8, min_iou=0.1, sigmas=[0.01, 0.05, 0.1, 0.2, 0.3])
    set_batch(settings, 10, samples=26000, validated=5000)
    settings.optim.rates = open_node(
        classifier=open_node(filter_initializer=5e-5, filter_optimizer=5e-4, feature_extractor=5e-5),
        bb_regressor=2e-4,
        feature_extractor=2e-5,
    )
    settings.objective.update(iou=1.0, test_clf=100.0, test_init_clf=100.0, test_iter_clf=400.0)


def configure_prdimp(settings: Settings) -> None:
    """The published settings of PrDiMP-50 (Danelljan et al., CVPR 2020)."""
    configure_dimp(settings)
    settings.network.name = "klcedimpnet50"
    settings.sequences.max_gap = 200
    use_mixture(settings)
    settings.optim.rates = open_node(classifier=1e-3, bb_regressor=1e-3, feature_extractor=2e-5)
    settings.objective.clear()
    settings.objective.update(bb_ce=0.0025, clf_ce=0.25, clf_ce_init=0.25, clf_ce_iter=1.0)


def configure_super_dimp(settings: Settings) -> None:
    """The published settings of SuperDiMP: DiMP's classifier, PrDiMP's regressor, larger crops and batches."""
    configure_dimp(settings)
    settings.data.search_size, settings.data.search_factor = 352, 6.0
    settings.data.center_jitter_search = 5.5
    settings.network.args.update(frozen_backbone_layers=["conv1", "bn1", "layer1", "layer2"])
    settings.sequences.weights = []
    settings.sequences.max_gap = 200
    settings.sequences.crop, settings.sequences.max_scale_change = "inside_major", 1.5
    settings.sequences.mirror = 0.5
    use_mixture(settings)
    set_batch(settings, 20, samples=40000, validated=10000)
    settings.optim.rates.bb_regressor = 1e-3
    settings.optim.rates.feature_extractor = open_node(layer3=2e-5)
    settings.objective.pop("iou")
    settings.objective.bb_ce = 0.01


def use_mixture(settings: Settings) -> None:
    """PrDiMP's proposals."""
    settings.sequences.proposals = open_node(
        count=128, gt_sigma=[0.05, 0.05], sigmas=[[0.05, 0.05], [0.5, 0.5]]
    )


def train_dimp(settings: Settings) -> None:
    """Train the classifier with a hinge and the regressor with IoUs."""
    train_sequences(settings, dimp_actor, PerturbedBoxes)


def train_prdimp(settings: Settings) -> None:
    """Train classifier and regressor with densities."""
    train_sequences(settings, prdimp_actor, MixtureBoxes)


def train_super_dimp(settings: Settings) -> None:
    """Train the classifier with a hinge and the regressor with densities."""
    train_sequences(settings, super_dimp_actor, MixtureBoxes)


def train_super_dimp_simple(settings: Settings) -> None:
    """As SuperDiMP, with the labels of train frames from outside."""
    train_sequences(settings, super_dimp_simple_actor, MixtureBoxes)


def dimp_actor(network: nn.Module, settings: Settings, group: ProcessGroup) -> DiMPActor:
    """DiMP's actor with the weights of ``settings.objective``."""
    objective = {"iou": nn.MSELoss(), "test_clf": LBHinge(threshold=HINGE)}
    labels = {"test_label": make_label(settings)}
    return DiMPActor(network, objective, settings.objective, labels, settings, group)


def prdimp_actor(network: nn.Module, settings: Settings, group: ProcessGroup) -> KLDiMPActor:
    """PrDiMP's actor with the weights of ``settings.objective``."""
    objective = {"bb_ce": KLRegression(), "clf_ce": KLRegressionGrid()}
    labels = {"test_label_density": make_label(settings, density=True)}
    return KLDiMPActor(network, objective, settings.objective, labels, settings, group)


def super_dimp_actor(network: nn.Module, settings: Settings, group: ProcessGroup) -> KLDiMPActor:
    """SuperDiMP's actor with the weights of ``settings.objective``."""
    return _hinge_and_density(network, settings, group, ("test_label",))


def super_dimp_simple_actor(network: nn.Module, settings: Settings, group: ProcessGroup) -> KLDiMPActor:
    """SuperDiMP-simple's actor with the weights of ``settings.objective``."""
    return _hinge_and_density(network, settings, group, ("train_label", "test_label"))


def _hinge_and_density(
    network: nn.Module, settings: Settings, group: ProcessGroup, labels: tuple[str, ...]
) -> KLDiMPActor:
    objective = {"bb_ce": KLRegression(), "test_clf": LBHinge(threshold=HINGE)}
    made = dict.fromkeys(labels, make_label(settings))
    return KLDiMPActor(network, objective, settings.objective, made, settings, group)
