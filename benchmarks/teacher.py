"""One update of the teacher: the fused moving average against the published round trip through state dicts."""

from __future__ import annotations

import copy
import time

import torch

from benchmarks import Row, paired, scaled, table
from config.cli import Parser, run
from config.console import say
from config.environment import choose_device
from ltr.models.tracking.transt import TransT
from ltr.trainers.teacher import MovingAverage, make_teacher

KEEP_RATE = 0.998
REPEATS = 15


def main() -> None:
    """Print the table."""
    options = Parser(__doc__ or "").parse_args()
    say(table(measure(options.device or "auto")))


def measure(where: str = "auto") -> list[Row]:
    """Milliseconds per update; the two results must agree."""
    device = choose_device(where)
    torch.manual_seed(0)
    student = TransT().to(device)
    fused = make_teacher(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    plain = copy.deepcopy(fused)
    average = MovingAverage(fused, student, KEEP_RATE)
    sync = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    clock = time.perf_counter if device.type == "cuda" or torch.get_num_threads() > 1 else time.process_time
    ours, theirs = paired(
        lambda: (average.update(), sync()), lambda: (round_trip(plain, student), sync()), REPEATS, clock
    )
    gap = max(float((a - b).abs().max()) for a, b in zip(fused.parameters(), plain.parameters()))
    assert gap < 1e-5, f"the two averages differ by {gap} after {REPEATS + 1} updates"
    name = f"update of TransT's {len(student.state_dict())} tensors on {device}"
    return [Row(name, "ms", scaled(ours, 1e3), scaled(theirs, 1e3), target=5)]


def round_trip(teacher: torch.nn.Module, student: torch.nn.Module) -> None:
    """The moving average tensor by tensor, through new state dicts."""
    theirs = student.state_dict()
    mixed = {
        name: KEEP_RATE * value + (1 - KEEP_RATE) * theirs[name]
        for name, value in teacher.state_dict().items()
    }
    teacher.load_state_dict(mixed)


if __name__ == "__main__":
    run(main)
