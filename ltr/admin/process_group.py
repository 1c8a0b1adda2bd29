"""One process or many: what ``torchrun`` sets up, behind calls that also work alone."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from config.environment import choose_device
from config.errors import UserError

# That any process may wait for the others; the longest wait is for the first one to sample key frames.
TIMEOUT = timedelta(minutes=30)
_START = "start several processes by torchrun, or unset WORLD_SIZE to train by this one alone"
# Gloo raises plain RuntimeErrors, also from within a backward pass.
_LOST = re.compile(r"gloo|connection (closed|reset|refused)|broken pipe", re.IGNORECASE)


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together.

    Attributes:
        rank: 0-based number of this process.
        size: number of processes.
        device: where this process computes.
        node: 0-based number of its machine.
        node_rank: its 0-based number there.
    """

    rank: int
    size: int
    device: torch.device
    node: int = 0
    node_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def first_of_node(self) -> bool:
        """Whether this process keeps what the processes of its machine share in memory."""
        return self.node_rank == 0

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of ``value`` over all processes (the value itself when alone)."""
        if self.size == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def gather(self, records: np.ndarray) -> np.ndarray:
        """The records of all processes, one behind the other, on every process."""
        if self.size == 1:
            return records
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, records)
        return np.concatenate(parts)

    def gather_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of all processes, one behind the other, on every process; each has as many, on its device."""
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def collect(self, value: Any) -> list[Any]:
        """The ``value`` of each process, by rank, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set on some process."""
        if self.size == 1:
            return flag
        return bool(self.mean(torch.tensor([float(flag)], device=self.device)).item())

    def agree(self, value: Any) -> Any:
        """The first process's ``value`` on every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def refuse(self, reason: str) -> None:
        """End all processes, each of which calls this; the first one says why.

        Raises:
            UserError: in the first process; ``SystemExit`` with the same exit code in the others.
        """
        self.wait()
        if self.first:
            raise UserError(reason)
        raise SystemExit(2)

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def start_process_group(device: str) -> ProcessGroup:
    """Join the processes that ``torchrun`` started, or be alone.

    Args:
        device: the ``device`` setting; under ``torchrun`` each process takes its own GPU.

    Raises:
        UserError: the environment is not as ``torchrun`` makes it, or the processes cannot meet.
    """
    size = _told("WORLD_SIZE", "1", least=1)
    node, node_rank = _told("GROUP_RANK", "0"), _told("LOCAL_RANK", "0")
    chosen = choose_device(device, node_rank)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if size == 1:
        return ProcessGroup(0, 1, chosen)
    rank = _told("RANK", most=size - 1)
    if not os.environ.get("MASTER_ADDR"):
        raise UserError(f"environment variable MASTER_ADDR is not set: {_START}")
    port = _told("MASTER_PORT")
    if not dist.is_initialized():
        try:
            dist.init_process_group(
                "nccl" if chosen.type == "cuda" else "gloo",
                timeout=TIMEOUT,
                **_meeting_place(rank, size),
            )
        except dist.DistError as error:
            raise UserError(
                f"the processes of this training cannot meet at {os.environ['MASTER_ADDR']}, port {port} "
                f"({str(error).splitlines()[0]}): give another port, or look why the others do not come"
            ) from error
    return ProcessGroup(dist.get_rank(), dist.get_world_size(), chosen, node, node_rank)


def _told(name: str, default: str = "", least: int = 0, most: int = 65535) -> int:
    """The number from ``least`` to ``most`` that ``torchrun`` has put into an environment variable."""
    text = os.environ.get(name, default)
    if not text.isdecimal() or not least <= int(text) <= most:
        raise UserError(
            f"environment variable {name} is '{text}', not a number from {least} to {most}: {_START}"
        )
    return int(text)


def is_loss_of_another(error: RuntimeError) -> bool:
    """Whether this is how torch tells that another process of the group has ended or does not answer."""
    grouped = os.environ.get("WORLD_SIZE", "1") != "1"  # the group itself may be left by now
    return grouped and (isinstance(error, dist.DistError) or _LOST.search(str(error)) is not None)


def _meeting_place(rank: int, size: int) -> dict[str, Any]:
    """Arguments of ``init_process_group`` for processes that ``torchrun`` has started again.

    By default its processes meet at one store for all starts, where those of a later one take the addresses of an
    earlier one for theirs and wait (seen with torch 2.14).

    Raises:
        UserError: on several machines, where starts are counted by each for itself.
    """
    environment = os.environ
    start = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    if start == "0" or environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    if environment.get("GROUP_WORLD_SIZE", "1") != "1":
        raise UserError(
            "torchrun has started the processes again, but they cannot meet; export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 "
            "before torchrun on every machine, and start the same command again"
        )
    store = dist.TCPStore(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), timeout=TIMEOUT)
    return {"store": dist.PrefixStore(f"start_{start}", store), "rank": rank, "world_size": size}
