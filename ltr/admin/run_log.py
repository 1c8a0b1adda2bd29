"""What a run writes down: values that repeat bit for bit, and speeds that do not."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from config.console import warn
from config.files import writing


class RunLog:
    """The log of a run: ``train.jsonl``, ``speed.jsonl`` and TensorBoard.

    ``train.jsonl`` holds one line per epoch that depends on settings and data alone, so that an
    interrupted and resumed run ends with the same bytes; ``speed.jsonl`` holds what the clock says.

    Args:
        folder: where the two files lie.
        tensorboard: folder of the TensorBoard events, or None.
        start: size in bytes that ``train.jsonl`` had at the checkpoint that is resumed (0: a new run).
        epoch: epoch of that checkpoint.

    Raises:
        UserError: the disk is full or the folder cannot be written; so do ``write`` and ``image``.
    """

    def __init__(self, folder: Path, tensorboard: Path | None, start: int, epoch: int) -> None:
        self.path, self._tensorboard = folder / "train.jsonl", tensorboard
        with writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._values = open(self.path, "ab")  # noqa: SIM115 - closed in close()
            self._values.truncate(start)
            self._speed = open(folder / "speed.jsonl", "ab")  # noqa: SIM115
        self._writer: Any = None
        if tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            with writing(tensorboard):
                self._writer = SummaryWriter(str(tensorboard), purge_step=epoch + 1)

    def write(self, epoch: int, values: dict[str, Any], speed: dict[str, Any]) -> None:
        """One line in each file, and the numbers in TensorBoard."""
        with writing(self.path):
            for file, content in ((self._values, values), (self._speed, speed)):
                file.write(orjson.dumps({"epoch": epoch, **content}, option=orjson.OPT_APPEND_NEWLINE))
                file.flush()
                os.fsync(file.fileno())
        if self._writer is not None:
            with writing(str(self._tensorboard)):
                for group, content in (("train", values), ("speed", speed)):
                    for name, value in content.items():
                        if isinstance(value, (int, float)) and value is not None:
                            self._writer.add_scalar(f"{group}/{name}", value, epoch)
                self._writer.flush()

    def image(self, epoch: int, picture: np.ndarray) -> None:
        """A picture RGB uint8 ``[H, W, 3]`` of student inputs in TensorBoard."""
        if self._writer is not None:
            with writing(str(self._tensorboard)):
                self._writer.add_image("student_inputs", picture, epoch, dataformats="HWC")

    def size(self) -> int:
        """Bytes of ``train.jsonl`` so far; goes into the checkpoint."""
        return self._values.tell()

    def close(self) -> None:
        """Close the files."""
        with contextlib.suppress(OSError):
            self._values.close()
            self._speed.close()
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                warn(f"TensorBoard events could not be closed ({error})")
