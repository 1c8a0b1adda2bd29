"""Milliseconds per tracked frame, by part: the trackers against their published formulations in the same run.

``python -m benchmarks.tracking [--arch transt|dimp50|dimp18|atom] [--device cpu] [--threads 1] [--frames 8]``

The formulations are those of ``_plain_transt`` and ``_plain_online``. An online tracker's frame is measured without
and with an update of its filter, on a full memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import cv2
import torch
from tabulate import tabulate

from benchmarks import Row, _track_online, _track_transt
from benchmarks._clock import Clock
from config.cli import Options, positive, run
from config.environment import choose_device

Clocks = dict[str, Clock]  # of "plain" and of each precision


class Tracked(NamedTuple):
    """What is known of a tracker here."""

    title: str
    clocks: Callable[[torch.device, int], Clocks]
    parts: tuple[str, ...]
    targets: Mapping[str, Mapping[str, float]]  # by precision and part, times the plain formulation


ARCHS = {
    "transt": Tracked(
        "TransT (ResNet-50)", _track_transt.clocks_of, _track_transt.PARTS, _track_transt.TARGETS
    ),
    **{
        arch: Tracked(
            title, partial(_track_online.clocks_of, arch), _track_online.PARTS, _track_online.TARGETS
        )
        for arch, title in (("dimp50", "DiMP-50"), ("dimp18", "DiMP-18"), ("atom", "ATOM"))
    },
}


def measure(frames: int = 6) -> list[Row]:
    """Milliseconds per frame on one CPU thread."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows = []
    for tracked in ARCHS.values():
        clocks = tracked.clocks(torch.device("cpu"), frames)
        for precision, targets in tracked.targets.items():
            for part, goal in targets.items():
                ours, plain = (clocks[name].times[part][1:] for name in (precision, "plain"))
                rows.append(Row(f"{tracked.title}, {precision}, {part}", "ms", ours, plain, target=goal))
    return rows


def table(tracked: Tracked, clocks: Clocks) -> str:
    """The milliseconds of every part."""
    rows = []
    for part in tracked.parts:
        base = clocks["plain"].median(part)
        row = [part + (" (once per sequence)" if part == "template" else ""), f"{base:.1f}"]
        for precision, targets in tracked.targets.items():
            found = clocks[precision].median(part)
            goal = f" of {targets[part]}x" if part in targets else ""
            row += [f"{found:.1f}", f"{base / found:.2f}x{goal}"]
        rows.append(row)
    head = ["part", "plain", *(text for precision in tracked.targets for text in (precision, ""))]
    return tabulate(rows, headers=head, disable_numparse=True)


def main() -> None:
    """Print the milliseconds of every part; targets are those on one CPU thread."""
    parser = Options(__doc__)
    parser.add_argument("--arch", choices=ARCHS, help="default: all")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads of torch")
    parser.add_argument("--frames", type=positive, default=8)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    device = choose_device(options.device)
    for arch in [options.arch] if options.arch else ARCHS:
        tracked = ARCHS[arch]
        print(
            f"{tracked.title}, ms per part and frame of 1280x720, {device}, {torch.get_num_threads()} thread(s)"
        )
        print(table(tracked, tracked.clocks(device, options.frames)))


if __name__ == "__main__":
    run(main)
