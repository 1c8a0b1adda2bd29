"""Which checkpoints to test: files on disk, epochs of a variant, and the names of their results."""

from __future__ import annotations

import re
from pathlib import Path

from config.environment import var_dir
from config.errors import UserError
from config.settings import Settings
from pysot_toolkit.testing.queue import Candidate

_NAME = re.compile(r".+_ep(\d{4,})_([st])\.pth\.tar")


def find_checkpoint(text: str, settings: Settings) -> Path:
    """The file that ``--resume`` means: relative to ``var/``, or a path.

    Raises:
        UserError: no such file.
    """
    given = Path(text).expanduser()
    for path in (var_dir(settings) / given, Path.cwd() / given):
        if path.is_file():
            return path.resolve()
    raise UserError(
        f"--resume {text}: no such file under {var_dir(settings)} or as a path; give a checkpoint such as "
        "checkpoints/ltr/spot/VARIANT/TransT_ep0400_t.pth.tar"
    )


def tracker_name(checkpoint: Path) -> str:
    """``{variant}_ep{epoch}_{s|t}`` for a checkpoint in its variant's folder, else the file's name."""
    match = _NAME.fullmatch(checkpoint.name)
    if match:
        return f"{checkpoint.parent.name}_ep{match[1]}_{match[2]}"
    return checkpoint.name.split(".", 1)[0]


def epoch_range(start: int, end: int, interval: int) -> list[int]:
    """Epochs ``start``, ``start + interval``, ... up to and including ``end``.

    Raises:
        UserError: no epoch lies in it.
    """
    if start < 1 or interval < 1:
        raise UserError(
            f"--start_epoch {start} --interval {interval}: epochs and their interval count from 1"
        )
    if end < start:
        raise UserError(f"--end_epoch {end}: lies before --start_epoch {start}")
    return list(range(start, end + 1, interval))


def find_epochs(
    proj_path: str, epochs: list[int], tag: str, settings: Settings
) -> tuple[list[Candidate], list[int]]:
    """The checkpoints of a variant's epochs, and the epochs that have none.

    Args:
        proj_path: ``ltr/{module}/{variant}``, a folder under ``var/checkpoints``.
        tag: ``s`` student, ``t`` teacher.

    Raises:
        UserError: no folder, two networks in it, or none of the epochs.
    """
    folder = var_dir(settings, "checkpoints", proj_path)
    if not folder.is_dir():
        raise UserError(f"--proj_path {proj_path}: there is no folder {folder}; train this variant first")
    found, missing = [], []
    for epoch in epochs:
        files = sorted(folder.glob(f"*_ep{epoch:04d}_{tag}.pth.tar"))
        if len(files) > 1:
            raise UserError(
                f"{folder}: epoch {epoch} has checkpoints of two networks ({files[0].name}, {files[1].name}); keep one"
            )
        if files:
            found.append(Candidate(tracker_name(files[0]), files[0]))
        else:
            missing.append(epoch)
    if not found:
        present = sorted(
            {
                int(match[1])
                for path in folder.iterdir()
                if (match := _NAME.fullmatch(path.name)) and match[2] == tag
            }
        )
        there = f"there are {', '.join(map(str, present))}" if present else f"{folder} has none at all"
        raise UserError(
            f"no checkpoint of epochs {', '.join(map(str, epochs))} with tag {tag} in {proj_path}; {there}"
        )
    return found, missing
