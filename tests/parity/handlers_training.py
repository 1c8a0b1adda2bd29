"""Parity of schedule, teacher average and batch refill with the published training."""

from __future__ import annotations

import numpy as np
import torch

from ltr.actors.sparse import refill_order
from ltr.trainers.schedule import StepDrop
from ltr.trainers.teacher import MovingAverage


def _network(prefix: str, inputs: dict, kit, counter: int) -> torch.nn.Module:
    network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1))
    for name, entry in inputs.items():
        if not name.startswith(prefix):
            continue
        module, tensor = name[len(prefix) :].split(".")
        value = torch.from_numpy(kit.array(name, tuple(entry["shape"]), entry["low"], entry["high"]))
        if tensor in ("weight", "bias"):
            setattr(network[int(module)], tensor, torch.nn.Parameter(value))
        else:
            network[int(module)].register_buffer(tensor, value)
    network[1].num_batches_tracked.fill_(counter)
    return network


def spot_training(folder, kit):
    """Learning rates of TransT, one teacher update, and the order of refilled batches."""
    _, case, golden = kit.load(folder)
    build, inputs = case["build"], {entry["name"]: entry for entry in case["inputs"]}

    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.AdamW(
        [{"params": [w], "lr": lr, "initial_lr": lr} for w, lr in zip(weights, (1e-4, 1e-5))]
    )
    schedule, rates = StepDrop(build["transt_step"], 0.1), []
    for epoch in range(1, build["transt_epochs"] + 1):
        schedule.begin_epoch(epoch, optimizer)
        rates.append([group["lr"] * 1000 for group in optimizer.param_groups])
    assert kit.difference(rates, golden["transt_lr"]) <= 1e-4

    counters = next(o["meaning"] for o in case["outputs"] if "num_batches_tracked" in o["name"])
    student_count, teacher_count = _counts(counters)
    stem = next(name for name in inputs if name.endswith("student/0.weight"))[: -len("student/0.weight")]
    student = _network(f"{stem}student/", inputs, kit, student_count)
    teacher = _network(f"{stem}teacher/", inputs, kit, teacher_count)
    MovingAverage(teacher, student, build["keep_rate"]).update()
    ranges = {output["name"]: output["range"] for output in case["outputs"] if "range" in output}
    for name, value in teacher.state_dict().items():
        if name.endswith("num_batches_tracked"):
            # The array of the counter holds the student's count, against the case's own range and its
            # note on truncation; the range is what one update gives.
            assert [value.item()] * 2 == ranges[f"ema_{name}"]
        else:
            assert kit.difference(np.ravel(value), np.ravel(golden[f"ema_{name}"])) <= 1e-4, name

    masks = torch.tensor(inputs["masks"]["values"], dtype=torch.bool)
    order = torch.stack([refill_order(mask) for mask in masks])
    assert np.array_equal(order.numpy(), golden["batch_order"])


def _counts(text: str) -> tuple[int, int]:
    import re

    student = re.search(r"student (\d+)", text)
    teacher = re.search(r"teacher (\d+)\)", text)
    assert student and teacher, text
    return int(student[1]), int(teacher[1])


HANDLERS = {"spot_training": spot_training}
