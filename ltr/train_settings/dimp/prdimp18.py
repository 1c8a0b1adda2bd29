"""PrDiMP-18 (Danelljan et al., Probabilistic Regression for Visual Tracking, CVPR 2020)."""

from config.settings import Settings
from ltr.train_settings.dimp import base
from ltr.train_settings.dimp.base import train_prdimp as run
from ltr.train_settings.sequences import set_batch

__all__ = ["configure", "run"]


def configure(settings: Settings) -> None:
    """The published settings."""
    base.configure_prdimp(settings)
    settings.description = "PrDiMP, ResNet-18"
    settings.network.name = "klcedimpnet18"
    set_batch(settings, 26, samples=26000, validated=5000)
    settings.optim.rates.feature_extractor = 2e-4
