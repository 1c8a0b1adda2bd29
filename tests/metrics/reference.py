"""The reference numbers under ``SPOT_SHARED/metrics``, and how close to them is equal."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np

from config.environment import load_settings
from config.settings import Settings
from tests.conftest import shared_path

FOLDER = shared_path() / "metrics"
EXACT = 1e-12  # means and curves, EXPECTED.md section 1


@functools.cache
def expected(name: str) -> dict[str, Any]:
    path = FOLDER / "expected" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def settings_for(dataset: str) -> Settings:
    bench = FOLDER / "bench"
    return load_settings(
        [f"paths.test.{dataset}", str(bench / "data" / dataset), "paths.seq_files", str(bench / "seq_files")]
    )


def close(got: float, want: float) -> None:
    assert abs(got - want) <= EXACT


def numbers_of(values: list[Any]) -> np.ndarray:
    """A list of ``expected/``: null and "nan" are NaN, "inf" is infinite."""
    return np.array([np.nan if value is None else float(value) for value in values])


def same_frames(got: np.ndarray, want: list[Any] | np.ndarray) -> None:
    numbers = numbers_of(list(want))
    assert got.shape == numbers.shape
    np.testing.assert_allclose(got, numbers, rtol=EXACT, atol=EXACT)
