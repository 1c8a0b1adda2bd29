"""SP-TransT on GOT-10k alone, 3 labelled frames per video, for that benchmark's protocol."""

from config.settings import Settings
from ltr.train_settings.spot import transt
from ltr.train_settings.spot.transt import run as run


def configure(settings: Settings) -> None:
    """SP-TransT on all training videos of GOT-10k."""
    transt.configure(settings)
    settings.description = "SP-TransT, 3 labelled frames per video, GOT-10k only"
    settings.data.datasets = ["GOT-10k:all"]
    settings.train.epochs = 350
    settings.optim.drop_epoch = 250
