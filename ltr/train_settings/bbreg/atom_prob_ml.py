"""ATOM with a regressor trained by maximum likelihood (Danelljan et al., PrDiMP, CVPR 2020)."""

from config.settings import Settings
from ltr.train_settings.bbreg import base
from ltr.train_settings.bbreg.base import train_ml as run

__all__ = ["configure", "run"]


def configure(settings: Settings) -> None:
    """The published settings."""
    base.configure_atom(settings)
    settings.description = "ATOM, maximum-likelihood regression"
    base.use_mixture(settings)
    settings.sequences.proposals.update(mean_box=True)
    settings.objective.clear()
    settings.objective.update(bb_ml=1.0)
