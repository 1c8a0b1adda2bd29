"""One run per magic number at a time."""

from __future__ import annotations

import os
import time
import weakref
from pathlib import Path
from typing import IO

from config.errors import UserError
from config.files import writing

try:
    import fcntl
except ImportError:  # Windows has no advisory locks of this kind; there two runs are not told apart
    fcntl = None  # type: ignore[assignment]


# Under torchrun the processes of before a restart may be about to end, also on another machine.
_PATIENCE_SECONDS = 60.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.0


def lock_run(path: Path) -> IO[str]:
    """Take the lock file ``path`` until the process ends; the kernel frees it even after a kill.

    Raises:
        UserError: another live process holds it, or it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115 - held for the life of the run
    if fcntl is not None:
        try:
            _flock(file)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip()
            file.close()
            raise UserError(
                f"{path}: another training run{f' (process {owner})' if owner else ''} uses this magic number; "
                "wait for it, or give --set variant NAME for a run of its own"
            ) from error
    with writing(path):
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    held = weakref.ref(file)

    def let_go() -> None:
        if (mine := held()) is not None:
            mine.close()

    # Loader workers outlive a killed process by some seconds; they must not keep its lock.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=let_go)
    return file


def _flock(file: IO[str]) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.5)
