"""A small SP-DiMP that trains from scratch on two CPU cores in minutes, on synthetic videos."""

from config.settings import Settings, open_node
from ltr.train_settings.spot import dimp
from ltr.train_settings.spot.dimp import run as run


def configure(settings: Settings) -> None:
    """Small crops, a small network, a short one-cycle schedule."""
    dimp.configure(settings)
    settings.description = "small SP-DiMP, 3 labelled frames per synthetic video"
    settings.network.args.update(backbone="ltr_small", out_feature_dim=64, iou_dim=64, optim_iter=3)
    settings.network.pretrained = False
    settings.data.datasets = ["LaSOT:train"]
    settings.data.search_size, settings.data.search_factor = 96, 4.0
    settings.data.center_jitter_search, settings.data.scale_jitter_search = 2.0, 0.25
    settings.sequences.center_jitter_train = 1.0
    settings.data.workers = 1
    settings.threads = 1  # threads of a small network wait for each other more than they work
    settings.train.epochs, settings.train.burn_in_epochs, settings.train.iterations = 20, 10, 40
    settings.train.batch_size_sup, settings.train.batch_size_unsup = 4, 12
    settings.train.save_interval = 10
    settings.optim.rates = open_node()
    settings.optim.name, settings.optim.schedule = "adamw", "onecycle"
    settings.optim.lr = settings.optim.backbone_lr = 1e-3
    settings.optim.clip_norm = 1.0
    settings.sparse.confidence_threshold = 0.3
    settings.sparse.keep_rate = 0.95
