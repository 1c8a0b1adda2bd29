"""docs/own_tracker.md, followed to the letter in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHORT = {
    "train.epochs": "2",
    "train.burn_in_epochs": "1",
    "train.iterations": "3",
    "train.batch_size_sup": "2",
    "train.batch_size_unsup": "2",
    "sparse.confidence_threshold": "0.0",
    "data.workers": "0",
    "train.tensorboard": "False",
}


def test_the_documented_tracker_trains_and_is_tested(shared, tmp_path):
    copy = tmp_path / "project"
    copy.mkdir()
    skip = shutil.ignore_patterns("__pycache__", "local.py", "*.json.tmp")
    for room in ("config", "ltr", "sampling", "pysot_toolkit", "scripts"):
        shutil.copytree(ROOT / room, copy / room, ignore=skip)
    page = (ROOT / "docs/own_tracker.md").read_text()
    files = re.findall(r"^`([\w/]+\.py)`\n\n```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(files) == 4
    for name, code in files:
        assert not (copy / name).exists(), f"{name} is taken"
        (copy / name).write_text(code)

    sequences = shared("sequences")
    (copy / "config/local.py").write_text(
        "class EnvironmentSettings:\n"
        "    workspace_dir = 'var'\n"
        f"    train_dataset_dirs = {{'LaSOT': {str(sequences / 'LaSOT')!r}}}\n"
        f"    test_dataset_dirs = {{'OTB100': {str(sequences / 'OTB100')!r}}}\n"
    )
    command = re.search(r"^python (scripts/onekey\.py (?:.*\\\n)*.*)$", page, re.MULTILINE)
    assert command
    words = command[1].replace("\\\n", " ").replace("epoch 40", "epoch 2").split()
    options = [text for key, value in SHORT.items() for text in ("--set", key, value)]
    env = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    env.pop("SPOT_LOCAL", None)
    batch = ["--batch", "2"]  # its sequences in turns, each with a state of its own
    done = subprocess.run(
        [sys.executable, *words, *options, *batch],
        cwd=copy,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "spot_siamese_ep0002_t" in done.stdout
    results = copy / "var/results/OTB100/spot_siamese_ep0002_t"
    together = {path.name: path.read_bytes() for path in results.glob("*.txt")}
    assert set(together) == {"Crossing.txt", "David.txt", "DragonBaby.txt"}
    alone = ["--dataset", "OTB100", "--arch", "siamese", "--name", "alone", "--resume"]
    alone += [str(next(copy.glob("var/checkpoints/ltr/spot/spot_siamese/*_ep0002_t.pth.tar")))]
    subprocess.run([sys.executable, "scripts/test.py", *alone], cwd=copy, env=env, check=True, timeout=300)
    folder = results.with_name("alone")
    assert {path.name: path.read_bytes() for path in folder.glob("*.txt")} == together
