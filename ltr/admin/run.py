"""A run: its folders, its lock, and whether it may go on from what is on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from config.console import say
from config.defaults import get_defaults
from config.environment import var_dir
from config.errors import UserError
from config.files import is_file_name
from config.settings import Settings
from ltr.admin.checkpoint import CheckpointStore
from ltr.admin.process_group import ProcessGroup
from ltr.admin.run_lock import lock_run

# Settings that may differ between a run and its continuation: they do not change what is computed.
_FREE = (
    "paths.",
    "testing.",
    "tracker.",
    "description",
    "device",
    "threads",
    "data.workers",
    "data.prefetch",
    "data.max_bad_samples",
    "network.allow_random",
    "sampling.require_files",
    "train.save_interval",
    "train.resume_interval",
    "train.image_interval",
    "train.tensorboard",
    "train.max_nonfinite",
)

# Groups of arguments: leaving one out is a choice, not an older version.
_OPEN = ("network.args.", "objective.")


class Run:
    """Folders and identity of one training run.

    Args:
        settings: the merged settings; ``module_name`` and ``variant`` name the checkpoint folder,
            ``magic_number`` (default: the variant) the sampler state.
        net_type: name of the network class.
        group: the processes that train together; the first one takes the run's lock.
    """

    def __init__(self, settings: Settings, net_type: str, group: ProcessGroup) -> None:
        self.settings = settings
        self.magic_number = settings.magic_number or settings.variant
        for key in ("module_name", "variant", "magic_number"):
            if settings[key] and not is_file_name(settings[key]):
                raise UserError(f"setting {key} '{settings[key]}': cannot name a file; give a plain name")
        self.folder = var_dir(settings, "checkpoints", "ltr", settings.module_name, settings.variant)
        self.records = var_dir(settings, "records")
        self.tensorboard = var_dir(settings, "tensorboard", settings.module_name, settings.variant)
        working = f"{self.magic_number}.node{group.node}.bin" if group.node else f"{self.magic_number}.bin"
        self.working_state = var_dir(settings, "cache", "sampler_state", working)
        self.store = CheckpointStore(self.folder, self.records, net_type, self.magic_number)
        self._lock = lock_run(self.records / f".{self.magic_number}.lock") if group.first else None

    def journal(self, rank: int) -> Path:
        """Where this process writes its accepted pseudo labels before they are merged."""
        return self.records / f"sampler_state_{self.magic_number}.journal{rank or ''}"

    def resume_point(self, key_frames: str) -> tuple[int, dict[str, Any]]:
        """The whole epochs and the training state to go on from; ``(0, {})`` for a new run.

        A state with ``step`` was saved within the next epoch.

        Args:
            key_frames: fingerprint of the labelled frames that the run would use now.

        Raises:
            UserError: the magic number, key frames or settings belong to another run (rule 8).
        """
        epoch, step = self.store.newest(), 0
        within = self.store.newest_step(epoch or 0)
        if within is not None:
            epoch, step = within
        if epoch is None:
            if self.store.epochs():
                raise UserError(
                    f"{self.folder}: no checkpoint of this run verifies; restore the files, or remove the folder "
                    f"and {self.store.current_state().name} to begin again"
                )
            if self.store.current_state().exists():
                raise UserError(
                    f"{self.store.current_state()}: magic number '{self.magic_number}' has been used, but {self.folder} holds no "
                    "checkpoint to go on from; give --set magic_number NAME for a new run, or remove that file"
                )
            return 0, {}
        state = self.store.load(epoch, "state", step)
        manifest = self.store.manifest(epoch, step)
        if not isinstance(state.get("settings"), dict) or "key_frames" not in state:
            raise UserError(f"{self.store.weights(epoch, 'state', step)}: is no training state; restore it")
        ways_out = f"restore it to go on, or give --set variant NAME for a new run beside {self.folder.name}"
        changed = [
            f"{key} was {old!r}, is {new!r}"
            for key, old, new in _differences(state["settings"], self.settings)
            if not key.startswith(_FREE) and not self._epochs_are_free(key)
        ]
        if changed:
            raise UserError(
                f"{manifest}: the run was made with other settings ({'; '.join(changed[:4])}); {ways_out}"
            )
        if state["key_frames"] != key_frames:
            raise UserError(f"{manifest}: the key frames have changed since this run began; {ways_out}")
        return epoch, state

    def _epochs_are_free(self, key: str) -> bool:
        # A run may be extended where the number of epochs shapes no rate before the last one.
        return key == "train.epochs" and self.settings.optim.schedule in ("step", "stepevery")


def _differences(old: dict[str, Any], settings: Settings) -> list[tuple[str, Any, Any]]:
    """Settings that differ from those of a checkpoint, as (dotted key, old, new).

    A setting that is younger than the checkpoint had its default then; one that no longer exists is passed over.
    """
    was = dict(get_defaults().flat()) | dict(Settings(old).flat())
    now = dict(settings.flat())
    gone = {key for key in was.keys() - now.keys() if not key.startswith(_OPEN)}
    keys = sorted((was.keys() | now.keys()) - gone)
    return [(key, was.get(key), now.get(key)) for key in keys if was.get(key) != now.get(key)]


def announce(settings: Settings, defaults: Settings, group: ProcessGroup) -> None:
    """Print the settings as a difference from the defaults."""
    if not group.first:
        return
    say(f"{settings.module_name}/{settings.variant}: {settings.description}", "title")
    for key, _, value in settings.differences(defaults):
        if key not in ("description", "module_name", "variant"):
            say(f"  {key} = {value}", "faint")
    say(f"  device {group.device}, {group.size} process{'es' if group.size > 1 else ''}", "faint")
