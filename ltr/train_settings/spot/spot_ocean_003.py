"""SP-Ocean with 3 labelled frames per video."""

from config.settings import Settings
from ltr.train_settings.spot import ocean
from ltr.train_settings.spot.ocean import run as run


def configure(settings: Settings) -> None:
    """SP-Ocean on the full training set."""
    ocean.configure(settings)
    settings.description = "SP-Ocean, 3 labelled frames per video"
    settings.sampling.num = 3
