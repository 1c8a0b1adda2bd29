"""A small SP-Ocean that trains from scratch on two CPU cores in minutes, on synthetic videos."""

from config.settings import Settings
from ltr.train_settings.spot import ocean
from ltr.train_settings.spot.ocean import run as run


def configure(settings: Settings) -> None:
    """Small crops, a small network, a short one-cycle schedule."""
    ocean.configure(settings)
    settings.description = "small SP-Ocean, 3 labelled frames per synthetic video"
    settings.network.args.update(backbone="ocean_tiny", hidden_dim=48, towers=2, template_margin=0)
    settings.network.pretrained = False
    settings.data.datasets = ["LaSOT:train"]
    settings.data.search_size, settings.data.template_size = 95, 47
    settings.data.workers = 1
    settings.threads = 1  # threads of a small network wait for each other more than they work
    settings.train.epochs, settings.train.burn_in_epochs, settings.train.iterations = 20, 10, 40
    settings.train.save_interval = 10
    settings.optim.name, settings.optim.schedule = "adamw", "onecycle"
    settings.optim.lr = settings.optim.backbone_lr = 2e-3
    settings.optim.clip_norm = 1.0
    settings.optim.unfreeze_epoch = 0  # nothing to keep: the backbone starts from nothing too
    settings.sparse.confidence_threshold = 0.6
    settings.sparse.keep_rate = 0.98
