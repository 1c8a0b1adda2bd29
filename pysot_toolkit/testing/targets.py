"""Which objects to follow in own input: boxes on the command line or in a JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from config.errors import UserError
from config.files import read_json


class Target(NamedTuple):
    """An object to follow."""

    name: str
    bbox: np.ndarray  # float64 [4], (x, y, w, h) px
    start: int = 0  # the frame of the box, counted from 0


def parse_box(text: str, where: str) -> np.ndarray:
    """``"x,y,w,h"`` as float64 ``[4]``.

    Raises:
        UserError: ``where`` is no box with an area.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    return _box(numbers, f"{where} {text}")


def read_targets(path: Path) -> list[Target]:
    """The objects in a JSON file: ``{name: [x, y, w, h]}`` or ``{name: {"box": [x, y, w, h], "frame": start}}``.

    Raises:
        UserError: it is missing, broken or of another form.
    """
    content = read_json(path.expanduser(), "file of boxes")
    if not isinstance(content, dict) or not content:
        raise UserError(f'{path}: names no objects; write {{"name": [x, y, w, h]}}')
    targets = []
    for name, value in content.items():
        start = 0
        if isinstance(value, dict):
            if set(value) - {"box", "frame"} or "box" not in value:
                raise UserError(
                    f'{path}: \'{name}\' needs "box" and may have "frame"; it has {", ".join(value) or "nothing"}'
                )
            start, value = value.get("frame", 0), value["box"]
        if type(start) is not int or start < 0:
            raise UserError(f"{path}: '{name}' starts in frame {json.dumps(start)}; frames count from 0")
        targets.append(Target(name, _box(value, f"{path}: '{name}': {json.dumps(value)}"), start))
    return targets


def _box(numbers: Any, where: str) -> np.ndarray:
    numeric = isinstance(numbers, list) and all(type(number) in (int, float) for number in numbers)
    try:
        box = np.array(numbers if numeric else [], np.float64)
    except OverflowError:
        box = np.empty(0)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise UserError(f"{where}: is no box; give x,y,w,h in px, such as 120,80,64,48")
    if (box[2:] <= 0).any():
        raise UserError(f"{where}: has no area; give x,y,w,h in px with w and h above 0")
    return box
