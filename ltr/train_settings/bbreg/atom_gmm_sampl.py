"""ATOM's IoU network on proposals from a mixture of densities: the baseline of Danelljan et al., PrDiMP, CVPR 2020."""

from config.settings import Settings
from ltr.train_settings.bbreg import base
from ltr.train_settings.bbreg.base import train_gmm as run

__all__ = ["configure", "run"]


def configure(settings: Settings) -> None:
    """The published settings."""
    base.configure_atom(settings)
    settings.description = "ATOM, mixture proposals"
    base.use_mixture(settings)
