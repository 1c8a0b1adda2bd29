"""A folder of its own for every test: paths in a local file, results in a temporary folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import need_shared

SIZES = {"Short": 4, "Middle": 9, "Long": 14}


@pytest.fixture
def local(tmp_path, monkeypatch):
    """``local(OTB100=folder)`` makes the file with this user's paths; returns the var folder."""

    def make(**folders: Path) -> Path:
        file = tmp_path / "local.py"
        file.write_text(
            "class EnvironmentSettings:\n    def __init__(self):\n"
            f"        self.workspace_dir = {str(tmp_path / 'var')!r}\n"
            "        self.train_dataset_dirs = {}\n"
            f"        self.test_dataset_dirs = { {n.replace('_', '-'): str(f) for n, f in folders.items()}!r}\n"
            "        self.seq_files_dir = ''\n"
        )
        monkeypatch.setenv("SPOT_LOCAL", str(file))
        return tmp_path / "var"

    return make


@pytest.fixture
def benchmark(tmp_path):
    """A folder in OTB100's layout: three sequences of 4, 9 and 14 small frames."""
    rng = np.random.default_rng(0)
    root = tmp_path / "OTB100"
    for name, count in SIZES.items():
        (root / name / "img").mkdir(parents=True)
        image = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        for i in range(count):
            cv2.imwrite(str(root / name / "img" / f"{i + 1:04d}.jpg"), image)
        (root / name / "groundtruth_rect.txt").write_text("10,12,20,16\n" * count)
    return root


@pytest.fixture
def shared_otb():
    """The real OTB100 sequences of the reference data."""
    return need_shared("sequences", "OTB100")
