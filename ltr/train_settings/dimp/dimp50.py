"""DiMP-50 (Bhat et al., Learning Discriminative Model Prediction for Tracking, ICCV 2019)."""

from config.settings import Settings
from ltr.train_settings.dimp import base
from ltr.train_settings.dimp.base import train_dimp as run

__all__ = ["configure", "run"]


def configure(settings: Settings) -> None:
    """The published settings."""
    base.configure_dimp(settings)
    settings.description = "DiMP, ResNet-50"
