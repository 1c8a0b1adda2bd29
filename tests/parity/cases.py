"""The parity cases of the shared folder and the handlers that check them."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tests.parity
from tests.conftest import shared_path

Handler = Callable[[Path, Any], None]


def case_folders() -> list[Path]:
    """Every folder of ``shared/parity`` with a ``case.json``, sorted by name."""
    return sorted(path.parent for path in (shared_path() / "parity").glob("*/case.json"))


def handler_of(folder: Path) -> Handler | None:
    """The handler of a folder, by the ``case`` of its ``case.json`` or its own name; None where it is not built."""
    return handlers().get(json.loads((folder / "case.json").read_text()).get("case", folder.name))


def handlers() -> dict[str, Handler]:
    """All handlers: the ``HANDLERS`` of the modules ``tests/parity/handlers_*.py``."""
    found: dict[str, Handler] = {}
    for module in pkgutil.iter_modules(tests.parity.__path__):
        if module.name.startswith("handlers_"):
            found.update(importlib.import_module(f"tests.parity.{module.name}").HANDLERS)
    return found


def inputs_of(case: dict, kit) -> dict[str, np.ndarray]:
    """The inputs of a case by full name: generated arrays, or the listed values."""
    arrays = {}
    for entry in case["inputs"]:
        if "values" in entry:
            arrays[entry["name"]] = np.asarray(entry["values"])
        else:
            arrays[entry["name"]] = kit.array(
                entry["name"], tuple(entry["shape"]), entry["low"], entry["high"]
            )
    return arrays


class Comparison:
    """Compares arrays with the golden outputs of a case and remembers which ones were compared."""

    def __init__(self, case: dict, golden: dict[str, np.ndarray], kit, limit: float = 1e-4) -> None:
        self.outputs = {entry["name"]: entry for entry in case["outputs"]}
        self.golden, self.kit, self.limit = golden, kit, limit
        self.compared: set[str] = set()

    def check(self, name: str, actual: np.ndarray | torch.Tensor, levels: int = 0) -> None:
        """Assert that ``actual`` (whole, before subsampling) agrees with output ``name``.

        Args:
            levels: allow this many grey levels of difference instead of a relative one.
        """
        entry = self.outputs[name]
        actual = np.asarray(actual.detach().cpu() if isinstance(actual, torch.Tensor) else actual)
        assert list(actual.shape) == entry["of_shape"] or actual.size == np.prod(entry["of_shape"]), name
        expected = self.golden[name]
        rule = entry.get("subsample")
        actual = actual.ravel()[:: rule["step"]] if rule else actual.reshape(expected.shape)
        self.compared.add(name)
        if levels:
            gap = np.abs(actual.astype(np.int64) - expected.astype(np.int64)).max()
            assert gap <= levels, f"{name}: {gap} grey levels"
            return
        limit = entry.get("suggested_tolerance", self.limit)
        difference = self.kit.difference(actual, expected)
        assert difference <= limit, f"{name}: relative difference {difference:.2e}, allowed {limit:.0e}"

    def finish(self) -> None:
        """Assert that every golden output has been compared."""
        missed = sorted(set(self.golden) - self.compared)
        assert not missed, f"outputs that were not compared: {missed}"


def each(names: dict[str, Any], end: str) -> Iterator[tuple[str, Any]]:
    """Inputs whose name ends with ``end``; names carry the case as a prefix that differs between variants."""
    return ((name, value) for name, value in names.items() if name.endswith(end))


def one(names: dict[str, Any], end: str) -> Any:
    """The only input whose name ends with ``end``."""
    (value,) = (value for _, value in each(names, end))
    return value
