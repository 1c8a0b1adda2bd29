"""SP-Ocean on GOT-10k alone, 3 labelled frames per video, for that benchmark's protocol."""

from config.settings import Settings
from ltr.train_settings.spot import ocean
from ltr.train_settings.spot.ocean import run as run


def configure(settings: Settings) -> None:
    """SP-Ocean on all training videos of GOT-10k."""
    ocean.configure(settings)
    settings.description = "SP-Ocean, 3 labelled frames per video, GOT-10k only"
    settings.data.datasets = ["GOT-10k:all"]
    settings.train.epochs = 300
    settings.optim.unfreeze_epoch = 60
