"""Verbs that run verbs: child processes that share the terminal, end with their parent and pass on their exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from config.console import warn
from config.environment import ROOT, choose_device
from config.errors import UserError
from config.settings import Settings

_STARTS = 4  # of mpiexec for one command
# How long a child that is to end may take; a training finishes its step and saves at the first signal.
_GRACE_SECONDS = {signal.SIGINT: 60.0, signal.SIGTERM: 10.0, signal.SIGKILL: 10.0}


def script(name: str) -> list[str]:
    """The command that runs one of our verbs with this Python."""
    return [sys.executable, str(ROOT / "scripts" / name)]


def find_mpiexec() -> Path | None:
    """The ``mpiexec`` of the mpich wheel: beside this Python, which is also where mpi4py finds its library."""
    path = Path(sys.executable).parent / "mpiexec"
    return path if path.is_file() and os.access(path, os.X_OK) else None


def under_mpi(command: Sequence[str], ranks: int) -> list[str]:
    """``command`` on ``ranks`` processes; unchanged for one, which needs no MPI.

    Raises:
        UserError: there is no ``mpiexec``.
    """
    if ranks < 1:
        raise UserError(f"--threads {ranks}: give the number of processes, 1 or more")
    if ranks == 1:
        return list(command)
    mpiexec = find_mpiexec()
    if mpiexec is None:
        raise UserError(
            f"--threads {ranks}: there is no mpiexec beside {sys.executable}; pip install mpich mpi4py, or use --threads 1"
        )
    return [str(mpiexec), "-n", str(ranks), *command]


def run_ranks(command: Sequence[str]) -> int:
    """Run what ``under_mpi`` gives to its end; its exit code.

    A rank whose work is killed starts again by itself (see ``ranks``). Where the process is killed that ``mpiexec``
    watches, it ends them all, and they are started again for what is missing.
    """
    for _ in range(_STARTS):
        code = run_child(command)
        if code != signal.SIGKILL:  # so mpiexec reports it
            break
        warn("mpiexec ended all ranks because one of them was killed; what is missing is tracked again")
    return code


def under_torchrun(
    command: Sequence[str], gpus: Sequence[int], settings: Settings
) -> tuple[list[str], dict[str, str]]:
    """``command`` with one process per named GPU, and the environment it needs.

    On the CPU, and on one GPU, there is no launcher: the command is unchanged.

    Args:
        command: Python and a script, as ``script`` gives it, and its options.
        gpus: ids as this process sees them; none: one process on the device of the settings.

    Raises:
        UserError: a GPU that this machine lacks.
    """
    if not gpus or choose_device(settings.device).type != "cuda":
        return list(command), {}
    for gpu in gpus:
        choose_device(f"cuda:{gpu}")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else None  # ids count within what is visible here
    environment = {
        "CUDA_VISIBLE_DEVICES": ",".join(names[gpu].strip() if names else str(gpu) for gpu in gpus)
    }
    if len(gpus) == 1:
        return list(command), environment
    launcher = [command[0], "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={len(gpus)}"]
    return [*launcher, *command[1:]], environment


def run_child(command: Sequence[str], environment: dict[str, str] | None = None) -> int:
    """Run a command to its end; its exit code (128 + signal when a signal ended it).

    Its messages go where ours go. When this process is interrupted or terminated, the child and all
    that it started get Ctrl-C first, and are killed if they do not end, the sooner if it is interrupted again.
    """
    # A session of its own: Ctrl-C on the terminal reaches the child once, from here, not twice.
    child = subprocess.Popen(
        command, env={**os.environ, **(environment or {})}, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        code = child.wait()
    finally:
        if child.poll() is None:
            _stop(child)
    return code if code >= 0 else 128 - code


def _stop(child: subprocess.Popen[bytes]) -> None:
    for sign, grace in _GRACE_SECONDS.items():
        try:
            if sign == signal.SIGKILL:
                os.killpg(child.pid, sign)
            else:
                child.send_signal(sign)  # launchers (mpiexec, torchrun) hand it on to what they started
            child.wait(grace)
            return
        except (subprocess.TimeoutExpired, KeyboardInterrupt, SystemExit):
            continue
        except ProcessLookupError:
            return
