"""From a module and variant name to a running training."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from config.environment import load_settings
from config.errors import UserError, nearest
from config.settings import Settings
from ltr.admin.process_group import is_loss_of_another

_PACKAGE = "ltr.train_settings"


def variant_settings(module: str, variant: str, overrides: list[str] | None = None) -> Settings:
    """The merged settings of a variant: defaults, this user's paths, the variant, then ``overrides``.

    Raises:
        UserError: unknown module, variant or setting, with the nearest known name.
    """
    overrides = overrides or []
    settings = load_settings()
    configure = getattr(_load(module, variant), "configure", None)
    if configure is not None:
        configure(settings)
    settings.module_name, settings.variant = module, variant
    settings.override(overrides)
    return settings


def train(module: str, variant: str, overrides: list[str] | None = None) -> None:
    """Train a variant, or go on with it where it was interrupted.

    Raises:
        UserError: as the variant; another process of this training has ended.
    """
    settings = variant_settings(module, variant, overrides)
    try:
        _load(module, variant).run(settings)
    except RuntimeError as error:
        if not is_loss_of_another(error):
            raise
        raise UserError(
            "another process of this training has ended, its own last lines say why; torchrun starts all again where "
            "--max-restarts allows it, and the same command goes on after the newest checkpoint"
        ) from error


def _load(module: str, variant: str) -> ModuleType:
    families = [m.name for m in pkgutil.iter_modules(importlib.import_module(_PACKAGE).__path__) if m.ispkg]
    if module not in families:
        raise UserError(f"unknown module '{module}': {nearest(module, families)}")
    package = importlib.import_module(f"{_PACKAGE}.{module}")
    variants = [m.name for m in pkgutil.iter_modules(package.__path__)]
    if variant not in variants:
        raise UserError(f"unknown variant '{module}/{variant}': {nearest(variant, variants)}")
    loaded = importlib.import_module(f"{_PACKAGE}.{module}.{variant}")
    if not hasattr(loaded, "run"):
        raise UserError(
            f"{loaded.__file__}: has no run(settings), so it is no variant; {nearest(variant, variants)}"
        )
    return loaded
