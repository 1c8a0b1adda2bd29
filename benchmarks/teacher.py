"""One update of the teacher: the fused moving average against the published round trip through state dicts."""

from __future__ import annotations

import copy
import time

import torch
from tabulate import tabulate

from config.cli import Parser, run
from config.console import say
from config.environment import choose_device
from ltr.models.tracking.transt import TransT
from ltr.trainers.teacher import MovingAverage, make_teacher

KEEP_RATE = 0.998
REPEATS = 15


def main() -> None:
    """Print milliseconds per update and their ratio; the two results must agree."""
    parser = Parser(__doc__ or "")
    options = parser.parse_args()
    device = choose_device(options.device or "auto")
    torch.manual_seed(0)
    student = TransT().to(device)
    fused = make_teacher(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    plain = copy.deepcopy(fused)
    average = MovingAverage(fused, student, KEEP_RATE)
    times: dict[str, list[float]] = {"state-dict round trip": [], "fused": []}
    for _ in range(REPEATS):  # in turn, so that both see the same machine
        times["state-dict round trip"].append(_timed(lambda: round_trip(plain, student), device))
        times["fused"].append(_timed(average.update, device))
    gap = max(
        float((a - b).abs().max()) for a, b in zip(fused.parameters(), plain.parameters())
    )  # after all repeats
    slow, fast = (sorted(values)[REPEATS // 2] * 1000 for values in times.values())
    tensors = len(student.state_dict())
    say(
        f"teacher update, TransT with {tensors} tensors, {device}, {torch.get_num_threads()} threads, largest gap {gap:.1e}"
    )
    say(
        tabulate(
            [["state-dict round trip", slow, 1.0], ["fused", fast, slow / fast]],
            ["", "ms", "ratio"],
            floatfmt=".2f",
        )
    )


def round_trip(teacher: torch.nn.Module, student: torch.nn.Module) -> None:
    """The moving average tensor by tensor, through new state dicts."""
    theirs = student.state_dict()
    mixed = {
        name: KEEP_RATE * value + (1 - KEEP_RATE) * theirs[name]
        for name, value in teacher.state_dict().items()
    }
    teacher.load_state_dict(mixed)


def _timed(call, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


if __name__ == "__main__":
    run(main)
