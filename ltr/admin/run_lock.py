"""One run per magic number at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from config.errors import UserError
from config.files import writing

try:
    import fcntl
except ImportError:  # Windows has no advisory locks of this kind; there two runs are not told apart
    fcntl = None  # type: ignore[assignment]


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
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
    return file
