"""What can go wrong with files, in a process that is about to run a verb: a kill or an error at the n-th operation."""

from __future__ import annotations

import builtins
import io
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_real_open = io.open
_real_write = os.write


@dataclass(frozen=True)
class FileFault:
    """What happens at an operation on the files below ``folder``.

    Attributes:
        folder: only files in it count.
        at: number of the operation, from 1; 0: operations are only counted, in the file ``count``.
        error: errno that this operation and all later ones that take space or change a folder fail with; 0: the
            process kills itself there.
        count: where the number of operations is written at each of them, for a run that nothing disturbs.
    """

    folder: str
    at: int = 0
    error: int = 0
    count: str = ""


class _Operations:
    def __init__(self, fault: FileFault) -> None:
        self.fault, self.done = fault, 0
        self._count = os.open(fault.count, os.O_WRONLY | os.O_CREAT, 0o644) if fault.count else -1

    def below(self, file: Any) -> bool:
        """Whether a path or descriptor lies in the folder."""
        if isinstance(file, int):
            try:
                file = os.readlink(f"/proc/self/fd/{file}")
            except OSError:
                return False
        return os.path.abspath(os.fspath(file)).startswith(self.fault.folder + os.sep)

    def reached(self, file: Any) -> bool:
        """Count an operation; whether it is the one that fails."""
        if not self.below(file):
            return False
        self.done += 1
        if self._count >= 0:
            os.pwrite(self._count, b"%9d" % self.done, 0)
        at = self.fault.at
        return at > 0 and (self.done == at or (self.fault.error != 0 and self.done > at))

    def fail(self, file: Any) -> None:
        if not self.fault.error:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(
            self.fault.error, os.strerror(self.fault.error), file if isinstance(file, str) else None
        )


def install(fault: FileFault) -> None:
    """Let ``fault`` happen in this process; there is no way back.

    Counted are: creating, writing, truncating, allocating, syncing, renaming, linking and removing. A write that
    fails has written its first half before.
    """
    operations = _Operations(fault)

    class File(io.FileIO):
        def write(self, data: Any) -> int:
            if operations.reached(self.fileno()):
                view = memoryview(data).cast("B")
                _real_write(self.fileno(), view[: len(view) // 2])
                operations.fail(None)
            return super().write(data)

        def truncate(self, size: int | None = None) -> int:
            if operations.reached(self.fileno()) and not fault.error:
                operations.fail(None)  # shrinking needs no space: it takes back what was half written
            return super().truncate(size)

    def open_file(
        file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None
    ):
        if not (set(mode) & set("wax+") and operations.below(file)):
            return _real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = File(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        buffered: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    builtins.open = io.open = open_file  # type: ignore[assignment]

    def guard(name: str, which: int = 0, frees: bool = False) -> None:
        real = getattr(os, name)

        def guarded(*args: Any, **options: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **options)
            target = args[which]
            if operations.reached(target) and not (frees and fault.error):
                operations.fail(os.fspath(target) if not isinstance(target, int) else None)
            return real(*args, **options)

        setattr(os, name, guarded)

    for name in ("open", "fsync", "posix_fallocate", "mkdir"):
        guard(name)
    for name in ("replace", "rename", "link"):
        guard(name, which=1)
    for name in ("unlink", "remove"):
        guard(name, frees=True)


def folder_of(path: Path) -> str:
    """A folder as ``FileFault`` names it."""
    return os.path.abspath(path)
