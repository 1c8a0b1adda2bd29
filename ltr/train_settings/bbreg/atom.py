"""ATOM's IoU network (Danelljan et al., ATOM, CVPR 2019), GOT-10k among its data sets."""

from config.settings import Settings
from ltr.train_settings.bbreg import base
from ltr.train_settings.bbreg.base import train_atom as run

__all__ = ["configure", "run"]


def configure(settings: Settings) -> None:
    """The published settings."""
    base.configure_atom(settings)
    settings.description = "ATOM"
