"""TransT, fully supervised: the baseline that sparse supervision is held against (Chen et al., CVPR 2021)."""

from config.settings import Settings
from ltr.train_settings.common import train_supervised
from ltr.train_settings.spot import transt


def configure(settings: Settings) -> None:
    """SP-TransT's settings with every frame labelled and no sparse stage."""
    transt.configure(settings)
    settings.description = "TransT, every frame labelled"
    settings.train.burn_in_epochs = settings.train.epochs


def run(settings: Settings) -> None:
    """Train."""
    train_supervised(settings, transt.objective)
