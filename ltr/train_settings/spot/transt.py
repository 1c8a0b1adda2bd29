"""SP-TransT: TransT trained from a few labelled frames per video (SPOT, Sparsely-Supervised Object Tracking, IEEE TIP 2024)."""

from __future__ import annotations

from config.settings import Settings
from ltr.admin.process_group import ProcessGroup
from ltr.models.loss.transt import TransTObjective
from ltr.train_settings.common import train_sparse


def configure(settings: Settings) -> None:
    """The published settings of SP-TransT."""
    settings.description = "SP-TransT"
    settings.network.name = "transt"
    settings.data.datasets = ["LaSOT:train", "GOT-10k:vottrain", "TrackingNet:0-3"]
    settings.data.search_size, settings.data.template_size = 256, 128
    settings.train.epochs, settings.train.burn_in_epochs = 400, 50
    settings.optim.lr, settings.optim.backbone_lr = 1e-4, 1e-5
    settings.optim.drop_epoch = 300
    settings.sparse.confidence_threshold = 0.85
    settings.sparse.window_penalty = 0.40


def objective(settings: Settings, group: ProcessGroup) -> TransTObjective:
    """The published loss with the weights of ``settings.objective``."""
    return TransTObjective(**settings.objective, mean_over_ranks=group.mean)


def run(settings: Settings) -> None:
    """Train."""
    train_sparse(settings, objective)
