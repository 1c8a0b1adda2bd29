"""The published splits of the training sets, read from ``splits.json``."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any


def parse_ranges(text: str) -> list[int]:
    """``"0-2,5"`` to ``[0, 1, 2, 5]``: non-negative numbers and inclusive ranges, in the order given.

    Raises:
        ValueError: anything else.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not (last.isdecimal() and int(last) >= int(first))):
            raise ValueError(f"'{part}' is neither a number nor a range like 0-3")
        numbers.extend(range(int(first), int(last if dash else first) + 1))
    return numbers


def lasot_test() -> dict[str, list[int]]:
    """Class name to the numbers of its test sequences; all others from 1 to 20 are for training.

    Source: Fan et al., LaSOT, CVPR 2019 (protocol II).
    """
    return _splits()["lasot"]["test"]


def lasot_train_val() -> list[str]:
    """The training sequences that KeepTrack (Mayer et al., ICCV 2021) holds out for validation."""
    return _splits()["lasot"]["train_val"]


def got10k_positions(split: str) -> list[int]:
    """Positions in GOT-10k's ``train/list.txt``, counted from 0, of split train, val, vottrain or votval.

    The published ``vottrain`` and ``votval`` leave out the positions that equal the forbidden
    *numbers* of ``got10k_vot_exclude``, although position p holds ``GOT-10k_Train_{p + 1}``. They
    are kept as published, because the published key-frame files belong to them.
    """
    return parse_ranges(",".join(_splits()["got10k"][split]))


def got10k_vot_exclude() -> list[int]:
    """The numbers in ``GOT-10k_Train_NNNNNN`` of the sequences that the VOT challenges forbid."""
    return parse_ranges(",".join(_splits()["got10k"]["vot_exclude"]))


@functools.cache
def _splits() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("splits.json").read_text())
