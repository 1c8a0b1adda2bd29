"""Fixtures that all rooms share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hypothesis
import pytest

# Timings never decide a test, and CI tries the same examples each time.
hypothesis.settings.register_profile("spot", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("spot")

ROOT = Path(__file__).resolve().parents[1]


def shared_path() -> Path:
    """The folder of reference data: ``SPOT_SHARED``, else ``../shared``."""
    return Path(os.environ.get("SPOT_SHARED") or ROOT.parent / "shared").resolve()


def need_shared(*parts: str) -> Path:
    """A path under the shared folder; skips, naming what is missing, where it is absent (fails in CI)."""
    path = shared_path().joinpath(*parts)
    if not path.exists():
        message = f"{path} is missing (set SPOT_SHARED)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


@pytest.fixture(scope="session")
def shared():
    """``shared("parity", "transt_forward")`` is that path in the reference data, or a skip that names it."""
    return need_shared


def load_kit():
    """The module ``parity/kit.py`` of the shared folder."""
    import importlib.util

    path = need_shared("parity", "kit.py")
    if "spot_parity_kit" not in sys.modules:
        spec = importlib.util.spec_from_file_location("spot_parity_kit", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules["spot_parity_kit"] = module
    return sys.modules["spot_parity_kit"]


@pytest.fixture(scope="session")
def kit():
    """The parity kit: weights and inputs by name, ``difference``."""
    return load_kit()
