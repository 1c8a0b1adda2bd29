"""SuperDiMP: DiMP's classifier, PrDiMP's box regressor, crops that stay in the image, mirrored frames."""

from config.settings import Settings
from ltr.train_settings.dimp import base
from ltr.train_settings.dimp.base import train_super_dimp as run

__all__ = ["configure", "run"]


def configure(settings: Settings) -> None:
    """The published settings."""
    base.configure_super_dimp(settings)
    settings.description = "SuperDiMP, ResNet-50"
    settings.network.args.update(init_gauss_sigma=0.25 / 6 * 22)  # that of the labels, in cells
