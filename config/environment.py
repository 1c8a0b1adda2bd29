"""The project folder, this user's paths and the device: what differs between machines."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.defaults import get_defaults
from config.errors import UserError
from config.settings import Settings

if TYPE_CHECKING:  # torch is imported where it is used: verbs without it start at once
    import torch

# What a mistake in a file of Python raises.
_WRONG = (
    SyntaxError, NameError, AttributeError, TypeError, ValueError, LookupError, ArithmeticError, ImportError, OSError,
    RuntimeError, MemoryError, AssertionError,
)  # fmt: skip

ROOT = Path(__file__).resolve().parents[1]


def local_file() -> Path:
    """The file with this user's paths: ``SPOT_LOCAL`` or ``config/local.py`` (made from the template)."""
    named = os.environ.get("SPOT_LOCAL")
    if named:
        return Path(named)
    path = ROOT / "config" / "local.py"
    if not path.exists():
        shutil.copyfile(ROOT / "config" / "local_template.py", path)
    return path


def load_settings(overrides: list[str] | None = None) -> Settings:
    """The default settings with this user's paths and the given ``KEY VALUE`` overrides.

    Raises:
        UserError: the local file or an override is wrong.
    """
    path = local_file()
    spec = importlib.util.spec_from_file_location("spot_local_settings", path)
    if spec is None or spec.loader is None or not path.exists():
        raise UserError(f"{path}: no Python file with EnvironmentSettings; check SPOT_LOCAL")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        local: Any = module.EnvironmentSettings()
        train, test = dict(local.train_dataset_dirs), dict(local.test_dataset_dirs)
    except _WRONG as error:
        raise UserError(
            f"{path}: {type(error).__name__}: {error}; compare it with config/local_template.py"
        ) from error
    settings = get_defaults()
    settings.paths.var = str(getattr(local, "workspace_dir", "var"))
    settings.paths.seq_files = str(getattr(local, "seq_files_dir", ""))
    for name, folder in train.items():
        settings.paths.train[name] = str(folder)
    for name, folder in test.items():
        settings.paths.test[name] = str(folder)
    settings.override(overrides or [])
    return settings


def resolve(path: str | os.PathLike[str]) -> Path:
    """An absolute path; relative ones count from the project folder."""
    path = Path(path).expanduser()
    return path if path.is_absolute() else ROOT / path


def var_dir(settings: Settings, *parts: str) -> Path:
    """A folder or file under ``paths.var``."""
    return resolve(settings.paths.var).joinpath(*parts)


def dataset_dir(settings: Settings, kind: str, name: str) -> Path:
    """The folder of data set ``name`` for ``kind`` "train" or "test".

    Raises:
        UserError: not configured, or not there.
    """
    folder = settings.paths[kind].get(name)
    if not folder:
        raise UserError(
            f"{local_file()}: {kind}_dataset_dirs has no '{name}'; add its folder there or give --set paths.{kind}.{name} FOLDER"
        )
    path = resolve(folder)
    if not path.is_dir():
        raise UserError(
            f"{path}: the folder of data set '{name}' is missing; mend {local_file()} or paths.{kind}.{name}"
        )
    return path


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The torch device for a ``device`` setting: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".

    Several processes on one machine share its GPUs by ``local_rank``.

    Raises:
        UserError: a device that this machine or torch does not have.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device '{name}': not a device; use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device '{name}': not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise UserError(
                f"device '{name}': torch {torch.__version__} sees no CUDA device; use --device cpu or mend the driver"
            )
        index = local_rank % count if device.index is None else device.index
        if index >= count:
            raise UserError(f"device '{name}': this machine has CUDA devices 0 to {count - 1}")
        device = torch.device("cuda", index)
    return device
