"""A small DiMP that trains from scratch on two CPU cores in minutes, on synthetic videos."""

from config.settings import Settings, open_node
from ltr.train_settings.dimp import base
from ltr.train_settings.dimp.base import train_dimp as run
from ltr.train_settings.sequences import set_batch

__all__ = ["configure", "run"]


def configure(settings: Settings) -> None:
    """Small crops, a small network, a short one-cycle schedule."""
    base.configure_dimp(settings)
    settings.description = "small DiMP, every frame of synthetic videos labelled"
    settings.network.args.update(backbone="ltr_small", out_feature_dim=64, iou_dim=64)
    settings.network.pretrained = False
    settings.data.datasets = ["LaSOT:train"]
    settings.data.search_size, settings.data.search_factor = 96, 4.0
    settings.data.center_jitter_search = 2.0
    settings.data.workers = 1
    settings.sequences.weights = []
    settings.validation.datasets = []
    settings.threads = 1  # threads of a small network wait for each other more than they work
    settings.train.epochs = settings.train.burn_in_epochs = 30
    set_batch(settings, 8, samples=320, validated=80)
    settings.train.save_interval = 10
    settings.optim.schedule = "onecycle"
    settings.optim.rates = open_node(classifier=1e-3, bb_regressor=1e-3, feature_extractor=1e-3)
