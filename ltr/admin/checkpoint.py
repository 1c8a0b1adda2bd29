"""Epochs on disk: student, teacher, training state and sampler state that belong together, manifest last."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from config.console import warn
from config.errors import UserError
from config.files import atomic_writer, read_json, sha256, write_json

FORMAT = 1  # of the files below; a larger number in a manifest means a newer SPOT wrote it


def network_content(
    network: nn.Module, net_type: str, constructor: Mapping[str, Any], settings: Mapping[str, Any], epoch: int
) -> dict[str, Any]:
    """What a ``_s`` or ``_t`` file holds: weights, and all that testing needs to build and run the network.

    Args:
        constructor: ``{"name", "args"}`` of the registered network.
        settings: the merged settings as plain values.
    """
    return {
        "format": FORMAT,
        "epoch": epoch,
        "net_type": net_type,
        "net": network.state_dict(),
        "constructor": dict(constructor),
        "settings": dict(settings),
    }


class CheckpointStore:
    """The checkpoints of one run.

    ``{Net}_ep{epoch}_s.pth.tar`` (student), ``_t`` (teacher, once there is one), ``_state`` (optimizer,
    counters, settings) in ``folder``, the sampler state of the same epoch in ``records``, and the
    manifest ``{Net}_ep{epoch}.json`` with sizes and hashes, renamed into place last: an epoch exists
    when its manifest verifies.

    Args:
        folder: ``var/checkpoints/ltr/{module}/{variant}``.
        records: ``var/records``.
        net_type: name of the network class, first part of the file names.
        magic_number: name of the sampler state.
    """

    def __init__(self, folder: Path, records: Path, net_type: str, magic_number: str) -> None:
        self.folder, self.records, self.net_type, self.magic_number = folder, records, net_type, magic_number
        self._named: set[int] = set()  # broken epochs that the user has been told of

    def manifest(self, epoch: int) -> Path:
        """The file whose presence makes the epoch exist."""
        return self.folder / f"{self.net_type}_ep{epoch:04d}.json"

    def weights(self, epoch: int, part: str) -> Path:
        """``part`` is s (student), t (teacher) or state (training state)."""
        return self.folder / f"{self.net_type}_ep{epoch:04d}_{part}.pth.tar"

    def snapshot(self, epoch: int) -> Path:
        """The sampler state as it was at the end of ``epoch``."""
        return self.records / f"sampler_state_{self.magic_number}_{epoch:04d}.json"

    def current_state(self) -> Path:
        """The published sampler state of the run, that of its newest checkpoint."""
        return self.records / f"sampler_state_{self.magic_number}.json"

    def epochs(self) -> list[int]:
        """Epochs that have a manifest, ascending; not verified."""
        pattern = re.compile(re.escape(self.net_type) + r"_ep(\d{4,})\.json")
        names = (
            [pattern.fullmatch(path.name) for path in self.folder.glob("*.json")]
            if self.folder.is_dir()
            else []
        )
        return sorted(int(match[1]) for match in names if match)

    def save(
        self,
        epoch: int,
        parts: dict[str, dict[str, Any]],
        write_state: Callable[[Path], None] | None,
        keep: bool,
    ) -> None:
        """Write one epoch and make it exist.

        Args:
            epoch: 1-based number of the finished epoch.
            parts: what goes into the files ``s``, ``t`` and ``state``: tensors and plain values.
            write_state: writes the sampler state as JSON to the path it is given; None: there is none.
            keep: False: the next ``save`` removes this epoch again.

        Raises:
            UserError: the disk is full or not writable; the epochs before are untouched.
        """
        files: dict[str, Path] = {}
        for part, content in parts.items():
            path = self.weights(epoch, part)
            buffer = io.BytesIO()
            torch.save(content, buffer)
            with atomic_writer(path) as file:
                file.write(buffer.getbuffer())
            files[part] = path
        if write_state is not None:
            write_state(self.snapshot(epoch))
            files["sampler_state"] = self.snapshot(epoch)
        entries = {
            part: {
                "file": os.path.relpath(path, self.folder),
                "size": path.stat().st_size,
                "sha256": sha256(path),
            }
            for part, path in files.items()
        }
        earlier = [old for old in self.epochs() if old != epoch]
        write_json(
            self.manifest(epoch),
            {"format": FORMAT, "epoch": epoch, "kept": keep, "files": entries},
            indent=True,
        )
        if write_state is not None:
            self.publish(epoch)
        for old in earlier:
            if not self._kept(old):
                self.remove(old)

    def publish(self, epoch: int) -> None:
        """Make the snapshot of ``epoch`` the current sampler state (one file under two names)."""
        target, temporary = (
            self.current_state(),
            self.records / f".{self.current_state().name}.{os.getpid()}.tmp",
        )
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        try:
            os.link(self.snapshot(epoch), temporary)
            os.replace(temporary, target)
        except OSError:  # a file system without links
            with atomic_writer(target) as file:
                file.write(self.snapshot(epoch).read_bytes())

    def remove(self, epoch: int) -> None:
        """Take an epoch away, its manifest first."""
        with contextlib.suppress(FileNotFoundError):
            self.manifest(epoch).unlink()
        for path in [*(self.weights(epoch, part) for part in ("s", "t", "state")), self.snapshot(epoch)]:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def newest(self) -> int | None:
        """The newest epoch whose files all verify; broken ones are named and passed over."""
        for epoch in reversed(self.epochs()):
            reason = self._fault(epoch)
            if reason is None:
                return epoch
            if epoch not in self._named:
                warn(f"{self.manifest(epoch)}: {reason}; falling back to the checkpoint before it")
                self._named.add(epoch)
        return None

    def load(self, epoch: int, part: str) -> dict[str, Any]:
        """The content of one file of a verified epoch, on the CPU."""
        return torch.load(self.weights(epoch, part), map_location="cpu", weights_only=True)

    def has(self, epoch: int, part: str) -> bool:
        """Whether the epoch's manifest lists ``part``."""
        return part in read_json(self.manifest(epoch), "manifest")["files"]

    def _kept(self, epoch: int) -> bool:
        try:
            return bool(read_json(self.manifest(epoch), "manifest").get("kept", True))
        except (UserError, AttributeError):
            return True  # not ours to delete

    def _fault(self, epoch: int) -> str | None:
        try:
            manifest = read_json(self.manifest(epoch), "manifest")
        except UserError:
            return "is broken"
        try:
            newer = manifest["format"] > FORMAT
            files = {
                part: (self.folder / entry["file"], entry["size"], entry["sha256"])
                for part, entry in manifest["files"].items()
            }
        except (KeyError, TypeError, AttributeError):
            return "is not a manifest"
        if newer:
            raise UserError(
                f"{self.manifest(epoch)}: written by a newer SPOT (format {manifest['format']}, this one reads {FORMAT}); update"
            )
        for part, (path, size, digest) in files.items():
            if not path.is_file() or path.stat().st_size != size:
                return f"{path.name} ({part}) is missing or truncated"
            if sha256(path) != digest:
                return f"{path.name} ({part}) is corrupt"
        return None
