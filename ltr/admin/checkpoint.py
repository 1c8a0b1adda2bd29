"""Epochs on disk: student, teacher, training state and sampler state that belong together, manifest last."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from config.console import warn
from config.errors import UserError
from config.files import NewerVersion, atomic_writer, read_json, refuse_newer, sha256, write_json, writing
from ltr.admin.manifest import FORMAT, fault_of, read_manifest


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

    A run that was interrupted within an epoch has ``{Net}_ep{epoch}_step{step}...`` too: ``epoch`` whole
    epochs and ``step`` steps of the next. Its sampler state is that of the newest whole epoch, named in the
    manifest as ``base``, and what the state file holds of the journal. The next save removes it.

    Args:
        folder: ``var/checkpoints/ltr/{module}/{variant}``.
        records: ``var/records``.
        net_type: name of the network class, first part of the file names.
        magic_number: name of the sampler state.
    """

    def __init__(self, folder: Path, records: Path, net_type: str, magic_number: str) -> None:
        self.folder, self.records, self.net_type, self.magic_number = folder, records, net_type, magic_number
        self.pictures = folder / "inputs"
        self._named: set[Path] = set()  # manifests of broken epochs that the user has been told of

    def manifest(self, epoch: int, step: int = 0) -> Path:
        """The file whose presence makes the epoch, and ``step`` steps of the next, exist."""
        return self.folder / f"{self._stem(epoch, step)}.json"

    def weights(self, epoch: int, part: str, step: int = 0) -> Path:
        """``part`` is s (student), t (teacher) or state (training state)."""
        return self.folder / f"{self._stem(epoch, step)}_{part}.pth.tar"

    def _stem(self, epoch: int, step: int) -> str:
        return f"{self.net_type}_ep{epoch:04d}" + (f"_step{step:06d}" if step else "")

    def snapshot(self, epoch: int) -> Path:
        """The sampler state as it was at the end of ``epoch``."""
        return self.records / f"sampler_state_{self.magic_number}_{epoch:04d}.json"

    def current_state(self) -> Path:
        """The published sampler state of the run, that of its newest checkpoint."""
        return self.records / f"sampler_state_{self.magic_number}.json"

    def epochs(self) -> list[int]:
        """Epochs that have a manifest, ascending; not verified."""
        return sorted(int(match[1]) for match in self._manifests(r"_ep(\d{4,})"))

    def steps(self) -> list[tuple[int, int]]:
        """``(epoch, step)`` of the manifests made within an epoch, ascending; not verified."""
        return sorted(
            (int(match[1]), int(match[2])) for match in self._manifests(r"_ep(\d{4,})_step(\d{6,})")
        )

    def _manifests(self, pattern: str) -> list[re.Match[str]]:
        names = [path.name for path in self.folder.glob("*.json")] if self.folder.is_dir() else []
        matches = [re.fullmatch(re.escape(self.net_type) + pattern + r"\.json", name) for name in names]
        return [match for match in matches if match]

    def save(
        self,
        epoch: int,
        parts: dict[str, dict[str, Any]],
        write_state: Callable[[Path], None] | None,
        keep: bool,
        step: int = 0,
    ) -> None:
        """Write one epoch and make it exist.

        Args:
            epoch: 1-based number of the finished epoch.
            parts: what goes into the files ``s``, ``t`` and ``state``: tensors and plain values.
            write_state: writes the sampler state as JSON to the path it is given; None: there is none.
            keep: False: the next ``save`` of a whole epoch removes this one again.
            step: steps done of the epoch after ``epoch``, which may be 0 then; such a save is never kept.

        Raises:
            UserError: the disk is full or not writable; the epochs before are untouched.
        """
        files: dict[str, Path] = {}
        for part, content in parts.items():
            path = self.weights(epoch, part, step)
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
        whole = [old for old in self.epochs() if old != epoch]
        within = [old for old in self.steps() if old != (epoch, step)]
        content = {"format": FORMAT, "epoch": epoch, "kept": keep, "files": entries}
        if step:
            content |= {"step": step, "base": self.newest() or 0}
        write_json(self.manifest(epoch, step), content, indent=True)
        if write_state is not None:
            self.publish(epoch)
        for old in whole:
            if not step and not self._kept(old):
                self.remove(old)
        for number, done in within:
            self.remove(number, done)

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
            temporary.unlink(missing_ok=True)  # renaming does nothing where both are the same file already
        except OSError:  # a file system without links
            with contextlib.suppress(OSError):
                temporary.unlink()
            with atomic_writer(target) as file:
                file.write(self.snapshot(epoch).read_bytes())

    def remove(self, epoch: int, step: int = 0) -> None:
        """Take an epoch, or what was saved within the next one, away; the manifest last, so that a kill leaves no orphans."""
        files = [self.weights(epoch, part, step) for part in ("s", "t", "state")]
        if not step:
            files.append(self.snapshot(epoch))
        for path in [*files, self.manifest(epoch, step)]:
            with writing(path):
                path.unlink(missing_ok=True)

    def tidy(self, epoch: int, step: int = 0) -> None:
        """Take away what a killed process of this run had begun to write, or had no time to remove.

        For whoever holds the run's lock.

        Args:
            epoch: whole epochs after which the run goes on.
            step: and steps of the next one.
        """
        for old in [whole for whole in self.epochs() if whole <= epoch][:-1]:
            if not self._kept(old):
                self.remove(old)
        for number, done in self.steps():
            if (number, done) < (epoch, step):
                self.remove(number, done)
        net, state = re.escape(self.net_type), re.escape(self.current_state().stem)
        begun = re.compile(rf"\.({net}_ep\d{{4,}}.*|{state}(_\d{{4,}})?\.json|ep\d{{4,}}\.png)\..*tmp")
        within = re.compile(rf"({net}_ep\d{{4,}}_step\d{{6,}})_(s|t|state)\.pth\.tar")
        for folder in (self.folder, self.pictures, self.records):
            for path in folder.iterdir() if folder.is_dir() else ():
                match = within.fullmatch(path.name)
                if begun.fullmatch(path.name) or (match and not path.with_name(f"{match[1]}.json").exists()):
                    with contextlib.suppress(OSError):  # they only take space
                        path.unlink()

    def newest(self) -> int | None:
        """The newest epoch whose files all verify; broken ones are named and passed over."""
        for epoch in reversed(self.epochs()):
            reason = self._fault(self.manifest(epoch))
            if reason is None:
                return epoch
            self._name(self.manifest(epoch), reason)
        return None

    def newest_step(self, base: int) -> tuple[int, int] | None:
        """``(epoch, step)`` of what was saved within an epoch after ``base``, the newest whole one, if it verifies."""
        for epoch, step in reversed(self.steps()):
            if epoch < base:
                break  # a whole epoch has been saved since
            path = self.manifest(epoch, step)
            reason = self._fault(path)
            if reason is None and read_json(path, "manifest").get("base") != base:
                reason = "goes on from an epoch that does not verify"
            if reason is None:
                return epoch, step
            self._name(path, reason)
        return None

    def _name(self, manifest: Path, reason: str) -> None:
        if manifest not in self._named:
            warn(f"{manifest}: {reason}; falling back to the checkpoint before it")
            self._named.add(manifest)

    def load(self, epoch: int, part: str, step: int = 0) -> dict[str, Any]:
        """The content of one file of a verified epoch, on the CPU.

        Raises:
            UserError: it is of a newer version, or no checkpoint although its manifest verifies.
        """
        path = self.weights(epoch, part, step)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (
            pickle.UnpicklingError,
            OSError,
            RuntimeError,
            ValueError,
            LookupError,
            TypeError,
            EOFError,
        ) as error:
            raise UserError(f"{path}: cannot be loaded ({error}); restore it") from error
        if not isinstance(content, dict):
            raise UserError(f"{path}: is no part of a checkpoint; restore it")
        refuse_newer(path, content.get("format", 1), FORMAT, "checkpoint")
        return content

    def has(self, epoch: int, part: str, step: int = 0) -> bool:
        """Whether the epoch's manifest lists ``part``."""
        return part in read_manifest(self.manifest(epoch, step))

    def _kept(self, epoch: int) -> bool:
        try:
            return bool(read_json(self.manifest(epoch), "manifest").get("kept", True))
        except (UserError, AttributeError):
            return True  # not ours to delete

    def _fault(self, path: Path) -> str | None:
        try:
            entries = read_manifest(path)
        except NewerVersion:
            raise
        except UserError:
            return "is broken or no manifest"
        for part, entry in entries.items():
            file = path.with_name(f"{path.stem}_{part}.pth.tar")
            if part == "sampler_state":
                file = self.folder / entry.file
            fault = fault_of(file, entry)
            if fault:
                return f"{file.name} ({part}) {fault}"
        return None
