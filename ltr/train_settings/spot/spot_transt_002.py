"""SP-TransT with 2 labelled frames per video."""

from config.settings import Settings
from ltr.train_settings.spot import transt
from ltr.train_settings.spot.transt import run as run


def configure(settings: Settings) -> None:
    """SP-TransT on the full training set."""
    transt.configure(settings)
    settings.description = "SP-TransT, 2 labelled frames per video"
    settings.sampling.num = 2
