"""PrDiMP-50 (Danelljan et al., Probabilistic Regression for Visual Tracking, CVPR 2020)."""

from config.settings import Settings
from ltr.train_settings.dimp import base
from ltr.train_settings.dimp.base import train_prdimp as run

__all__ = ["configure", "run"]


def configure(settings: Settings) -> None:
    """The published settings."""
    base.configure_prdimp(settings)
    settings.description = "PrDiMP, ResNet-50"
