"""SuperDiMP-simple: SuperDiMP whose filters fit Gaussian labels with a hinge instead of learned labels."""

from config.settings import Settings
from ltr.train_settings.dimp import base
from ltr.train_settings.dimp.base import train_super_dimp_simple as run

__all__ = ["configure", "run"]


def configure(settings: Settings) -> None:
    """The published settings."""
    base.configure_super_dimp(settings)
    settings.description = "SuperDiMP-simple, ResNet-50"
    settings.network.name = "dimpnet50_simple"
