"""DiMP-18 (Bhat et al., Learning Discriminative Model Prediction for Tracking, ICCV 2019)."""

from config.settings import Settings
from ltr.train_settings.dimp import base
from ltr.train_settings.dimp.base import train_dimp as run
from ltr.train_settings.sequences import set_batch

__all__ = ["configure", "run"]


def configure(settings: Settings) -> None:
    """The published settings."""
    base.configure_dimp(settings)
    settings.description = "DiMP, ResNet-18"
    settings.network.name = "dimpnet18"
    set_batch(settings, 26, samples=26000, validated=5000)
    settings.optim.rates.bb_regressor = 1e-3
    settings.optim.rates.feature_extractor = 2e-4
