"""SP-Ocean with 2 labelled frames per video."""

from config.settings import Settings
from ltr.train_settings.spot import ocean
from ltr.train_settings.spot.ocean import run as run


def configure(settings: Settings) -> None:
    """SP-Ocean on the full training set."""
    ocean.configure(settings)
    settings.description = "SP-Ocean, 2 labelled frames per video"
    settings.sampling.num = 2
