"""Ocean, fully supervised: the baseline that sparse supervision is held against (Zhang et al., ECCV 2020)."""

from config.settings import Settings
from ltr.train_settings.common import train_supervised
from ltr.train_settings.spot import ocean


def configure(settings: Settings) -> None:
    """SP-Ocean's settings with every frame labelled and no sparse stage."""
    ocean.configure(settings)
    settings.description = "Ocean, every frame labelled"
    settings.train.burn_in_epochs = settings.train.epochs


def run(settings: Settings) -> None:
    """Train."""
    train_supervised(settings, ocean.objective)
