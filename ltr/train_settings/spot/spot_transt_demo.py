"""A small SP-TransT that trains from scratch on two CPU cores in minutes, on synthetic videos (``make demo``)."""

from config.settings import Settings
from ltr.train_settings.spot import transt
from ltr.train_settings.spot.transt import run as run


def configure(settings: Settings) -> None:
    """Small crops, a small network, a short one-cycle schedule."""
    transt.configure(settings)
    settings.description = "small SP-TransT, 3 labelled frames per synthetic video"
    settings.network.args.update(
        backbone="conv5", hidden_dim=64, nheads=4, dim_feedforward=128, featurefusion_layers=2, dropout=0.0
    )
    settings.network.pretrained = False
    settings.data.datasets = ["LaSOT:train"]
    settings.data.search_size, settings.data.template_size = 96, 48
    settings.data.center_jitter_search = 2.0
    settings.data.workers = 1
    settings.threads = 1  # threads of a small network wait for each other more than they work
    settings.train.epochs, settings.train.burn_in_epochs, settings.train.iterations = 30, 15, 40
    settings.train.save_interval = 10
    settings.optim.schedule = "onecycle"
    settings.optim.lr = settings.optim.backbone_lr = 1e-3
    settings.optim.clip_norm = 0.1
    settings.sparse.confidence_threshold = 0.65
    settings.sparse.keep_rate = 0.98
