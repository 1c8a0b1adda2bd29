"""SP-Ocean: Ocean trained from a few labelled frames per video (SPOT, Sparsely-Supervised Object Tracking, IEEE TIP 2024)."""

from __future__ import annotations

from config.settings import Settings
from ltr.admin.process_group import ProcessGroup
from ltr.models.loss.ocean import OceanObjective
from ltr.train_settings.common import train_sparse


def configure(settings: Settings) -> None:
    """The published settings of SP-Ocean."""
    settings.description = "SP-Ocean"
    settings.network.name = "ocean"
    settings.network.pretrained_file = "imagenet_pretrain.model"
    settings.data.datasets = ["LaSOT:train", "GOT-10k:vottrain", "TrackingNet:0-3"]
    settings.data.search_size, settings.data.template_size = 255, 127
    settings.data.center_jitter_search, settings.data.scale_jitter_search = 2.0, 0.2
    settings.train.epochs, settings.train.burn_in_epochs = 350, 50
    settings.optim.name, settings.optim.schedule = "sgd", "warmuplog"
    settings.optim.lr, settings.optim.backbone_lr = 5e-3, 5e-4
    settings.optim.clip_norm = 25.0
    settings.optim.unfreeze_epoch = 70
    settings.optim.unfreeze_stages = ["layer1", "layer2", "layer3"]
    settings.sparse.confidence_threshold = 0.82
    settings.sparse.window_penalty = 0.30


def objective(settings: Settings, group: ProcessGroup) -> OceanObjective:
    """The published loss with the weights of ``settings.objective``."""
    return OceanObjective(
        search_size=settings.data.search_size, **settings.objective, mean_over_ranks=group.mean
    )


def run(settings: Settings) -> None:
    """Train."""
    train_sparse(settings, objective)
