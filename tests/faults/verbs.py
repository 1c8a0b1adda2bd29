"""The verbs in processes that start at once: forked from a server that has everything imported.

A case that kills a process some times would otherwise spend its time on importing torch.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple

from tests.faults.file_faults import FileFault, install

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Job:
    """A verb, and what goes wrong while it runs.

    Attributes:
        verb: name of a module of ``scripts``.
        words: its command line.
        environment: is added to this process's.
        output: where stdout and stderr go (two files, ``.out`` and ``.err``).
        fault: what happens to its files.
        file_size: largest size of a file in bytes, as ``ulimit -f`` sets it; 0: no limit.
        clock_jumps: seconds by which ``time.time`` is set back at each of its calls.
        stop_at: (epoch, step, signal) of a training: the signal comes while it waits for the batch of this step.
    """

    verb: str
    words: Sequence[str]
    environment: Mapping[str, str]
    output: str
    fault: FileFault | None = None
    file_size: int = 0
    clock_jumps: float = 0.0
    stop_at: tuple[int, int, int] | None = None


class Ended(NamedTuple):
    """How a verb ended: its exit code (negative: the signal that killed it), stdout and stderr."""

    code: int
    out: str
    err: str


def _run(job: Job) -> None:
    """In the child: become the verb."""
    os.setsid()
    multiprocessing.set_start_method(
        "fork", force=True
    )  # of the loader's workers, not as this process was made
    for number, suffix in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(job.output + suffix, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    os.environ.update(job.environment)
    os.chdir(Path(job.output).parent)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if job.file_size:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job.file_size, job.file_size))
    if job.clock_jumps:
        real, calls = time.time, iter(range(1 << 60))
        time.time = lambda: real() - job.clock_jumps * next(calls)  # type: ignore[method-assign]
    if job.fault is not None:
        install(job.fault)
    if job.stop_at is not None:
        from ltr.data.loader import Plan

        real_batches, (epoch, stop, number) = Plan.batches, job.stop_at

        def batches(plan, at: int, sparse: bool, start: int = 0):
            for step, keys in enumerate(real_batches(plan, at, sparse, start), start):
                if (at, step) == (epoch, stop):
                    os.kill(os.getpid(), number)
                yield keys

        Plan.batches = batches  # type: ignore[method-assign]
    from config.cli import run

    verb = importlib.import_module(f"scripts.{job.verb}")
    sys.argv = [f"{job.verb}.py", *job.words]
    run(verb.main)


def send(number: int, *pids: int) -> None:
    """Send a signal to processes; those that have ended meanwhile get none.

    They may be gone although they were just seen: who waits for them is the fork server, or a parent of their own.
    """
    for pid in pids:
        assert pid > 0, pid  # 0 and less are groups of processes: this one's too
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Verb:
    """A verb that runs."""

    def __init__(self, job: Job, process: ForkServerProcess) -> None:
        self.job, self.process = job, process

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def alive(self) -> bool:
        return self.process.is_alive()

    def signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        if self.alive():
            send(number, self.pid)

    def says(self, text: str) -> float:
        """Wait until the process has said ``text`` on stdout, at least by its existence; CPU time used till then."""
        out = Path(self.job.output + ".out")
        while self.alive() and not (out.exists() and text in out.read_text()):
            time.sleep(0.001)
        return self.watch(0)

    def signal_after(self, seconds: float, number: int) -> None:
        """Send a signal once the process has used so much CPU time, whatever else the machine does."""
        self.watch(seconds)
        self.signal(number)

    def watch(self, seconds: float = math.inf) -> float:
        """Wait until the process has ended, or has used so much CPU time; how much it has used."""
        clock, used = ((-self.pid - 1) << 3) | 2, 0.0  # of another process, see clock_getcpuclockid(3)
        while self.alive():
            with contextlib.suppress(OSError):  # has just ended
                used = time.clock_gettime(clock)
            if used >= seconds:
                break
            time.sleep(0.001)
        return used

    def end(self, timeout: float = 120) -> Ended:
        """Wait for the end."""
        self.process.join(timeout)
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.process.join()
            raise AssertionError(
                f"{self.job.verb} {' '.join(self.job.words)}: no end within {timeout} s\n{self._said()}"
            )
        assert self.process.exitcode is not None
        return Ended(self.process.exitcode, *self._said())

    def _said(self) -> tuple[str, str]:
        files = [Path(self.job.output + suffix) for suffix in (".out", ".err")]
        out, err = (file.read_text() if file.exists() else "" for file in files)  # it may be killed before
        return out, err


class Server:
    """Starts verbs."""

    def __init__(self) -> None:
        # One thread before anything is imported: a forked child cannot use its parent's thread pool.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.faults.warm"])

    def start(self, job: Job) -> Verb:
        """Start a verb."""
        process = self._context.Process(target=_run, args=(job,))
        process.start()
        return Verb(job, process)
