"""ATOM's IoU network on the data sets of the paper (Danelljan et al., ATOM, CVPR 2019)."""

from config.settings import Settings
from ltr.train_settings.bbreg import base
from ltr.train_settings.bbreg.base import train_atom as run

__all__ = ["configure", "run"]


def configure(settings: Settings) -> None:
    """The published settings."""
    base.configure_atom(settings)
    settings.description = "ATOM as in the paper"
    settings.data.datasets = ["LaSOT:train", "TrackingNet:0-10", "COCO:train2017"]
    settings.validation.datasets = ["TrackingNet:11"]
