"""The hand-out of tasks to the processes of one run: locks on a file, which the kernel frees when a process dies.

No process is a master and none waits for a busy one. What a run needs lies in one folder that all its processes see,
also from several machines; they say nothing to each other but what stands there:

- ``plan``: what one of them has decided for all;
- ``queue``: frames tracked, int64 per rank; then two bytes per task: how often it has been taken, and its ``State``; the
  holder of a task holds the lock (POSIX, also over NFS) of its two bytes;
- ``notes.RANK``: JSON lines about finished and failed tasks;
- ``stop``: a process met a mistake in the code, and the others end too;
- ``alive``: locked by all; a folder whose lock is free belongs to a run that has ended.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orjson

from config.errors import UserError

try:
    import fcntl
except ImportError:  # Windows; one process needs no locks
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")


class State(enum.IntEnum):
    """What has become of a task."""

    OPEN = 0
    FINISHED = 1
    FAILED = 2


class Taken(NamedTuple):
    """A task that this process now holds."""

    number: int
    deaths: int  # processes that have died holding it


class AgreedError(UserError):
    """A ``UserError`` that every rank raises at the same point."""


class Alone:
    """The only process: a queue in memory, with the methods of ``Handout``."""

    rank, size = 0, 1

    def __init__(self) -> None:
        self._next = self._settled = self._frames = 0
        self._states: list[State] = []
        self._notes: list[Any] = []

    def agree(self, decide: Callable[[], T]) -> T:
        return decide()

    def open(self, tasks: int) -> None:
        self._states = [State.OPEN] * tasks

    def take(self) -> Taken | None:
        if self._next == len(self._states):
            return None
        self._next += 1
        return Taken(self._next - 1, 0)

    def settle(self, number: int, state: State, note: Any = None) -> None:
        self._states[number] = state
        self._settled += 1
        if note is not None:
            self._notes.append(note)

    def settled(self) -> int:
        return self._settled

    def finished(self) -> int:
        return self._states.count(State.FINISHED)

    def notes(self) -> list[Any]:
        return list(self._notes)

    def count(self, frames: int) -> None:
        self._frames += frames

    def frames(self) -> int:
        return self._frames

    def speaks(self) -> bool:
        return True


class Handout:
    """This process among those of a run.

    Args:
        folder: of the run; made if it is not there. Folders beside it whose runs have ended are removed.
        rank: 0-based number of this process.
        size: number of processes.

    Raises:
        UserError: the folder cannot be written, or its file system has no locks.
    """

    def __init__(self, folder: Path, rank: int, size: int) -> None:
        if fcntl is None:
            raise UserError(
                "several processes share the testing by file locks, which this system lacks; use --threads 1"
            )
        self.folder, self.rank, self.size = folder, rank, size
        self._guard = os.getpid()  # the work is done by a child, see ``ranks``
        self._held: set[int] = set()
        self._queue, self._tasks = -1, 0
        with self._clear_errors():
            folder.parent.mkdir(parents=True, exist_ok=True)
            _remove_ended(folder)
            self._alive = _lock_folder(folder)

    def agree(self, decide: Callable[[], T]) -> T:
        """What ``decide`` returns in the process that comes first, in every process; its ``UserError`` is everybody's too.

        Where that process dies on the way, the next one decides.
        """
        with self._clear_errors():
            file = os.open(self.folder / "plan", os.O_RDWR | os.O_CREAT)
        with open(file, "r+b") as plan:
            with self._clear_errors():
                fcntl.lockf(plan, fcntl.LOCK_EX)
            content = plan.read()
            if int.from_bytes(content[:8], "little") != len(content) - 8:  # nothing yet, or a part
                decided = _decided(decide)
                content = len(decided).to_bytes(8, "little") + decided
                with self._clear_errors():
                    plan.seek(0)
                    plan.write(content)
                    plan.flush()
                    os.fsync(plan.fileno())
        value, error = pickle.loads(content[8:])  # written by this run into a folder of this user
        if error is not None:
            raise AgreedError(error)
        return value

    def open(self, tasks: int) -> None:
        """Begin to hand out so many tasks, numbered from 0; every process gives the same number."""
        self._tasks = tasks
        with self._clear_errors():
            # Synchronous writes: a client of a network file system then writes these bytes and no others of their page.
            self._queue = os.open(self.folder / "queue", os.O_RDWR | os.O_CREAT | os.O_DSYNC)
            os.ftruncate(self._queue, 8 * self.size + 2 * tasks + 2)

    def take(self) -> Taken | None:
        """The next task that nobody holds; None where there is none at the moment.

        First come those that have never been taken, in order, then those whose holder has died.
        """
        table = self._table()
        new, begun = table[:, 0] == 0, table[:, 1] == State.OPEN
        for number in [*np.flatnonzero(new).tolist(), *np.flatnonzero(begun & ~new).tolist()]:
            if number in self._held or not self._lock(number):
                continue
            times, state = os.pread(self._queue, 2, self._at(number))
            if state == State.OPEN and (times == 0) == new[number]:
                os.pwrite(self._queue, bytes([min(times + 1, 255)]), self._at(number))
                self._held.add(number)
                return Taken(number, times)
            self._unlock(number)
        return None

    def settle(self, number: int, state: State, note: Any = None) -> None:
        """Say what has become of a task that this process holds.

        Args:
            note: anything that JSON can say, for ``notes``.
        """
        with self._clear_errors():
            if note is not None:
                with open(self.folder / f"notes.{self.rank}", "ab") as file:
                    # A line that a killed process left unfinished stays a line of its own.
                    file.write(b"\n" + orjson.dumps(note) + b"\n")
            os.pwrite(self._queue, bytes([state]), self._at(number) + 1)
        self._held.discard(number)
        self._unlock(number)

    def settled(self) -> int:
        """How many tasks are finished or failed, by any process."""
        return int((self._table()[:, 1] != State.OPEN).sum())

    def finished(self) -> int:
        """How many tasks are finished."""
        return int((self._table()[:, 1] == State.FINISHED).sum())

    def notes(self) -> list[Any]:
        """The notes of all processes, in rank order."""
        notes = []
        for rank in range(self.size):
            with contextlib.suppress(FileNotFoundError):
                for line in (self.folder / f"notes.{rank}").read_bytes().splitlines():
                    with contextlib.suppress(orjson.JSONDecodeError):
                        notes += [orjson.loads(line)] if line else []
        return notes

    def count(self, frames: int) -> None:
        """Tell the others that this process has tracked so many frames more; ends it where the run has been stopped."""
        before = int.from_bytes(os.pread(self._queue, 8, 8 * self.rank), "little")
        os.pwrite(self._queue, (before + frames).to_bytes(8, "little"), 8 * self.rank)
        if (self.folder / "stop").exists() or os.getppid() != self._guard:
            raise SystemExit(1)

    def frames(self) -> int:
        """Frames tracked by all processes together."""
        return int(np.frombuffer(os.pread(self._queue, 8 * self.size, 0), "<i8").sum())

    def speaks(self) -> bool:
        """Whether this rank is the one that reports: the first that asks, also where it has to ask again.

        It may be killed after its report, and before its exit code has said that something failed.
        """
        flag, mine = self._at(self._tasks), (self.rank + 1).to_bytes(2, "little")
        fcntl.lockf(self._queue, fcntl.LOCK_EX, 2, flag)
        speaker = os.pread(self._queue, 2, flag)
        if not any(speaker):
            os.pwrite(self._queue, mine, flag)
        fcntl.lockf(self._queue, fcntl.LOCK_UN, 2, flag)
        return speaker == mine or not any(speaker)

    def stop(self) -> None:
        """End the other processes at their next ``count``."""
        with contextlib.suppress(OSError):
            (self.folder / "stop").touch()

    def _table(self) -> np.ndarray:
        """Times taken and state of each task, uint8 ``[tasks, 2]``."""
        return np.frombuffer(os.pread(self._queue, 2 * self._tasks, self._at(0)), np.uint8).reshape(-1, 2)

    def _at(self, number: int) -> int:
        return 8 * self.size + 2 * number

    def _lock(self, number: int) -> bool:
        try:
            fcntl.lockf(self._queue, fcntl.LOCK_EX | fcntl.LOCK_NB, 2, self._at(number))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def _unlock(self, number: int) -> None:
        fcntl.lockf(self._queue, fcntl.LOCK_UN, 2, self._at(number))

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise UserError(
                f"{self.folder}: the processes cannot share their work here ({reason}); free space, fix permissions or set "
                "paths.var to a file system with locks"
            ) from error


def _decided(decide: Callable[[], Any]) -> bytes:
    try:
        return pickle.dumps((decide(), None))
    except UserError as error:
        return pickle.dumps((None, str(error)))


def _lock_folder(folder: Path) -> int:
    """Make ``folder`` and hold it as long as this process and its children live."""
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / "alive"
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT)
            fcntl.flock(file, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
            os.close(file)
        except FileNotFoundError:
            continue  # another run has just taken the folder for one that has ended


def _remove_ended(mine: Path) -> None:
    for folder in mine.parent.iterdir():
        if folder == mine:
            continue
        with contextlib.suppress(OSError):  # in use, or gone already
            file = os.open(folder / "alive", os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(file)
