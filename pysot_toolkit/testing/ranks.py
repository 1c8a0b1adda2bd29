"""One process or many: what ``mpiexec`` starts, behind calls that also work alone, without mpi4py.

Ranks share a few counters in a memory window (MPI one-sided communication); no rank is a master, and
a rank that is busy tracking holds up no other.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from config.environment import choose_device
from config.errors import UserError
from config.settings import Settings

T = TypeVar("T")

COUNTERS = 3  # TAKEN, FRAMES, DONE
TAKEN, FRAMES, DONE = range(COUNTERS)  # tasks taken from the queue; frames tracked; tasks finished or failed

_RANK_VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")
_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")


def launched_rank() -> int:
    """This process's number under ``mpiexec``; 0 when it was started plainly."""
    return int(next((os.environ[name] for name in _RANK_VARIABLES if name in os.environ), "0"))


def launched_size() -> int:
    """How many processes ``mpiexec`` started together; 0 when there was no ``mpiexec``."""
    return int(next((os.environ[name] for name in _SIZE_VARIABLES if name in os.environ), "0"))


class _AgreedError(UserError):
    """A ``UserError`` that every rank raises at the same point."""


class Alone:
    """The only process."""

    rank, size = 0, 1

    def __init__(self) -> None:
        self._counters = [0] * COUNTERS

    def agree(self, decide: Callable[[], T]) -> T:
        """What ``decide`` returns on rank 0, on every rank; its ``UserError`` is everybody's too."""
        return decide()

    def add(self, counter: int, amount: int) -> int:
        """Add to a shared counter; its value before."""
        before = self._counters[counter]
        self._counters[counter] += amount
        return before

    def gather(self, values: list[T], waiting: Callable[[], None]) -> list[T]:
        """The values of all ranks, in rank order; ``waiting`` is called while others are busy."""
        return list(values)


class Ranks:
    """This process among those that ``mpiexec`` started on one machine."""

    def __init__(self, mpi: Any) -> None:
        self._mpi = mpi
        self._all = mpi.COMM_WORLD
        self.rank, self.size = self._all.rank, self._all.size
        self._window = mpi.Win.Allocate_shared(
            8 * COUNTERS if self.rank == 0 else 0, disp_unit=8, comm=self._all
        )
        if self.rank == 0:
            np.frombuffer(self._window.tomemory(), dtype=np.int64)[:] = 0
        # Locked once for the whole run: a lock per operation would wait until the busy rank 0 answers.
        self._window.Lock_all(mpi.MODE_NOCHECK)
        self._all.Barrier()

    def agree(self, decide: Callable[[], T]) -> T:
        """What ``decide`` returns on rank 0, on every rank; its ``UserError`` is everybody's too."""
        value, error = None, None
        if self.rank == 0:
            try:
                value = decide()
            except UserError as problem:
                error = str(problem)
        value, error = self._all.bcast((value, error), root=0)
        if error is not None:
            raise _AgreedError(error)
        return value  # type: ignore[return-value]

    def add(self, counter: int, amount: int) -> int:
        """Add to a shared counter; its value before."""
        step, before = np.array([amount], dtype=np.int64), np.zeros(1, dtype=np.int64)
        kind = self._mpi.INT64_T
        self._window.Fetch_and_op([step, kind], [before, kind], 0, counter, self._mpi.SUM)
        self._window.Flush(0)
        return int(before[0])

    def gather(self, values: list[T], waiting: Callable[[], None]) -> list[T]:
        """The values of all ranks, in rank order; ``waiting`` is called while others are busy."""
        arrival = self._all.Ibarrier()
        while not arrival.Test():  # Wait() would burn the core that a busy rank needs
            waiting()
            time.sleep(0.05)
        return [value for part in self._all.allgather(values) for value in part]

    def close(self) -> None:
        """Give the window back; every rank calls it."""
        self._window.Unlock_all()
        self._window.Free()

    def abort(self) -> None:
        """End all ranks at once, so that none waits for one that is gone."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._all.Abort(1)


@contextlib.contextmanager
def join_ranks() -> Iterator[Alone | Ranks]:
    """The ranks of this run, for the length of a ``with`` block.

    Where one rank fails outside ``agree`` it says why and ends the others, so that none waits for it; what
    they have finished is on disk.

    Raises:
        UserError: mpi4py does not fit the ``mpiexec`` that started this process.
    """
    if launched_size() <= 1:
        yield Alone()
        return
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"started under mpiexec, but mpi4py does not load ({error}); pip install mpich mpi4py, or use --threads 1"
        ) from error
    if MPI.COMM_WORLD.size != launched_size():
        raise UserError(
            f"mpiexec started {launched_size()} processes, mpi4py sees {MPI.COMM_WORLD.size}: they are of different MPI "
            f"installations; use the mpiexec beside {sys.executable}"
        )
    ranks = Ranks(MPI)
    try:
        yield ranks
        ranks.close()
    except _AgreedError:
        ranks.close()
        raise
    except UserError as error:
        print(f"rank {ranks.rank}: error: {error}", file=sys.stderr)
        ranks.abort()
    except BaseException as error:
        if not isinstance(error, (KeyboardInterrupt, SystemExit)):
            traceback.print_exc()
            ranks.abort()
        raise


def one_voice(main: Callable[[], int | None]) -> Callable[[], int | None]:
    """``main`` whose ``UserError`` and Ctrl-C are reported by rank 0 alone: every rank meets the same."""

    def speak() -> int | None:
        try:
            return main()
        except (UserError, KeyboardInterrupt) as end:
            if launched_rank() == 0:
                raise
            return 2 if isinstance(end, UserError) else 130

    return speak


def check_gpus(gpus: list[int], settings: Settings) -> None:
    """Refuse GPU ids that this machine lacks.

    Without CUDA, or with ``--device cpu``, the ids are ignored: the same command works on the CPU.

    Raises:
        UserError: an id that does not exist, or one that contradicts ``--device cuda:N``.
    """
    if settings.device.startswith("cuda:") and gpus and settings.device[5:] not in map(str, gpus):
        raise UserError(
            f"--device {settings.device} and --gpus {','.join(map(str, gpus))} contradict each other; give one of them"
        )
    if choose_device(settings.device).type == "cuda":
        for gpu in gpus:
            choose_device(f"cuda:{gpu}")


def choose_rank_device(gpus: list[int], settings: Settings, rank: int, size: int) -> Any:
    """The torch device of a rank: the rank-th (modulo) named GPU, or the CPU with a fair share of threads."""
    import torch

    device = choose_device(settings.device, rank)
    if device.type == "cuda":
        if gpus and not settings.device.startswith("cuda:"):
            device = torch.device("cuda", gpus[rank % len(gpus)])
        torch.cuda.set_device(device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    elif size > 1:
        torch.set_num_threads(max(1, cores() // size))
    return device


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parse_gpus(text: str) -> list[int]:
    """``"0,1,3"`` -> ``[0, 1, 3]``; empty text -> no choice.

    Raises:
        UserError: not a list of different numbers.
    """
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(part.isascii() and part.isdigit() for part in parts) or len(set(parts)) != len(parts):
        raise UserError(f"--gpus '{text}': give different GPU numbers separated by commas, such as 0,1,2")
    return [int(part) for part in parts]
