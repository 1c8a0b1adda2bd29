"""200 epochs: memory stays flat, descriptors constant and the log as long as its epochs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.faults.place import VARIANT
from tests.faults.verbs import ROOT

pytestmark = [pytest.mark.faults, pytest.mark.slow]

EPOCHS, BURN_IN, WARM_UP = 200, 100, 40
KB_PER_EPOCH = 20.0  # that memory may grow by: 8 MB in the 400 epochs of a published training


def tree(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += tree(int(child))
    return found


def look(pid: int) -> tuple[float, int]:
    """Resident memory in KB and open descriptors of a process and all that it started.

    Of the memory only what belongs to no file counts: how much of the libraries is resident is not up to the process.
    A page that a worker shares with its parent since the fork counts in both, or writing to it would look like a leak.
    """
    memory, descriptors = 0.0, 0
    for process in tree(pid):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        memory += sum(
            float(line.split()[1]) for line in lines if line.startswith(("Anonymous:", "Pss_Shmem:"))
        )
        descriptors += len(os.listdir(f"/proc/{process}/fd"))
    return memory, descriptors


def test_200_epochs(place, undisturbed):
    place.settings |= {
        "train.epochs": str(EPOCHS),
        "train.burn_in_epochs": str(BURN_IN),
        "train.save_interval": "100",
        "train.resume_interval": "5",
        "train.tensorboard": "true",
        "train.image_interval": "0",
        "data.workers": "1",
    }
    # The allocator gives back what is free: its reserves vary by 1 MB, a leak of 5 KB per epoch in this run.
    frugal = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_TOP_PAD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
    log, said = place.checkpoints / "train.jsonl", place.folder / "said"
    command = [sys.executable, str(ROOT / "scripts/run_training.py"), *place.training_words()]
    seen: dict[int, list[tuple[float, int]]] = {}
    with said.open("w") as file:
        training = subprocess.Popen(
            command, env=os.environ | place.environment() | frugal, stdout=file, stderr=file
        )
    while training.poll() is None:
        try:
            epoch = log.read_bytes().count(b"\n") if log.exists() else 0
            seen.setdefault(epoch, []).append(look(training.pid))
        except (OSError, StopIteration):  # a process has just ended
            pass
        time.sleep(0.03)
    assert training.returncode == 0, said.read_text()[-3000:]

    for first, last in ((WARM_UP, BURN_IN), (BURN_IN + WARM_UP, EPOCHS)):
        epochs = [epoch for epoch in range(first, last) if epoch in seen]
        assert len(epochs) > 0.8 * (last - first)
        memory = np.array(
            [min(kb for kb, _ in seen[epoch]) for epoch in epochs]
        )  # a leak lifts the least too
        slope = np.polyfit(epochs, memory, 1)[0]
        half = len(epochs) // 2
        counts = [
            [count for epoch in part for _, count in seen[epoch]] for part in (epochs[:half], epochs[half:])
        ]
        figures = [(min(part), max(part)) for part in counts]
        print(
            f"epochs {first} to {last}: {memory[0] / 1024:.1f} to {memory[-1] / 1024:.1f} MB, {slope:.2f} KB per epoch, "
            f"descriptors in both halves (least, most) {figures}"
        )
        assert slope < KB_PER_EPOCH
        assert (
            figures[1][0] <= figures[0][0] + 2
        )  # what is open beside the batches on their way between processes
        assert figures[1][1] <= figures[0][1] + 4

    lines = log.read_bytes().splitlines()
    speeds = (place.checkpoints / "speed.jsonl").read_bytes().splitlines()
    events = sum(path.stat().st_size for path in (place.var / "tensorboard").rglob("*") if path.is_file())
    print(
        f"per epoch: train.jsonl {len(log.read_bytes()) / EPOCHS:.0f} bytes, speed.jsonl {len(b' '.join(speeds)) / EPOCHS:.0f}, "
        f"TensorBoard {events / EPOCHS:.0f}, on the terminal {said.stat().st_size / EPOCHS:.0f}"
    )
    assert len(lines) == len(speeds) == EPOCHS
    assert max(map(len, lines)) < 1000 and max(map(len, speeds)) < 150
    assert events < 3000 * EPOCHS and said.stat().st_size < 500 * EPOCHS
    journal = place.var / f"records/sampler_state_{VARIANT}.journal"
    assert journal.stat().st_size == 8  # the last snapshot took over all that it held
    assert (
        len(list(place.checkpoints.iterdir())) == 2 + 3 + 4
    )  # two logs, epoch 100 without a teacher, epoch 200
