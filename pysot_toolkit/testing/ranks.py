"""One process or many: what ``mpiexec`` or ``srun`` starts, behind calls that also work alone.

MPI starts the processes and gives their run a name; from then on they share their work by ``handout``, because MPI ends
a job when one of its processes dies. For the same reason the process that ``mpiexec`` watches does no work: it
starts a child, and starts another where that dies.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from config.console import warn
from config.environment import choose_device
from config.errors import UserError
from config.settings import Settings
from pysot_toolkit.testing.handout import AgreedError, Alone, Handout

_RANK_VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")
_SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
_LIVES = 8  # of a rank
_INTRODUCE = (
    "import uuid; from mpi4py.MPI import COMM_WORLD as all; print(all.size, all.bcast(uuid.uuid4().hex))"
)


def launched_rank() -> int:
    """This process's number under ``mpiexec`` or ``srun``; 0 when it was started plainly."""
    return _launched()[0]


def launched_size() -> int:
    """How many processes ``mpiexec`` or ``srun`` started together; 0 when it was neither."""
    return _launched()[1]


def _launched() -> tuple[int, int]:
    """(rank, size) as the launcher says; (0, 0) without one."""
    for rank in _RANK_VARIABLES:
        for size in _SIZE_VARIABLES:
            if rank in os.environ and size in os.environ:
                return int(os.environ[rank]), int(os.environ[size])
    if _in_slurm_step():
        return int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_STEP_NUM_TASKS"])
    return 0, 0


def _in_slurm_step() -> bool:
    """Whether ``srun`` started this process without MPI; the batch script itself has a rank, but no step."""
    return {"SLURM_PROCID", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS"} <= os.environ.keys()


class OwnError(UserError):
    """A ``UserError`` that this rank alone meets."""


@contextlib.contextmanager
def join_ranks(var: Path) -> Iterator[Alone | Handout]:
    """The ranks of this run, for the length of a ``with`` block, which runs in a child of each process.

    Where one rank fails outside ``agree`` it says why and ends the others. Where one is killed, only the tasks that
    it held have to be done again, and another process goes on in its place.

    Args:
        var: folder that all ranks see.

    Raises:
        UserError: mpi4py does not fit the ``mpiexec`` that started this process, or ``var`` has no locks.
    """
    if launched_size() <= 1:
        yield Alone()
        return
    rank, size = _launched()
    ranks = Handout(var / "cache" / "testing" / _name_of_run(size), rank, size)
    _keep_alive(rank)
    try:
        yield ranks
    except AgreedError:
        raise
    except UserError as error:
        ranks.stop()
        raise OwnError(f"rank {rank}: {error}") from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        ranks.stop()
        raise


def _name_of_run(size: int) -> str:
    """A name that all processes of this run know, and no other run has."""
    if not any(name in os.environ for name in _RANK_VARIABLES):
        step = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        return "slurm-" + "-".join(os.environ.get(name, "0") for name in step)
    # In a process of its own: what has spoken MPI should not fork, and ends the job where it is killed.
    done = subprocess.run(
        [sys.executable, "-c", _INTRODUCE],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        close_fds=False,
    )
    seen, name, *_ = [*done.stdout.split(), "", ""]
    if done.returncode or not name:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise OwnError(
            f"started under mpiexec, but mpi4py does not work ({reason}); pip install mpich mpi4py, or use --threads 1"
        )
    if int(seen) != size:
        raise UserError(
            f"mpiexec started {size} processes, mpi4py sees {seen}: they are of different MPI installations; use the "
            f"mpiexec beside {sys.executable}"
        )
    return name


def _keep_alive(rank: int) -> None:
    """Return in a child; this process waits for it, starts another where a signal kills it, and ends as it ends."""
    passed_on: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    for life in range(1, _LIVES + 1):
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # until both sides know what a signal means
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)  # Ctrl-C on a terminal comes once, from the parent
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            return

        def pass_on(number: int, _: Any, child: int = child) -> None:
            passed_on.append(number)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

        handlers = {number: signal.signal(number, pass_on) for number in signals}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if code >= 0 or passed_on:
            break
        end = "is started again" if life < _LIVES else "is not started again, the others go on"
        warn(
            f"rank {rank} was killed ({signal.Signals(-code).name}) and {end}; only what it held is tracked again"
        )
    raise SystemExit(code if code >= 0 else 128 - code)


def one_voice(main: Callable[[], int | None]) -> Callable[[], int | None]:
    """``main`` whose ``UserError`` and Ctrl-C are reported by rank 0 alone where every rank meets the same.

    Of the ranks that have nothing to say the exit code is 0: ``mpiexec`` ends all others at once where it is not.
    """

    def speak() -> int | None:
        try:
            return main()
        except OwnError:
            raise
        except (UserError, KeyboardInterrupt) as end:
            if launched_rank() == 0:
                raise
            return 0 if isinstance(end, UserError) else 130

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
