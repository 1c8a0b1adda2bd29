"""SP-DiMP with 5 labelled frames per video."""

from config.settings import Settings
from ltr.train_settings.spot import dimp
from ltr.train_settings.spot.dimp import run as run


def configure(settings: Settings) -> None:
    """SP-DiMP on the full training set."""
    dimp.configure(settings)
    settings.description = "SP-DiMP, 5 labelled frames per video"
    settings.sampling.num = 5
