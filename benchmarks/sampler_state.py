"""The end of an epoch and a checkpoint of the sampler state, against plain JSON in the same run.

    python -m benchmarks.sampler_state

The plain way is the published one: load the whole JSON, update it, dump it (indented, sorted keys), and
every loader worker is sent it by pickle. Ours: journal, merge into the mapped file, workers refresh.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import tempfile
import time
from bisect import bisect_left
from pathlib import Path

import numpy as np
from tabulate import tabulate

from config.cli import run
from config.console import say
from config.environment import ROOT
from ltr.data.sampler_state import RECORD, Journal, SamplerState

SIZES = ((10_000, 50), (40_000, 250))
NEW_RESULTS = 24_000
VIDEO_LENGTH = 2_000
KEYS = 3
REPEATS = 5
PLAIN_ROWS = 500_000  # recorded frames that the plain way is measured with; more are scaled linearly
TARGETS = {"end of epoch": "40x", "checkpoint JSON": "8x", "a worker sees it": "under 10 ms"}


def records(rng: np.random.Generator, rows: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Random boxes of the given rows and frames."""
    found = np.zeros(len(rows), RECORD)
    found["order"], found["row"], found["frame"] = np.arange(len(rows)), rows, frames
    found["bbox"] = rng.uniform(10, 900, (len(rows), 4))
    found["confidence"] = rng.uniform(0.85, 1.0, len(rows)).round(4)
    return found


def explored(folder: Path, sequences: int, frames: int) -> SamplerState:
    """A state of ``sequences`` with ``frames`` recorded ones each, explored over several epochs."""
    rng = np.random.default_rng(0)
    keys = [np.sort(rng.choice(VIDEO_LENGTH, KEYS, replace=False)) for _ in range(sequences)]
    entries = [
        (f"LaSOT_video-{i:06d}", 0, f, rng.uniform(10, 900, (KEYS, 4)).round(2)) for i, f in enumerate(keys)
    ]
    state = SamplerState.create(folder / "state.bin", entries)
    missing = sequences * (frames - KEYS)
    while missing > 0:
        rows = rng.integers(0, sequences, min(missing, sequences * 10))
        missing -= state.merge(records(rng, rows, rng.integers(0, VIDEO_LENGTH, len(rows)))).inserted
    return state


def epoch_results(sequences: int, seed: int) -> np.ndarray:
    """What the teacher locates in one epoch."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, sequences, NEW_RESULTS)
    return records(rng, rows, rng.integers(0, VIDEO_LENGTH, NEW_RESULTS))


def plain_epoch(
    path: Path, results: np.ndarray, names: list[tuple[str, int]]
) -> tuple[dict, dict[str, float]]:
    """Load, update, dump, send to a worker; the state and the seconds of the four."""
    clock = [time.perf_counter()]
    state = json.loads(path.read_text())
    clock.append(time.perf_counter())
    for _, row, frame, box, confidence in results.tolist():
        trajectory = state[names[row][0]][names[row][1]]
        box, confidence = [round(float(x), 1) for x in box], round(confidence, 4)
        frames = trajectory["relay_frame_ids"]
        at = bisect_left(frames, frame)
        if at == len(frames) or frames[at] != frame:
            frames.insert(at, frame)
            trajectory["bboxes"].insert(at, box)
            trajectory["confidence"].insert(at, confidence)
        elif confidence > trajectory["confidence"][at] and frame not in trajectory["key_frame_ids"]:
            trajectory["bboxes"][at], trajectory["confidence"][at] = box, confidence
    clock.append(time.perf_counter())
    path.write_text(json.dumps(state, indent=4, sort_keys=True))
    clock.append(time.perf_counter())
    pickle.loads(pickle.dumps(state))
    clock.append(time.perf_counter())
    return state, dict(zip(("load", "update", "dump", "sent"), np.diff(clock).tolist()))


def plain(folder: Path, sequences: int, frames: int) -> tuple[dict[str, float], int]:
    """Seconds of the plain way and the factor by which they were scaled; checks that ours agrees."""
    measured = min(sequences, PLAIN_ROWS // frames)
    state = explored(folder, measured, frames)
    state.write_json(folder / "plain.json")
    (folder / "plain.json").write_text(
        json.dumps(json.loads((folder / "plain.json").read_bytes()), indent=4, sort_keys=True)
    )
    results = epoch_results(measured, seed=1)
    expected, seconds = plain_epoch(folder / "plain.json", results, state.sequences)
    state.merge(results)
    state.write_json(folder / "ours.json")
    if json.loads((folder / "ours.json").read_bytes()) != expected:
        raise AssertionError("merging disagrees with the plain update")
    scale = sequences // measured
    return {name: value if name == "update" else value * scale for name, value in seconds.items()}, scale


def _worker(path: str, asked, answers) -> None:
    state = SamplerState.open(path)
    answers.put(0.0)
    for row in iter(asked.get, None):
        begin = time.perf_counter()
        state.refresh()
        state.recorded(row)
        answers.put(time.perf_counter() - begin)


def ours(folder: Path, sequences: int, frames: int) -> dict[str, float]:
    """Median seconds of each part at the end of an epoch, and of a checkpoint."""
    state = explored(folder, sequences, frames)
    context = multiprocessing.get_context("spawn")
    asked, answers = context.Queue(), context.Queue()
    worker = context.Process(target=_worker, args=(os.fspath(folder / "state.bin"), asked, answers))
    worker.start()
    answers.get()
    parts: dict[str, list[float]] = {"journal": [], "merge": [], "worker": [], "json": []}
    with Journal(folder / "journal") as journal:
        for repeat in range(REPEATS):
            results = epoch_results(sequences, seed=2 + repeat)
            begin = time.perf_counter()
            journal.append(results)
            journal.commit()
            parts["journal"].append(time.perf_counter() - begin)
            begin = time.perf_counter()
            state.merge(results)
            parts["merge"].append(time.perf_counter() - begin)
            asked.put(repeat)
            parts["worker"].append(answers.get())
            journal.reset()
    asked.put(None)
    worker.join()
    for _ in range(3):
        begin = time.perf_counter()
        state.write_json(folder / "state.json")
        parts["json"].append(time.perf_counter() - begin)
    begin = time.perf_counter()
    SamplerState.open(folder / "state.bin")
    opened = time.perf_counter() - begin
    sizes = {f"{name} MB": (folder / f"state.{name}").stat().st_size / 1e6 for name in ("bin", "json")}
    return {name: float(np.median(times)) for name, times in parts.items()} | {"open": opened} | sizes


def measure(sequences: int, frames: int, scratch: Path) -> list[list[str]]:
    """The rows of the table for one size."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        theirs, scale = plain(Path(folder), sequences, frames)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        mine = ours(Path(folder), sequences, frames)
    end = mine["journal"] + mine["merge"] + mine["worker"]
    lines = {
        "end of epoch": (theirs["load"] + theirs["update"] + theirs["dump"], end),
        "checkpoint JSON": (theirs["dump"], mine["json"]),
        "a worker sees it": (theirs["sent"], mine["worker"]),
    }
    say(
        f"{sequences:,} x {frames}: journal {1e3 * mine['journal']:.1f} ms, merge {1e3 * mine['merge']:.1f} ms, "
        f"refresh {1e3 * mine['worker']:.2f} ms, open {1e3 * mine['open']:.2f} ms; "
        f"working file {mine['bin MB']:.0f} MB, JSON {mine['json MB']:.0f} MB"
        + (
            f"; the plain way measured with {sequences // scale:,} sequences, times {scale}"
            if scale > 1
            else ""
        )
    )
    return [
        [
            f"{sequences:,} x {frames}",
            what,
            f"{slow:.2f} s",
            f"{1e3 * fast:.2f} ms",
            f"{slow / fast:.0f}x",
            TARGETS[what],
        ]
        for what, (slow, fast) in lines.items()
    ]


def main() -> None:
    """Measure and print."""
    scratch = ROOT / "var" / "cache"
    scratch.mkdir(parents=True, exist_ok=True)
    table = [line for size in SIZES for line in measure(*size, scratch)]
    head = ["sequences x frames", f"{NEW_RESULTS:,} new results", "plain JSON", "ours", "ratio", "at least"]
    say(tabulate(table, headers=head, disable_numparse=True, colalign=("left", "left", *["right"] * 4)))


if __name__ == "__main__":
    run(main)
