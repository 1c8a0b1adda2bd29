"""The end of an epoch and a checkpoint of the sampler state, against plain JSON, by sequences x recorded frames. The plain
way is the published one: load the whole JSON, update it, dump it (indented, sorted keys), and every loader worker is
sent it by pickle; more than a quarter of a million recorded frames are scaled up from that many. Ours: journal, merge into the
mapped file, workers refresh. Neither side's waiting for the disk counts.

    python -m benchmarks.sampler_state
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

from benchmarks import Row, scaled, table
from config.cli import run
from config.console import say
from config.environment import ROOT
from ltr.data.sampler_state import RECORD, Journal, SamplerState

SIZES = ((10_000, 50), (40_000, 300))
NEW_RESULTS = 24_000
VIDEO_LENGTH = 2_000
KEYS = 3
REPEATS = 5
PLAIN_REPEATS = 2
PLAIN_ROWS = 250_000  # recorded frames that the plain way is measured with; more are scaled linearly


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
    clock = [time.process_time()]
    state = json.loads(path.read_text())
    clock.append(time.process_time())
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
    clock.append(time.process_time())
    path.write_text(json.dumps(state, indent=4, sort_keys=True))
    clock.append(time.process_time())
    pickle.loads(pickle.dumps(state))
    clock.append(time.process_time())
    return state, dict(zip(("load", "update", "dump", "sent"), np.diff(clock).tolist()))


def plain(folder: Path, sequences: int, frames: int) -> dict[str, list[float]]:
    """Seconds of the plain way, scaled to the size; checks that ours agrees."""
    measured = min(sequences, PLAIN_ROWS // frames)
    state = explored(folder, measured, frames)
    state.write_json(folder / "plain.json")
    times: dict[str, list[float]] = {"end of epoch": [], "dump": [], "sent": []}
    for repeat in range(PLAIN_REPEATS):
        results = epoch_results(measured, seed=1 + repeat)
        expected, seconds = plain_epoch(folder / "plain.json", results, state.sequences)
        state.merge(results)
        state.write_json(folder / "ours.json")
        if json.loads((folder / "ours.json").read_bytes()) != expected:
            raise AssertionError("merging disagrees with the plain update")
        whole = {name: value * sequences / measured for name, value in seconds.items()}
        times["end of epoch"].append(whole["load"] + seconds["update"] + whole["dump"])
        times["dump"].append(whole["dump"])
        times["sent"].append(whole["sent"])
    return times


def _worker(path: str, asked, answers) -> None:
    state = SamplerState.open(path)
    answers.put(0.0)
    for row in iter(asked.get, None):
        begin = time.process_time()
        state.refresh()
        state.recorded(row)
        answers.put(time.process_time() - begin)


def ours(folder: Path, sequences: int, frames: int) -> dict[str, list[float]]:
    """Seconds of each part at the end of an epoch, and of a checkpoint."""
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
            begin = time.process_time()
            journal.append(results)
            journal.commit()
            parts["journal"].append(time.process_time() - begin)
            begin = time.process_time()
            state.merge(results)
            parts["merge"].append(time.process_time() - begin)
            asked.put(repeat)
            parts["worker"].append(answers.get())
            journal.reset()
    asked.put(None)
    worker.join()
    for _ in range(3):
        begin = time.process_time()
        state.write_json(folder / "state.json")
        parts["json"].append(time.process_time() - begin)
    return parts


def measure() -> list[Row]:
    """The rows of every size."""
    scratch = ROOT / "var" / "cache"
    scratch.mkdir(parents=True, exist_ok=True)
    return [row for size in SIZES for row in rows_of(*size, scratch)]


def rows_of(sequences: int, frames: int, scratch: Path) -> list[Row]:
    """One size; the plain way is repeated less often, and its median is compared with every repetition of ours."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        plainly = plain(Path(folder), sequences, frames)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        mine = ours(Path(folder), sequences, frames)

    def row(name: str, seconds: list[float], against: str, **goal: float) -> Row:
        baseline = [1e3 * float(np.median(plainly[against]))] * len(seconds)
        return Row(f"{sequences:,} x {frames}: {name}", "ms", scaled(seconds, 1e3), baseline, **goal)

    end = np.sum([mine[part] for part in ("journal", "merge", "worker")], 0).tolist()
    merge = Row(f"{sequences:,} x {frames}: merge alone", "ms", scaled(mine["merge"], 1e3))
    return [
        row("end of an epoch, 24,000 new results", end, "end of epoch", target=40),
        merge,
        row("a worker sees it", mine["worker"], "sent", limit=10),
        row("state JSON at a checkpoint", mine["json"], "dump", target=8),
    ]


def main() -> None:
    """Print the table."""
    say(table(measure()))


if __name__ == "__main__":
    run(main)
