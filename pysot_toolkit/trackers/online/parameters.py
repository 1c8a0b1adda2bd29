"""What an online tracker can be told, and how the command line tells it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from config.errors import UserError, nearest
from config.settings import Settings
from pysot_toolkit.trackers.base import checked_precision
from pysot_toolkit.trackers.online.augmentation import Augmentations
from pysot_toolkit.trackers.online.localize import PREPROCESS, LocalizationRules, Preprocess
from pysot_toolkit.trackers.online.refine import SPACES, Refinement
from pysot_toolkit.trackers.online.sample_patch import BORDERS, Border

P = TypeVar("P", bound="OnlineParameters")


@dataclass(frozen=True, kw_only=True)
class OnlineParameters:
    """Parameters of a sequence; the defaults are the published DiMP-50's.

    In ``settings.tracker`` those of a group are written with its name in front: ``refine_iterations``.
    """

    sample_size: int = 288  # side of the patch, px
    search_factor: float = 5.0  # its side over the target's
    border: Border = "replicate"  # see ``sample_patch.patch_window``; the first frame always has "replicate"
    max_shrink: float | None = None

    expansion: float = 2.0  # side of the patch that is augmented over ``sample_size``
    random_shift: float = 1 / 3  # of the augmented samples, see ``augmentation.views``
    augment: Augmentations = field(default_factory=Augmentations)

    memory_size: int = 50
    learning_rate: float = 0.01
    initial_weight: float = 0.25  # least share of the first frame's samples in the memory
    hard_negative_rate: float = 0.02
    initial_iterations: int = 10
    update_iterations: int = 2
    hard_negative_iterations: int = 1
    update_interval: int = 20  # frames between updates without a hard negative
    label_sigma: float = 0.25  # of labels, in target sizes, where the optimiser takes labels

    preprocess: Preprocess = "none"  # of the scores, see ``localize.prepared``
    score_sum: int = 1
    window: bool = False  # prefer the middle of the map for the first peak
    locate: LocalizationRules = field(default_factory=LocalizationRules)
    probabilities: bool = (
        False  # the classifier's scores are logits: an answer's score is that of their softmax
    )
    even_score: float = 0.25  # the classifier's score at which an answer's is 0.5

    refine: Refinement = field(default_factory=Refinement)

    precision: str = "float32"  # or bfloat16
    seed: int = 0  # of augmentation, random boxes and random initial values, for each sequence anew


def overridden(parameters: P, values: Mapping[str, Any]) -> P:
    """``parameters`` with ``settings.tracker``.

    Raises:
        UserError: an unknown name, a value of another type, or one that makes no sense.
    """
    flat: dict[str, Any] = {}
    for entry in dataclasses.fields(parameters):
        value = getattr(parameters, entry.name)
        if dataclasses.is_dataclass(value):
            flat |= {
                f"{entry.name}_{inner.name}": getattr(value, inner.name)
                for inner in dataclasses.fields(value)
            }
        else:
            flat[entry.name] = value
    checked = Settings(flat)
    checked.seal()
    for name, value in values.items():
        if name not in flat:
            raise UserError(
                f"setting 'tracker.{name}': no such argument of the tracker, {nearest(name, flat)}"
            )
        setattr(checked, name, value)
    changed: dict[str, Any] = {}
    for entry in dataclasses.fields(parameters):
        value = getattr(parameters, entry.name)
        if dataclasses.is_dataclass(value):
            inner = {f.name: checked[f"{entry.name}_{f.name}"] for f in dataclasses.fields(value)}
            changed[entry.name] = dataclasses.replace(value, **inner)  # type: ignore[type-var]
        else:
            changed[entry.name] = checked[entry.name]
    return validated(dataclasses.replace(parameters, **changed))


def validated(parameters: P) -> P:
    """``parameters`` themselves.

    Raises:
        UserError: a value that makes no sense.
    """
    checked_precision(parameters.precision)
    for name, value, known in (
        ("border", parameters.border, BORDERS),
        ("preprocess", parameters.preprocess, PREPROCESS),
        ("refine_space", parameters.refine.space, SPACES),
    ):
        if value not in known:
            raise UserError(f"setting 'tracker.{name}' is '{value}': {nearest(value, known)}")
    for name, number, least in (
        ("sample_size", parameters.sample_size, 32),
        ("search_factor", parameters.search_factor, 1),
        ("expansion", parameters.expansion, 1),
        ("update_interval", parameters.update_interval, 1),
        ("refine_iterations", parameters.refine.iterations, 1),
        ("refine_best", parameters.refine.best, 1),
    ):
        if number < least:
            raise UserError(f"setting 'tracker.{name}' is {number}: must be at least {least}")
    for name, rate in (
        ("learning_rate", parameters.learning_rate),
        ("hard_negative_rate", parameters.hard_negative_rate),
    ):
        if not 0 < rate < 1:
            raise UserError(f"setting 'tracker.{name}' is {rate}: must lie between 0 and 1")
    return parameters
