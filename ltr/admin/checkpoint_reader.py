"""Network weights from checkpoint files, ours and the published ones, without executing anything."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from config.errors import UserError
from config.files import refuse_newer
from ltr.admin.manifest import FORMAT, verify_checkpoint
from ltr.admin.restricted_pickle import RestrictedUnpickler, StandIn, StorageRef, TensorRef, plain
from ltr.models.registry import build_network

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # opens torch's format before 1.6
_TAKEN = {
    "format",
    "epoch",
    "actor_type",
    "net_type",
    "net",
    "net_info",
    "constructor",
    "settings",
    "state_dict",
}
_TRAINING = ("optimizer", "stats")
_LARGEST_CROP = 8192  # px; also above any factor
_SPARE = 4096  # parameters that a network may have beyond those in proportion to its file
# What broken or hostile bytes make of the unpickler, the zip reader and tensor views.
_BROKEN = (
    pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, TypeError, LookupError,
    AttributeError, RuntimeError, ArithmeticError, MemoryError, AssertionError,
)  # fmt: skip
# What networks make of arguments that no training gave them.
_UNBUILT = (
    ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, AttributeError, AssertionError,
)  # fmt: skip


class Checkpoint(NamedTuple):
    """What a checkpoint file tells about a network and, where asked for, its training."""

    net: dict[str, torch.Tensor]  # on the CPU, without a "module." prefix
    epoch: int | None
    net_type: str | None
    constructor: dict[str, Any] | None  # ours: name and args; published: fun_name, fun_module, args, kwds
    settings: dict[str, Any] | None
    left_out: list[str]  # entries and foreign classes of the file that were not taken
    optimizer: dict[str, Any] | None = None  # its state dict, tensors on the CPU
    stats: dict[str, Any] | None = (
        None  # of LTR: loader, name of the number, {"history": one number per epoch, ...}
    )


def read_checkpoint(path: str | os.PathLike[str], *, training: bool = False) -> Checkpoint:
    """Read our checkpoints, those of SPOT, TransT and other LTR trackers, and plain state dicts.

    Both of torch's formats are read (zip, and the one before torch 1.6). Only the network's tensors
    are loaded; classes that the file names are neither imported nor called.

    Args:
        training: read the optimizer's tensors and the training statistics of LTR's files too.

    Raises:
        UserError: the file is missing, truncated, damaged, not what the manifest beside it lists, of a newer
            version, or holds no network.
    """
    path = Path(path)
    verify_checkpoint(path)
    try:
        with open(path, "rb") as file:
            return _read(path, file, training)
    except OSError as error:
        raise UserError(f"{path}: checkpoint cannot be read ({error.strerror or error})") from error
    except _BROKEN as error:
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{path}: is truncated, damaged or no torch checkpoint ({reason}); restore it or take another"
        ) from error


def recipe(checkpoint: Checkpoint, source: str | os.PathLike[str]) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments of the network, where the file is ours; None for a published one.

    Raises:
        UserError: the file ``source`` gives something else as name or arguments.
    """
    given = checkpoint.constructor or {}
    if "name" not in given:
        return None
    name, args = given["name"], given.get("args")
    if (
        not isinstance(name, str)
        or not isinstance(args, dict)
        or not all(isinstance(key, str) for key in args)
    ):
        raise UserError(f"{source}: does not say how its network is built; restore it or take another")
    return name, args


def trained_numbers(
    checkpoint: Checkpoint, names: Mapping[str, str], source: str | os.PathLike[str]
) -> dict[str, float]:
    """What our training set: ``{argument: settings.data[name]}`` for the ``names`` that the file has; of others nothing.

    Raises:
        UserError: one is no positive number, or none that a crop can have.
    """
    data = (checkpoint.settings or {}).get("data", {}) if "name" in (checkpoint.constructor or {}) else {}
    found = (
        {argument: data[name] for argument, name in names.items() if name in data}
        if isinstance(data, dict)
        else {}
    )
    for argument, value in found.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= _LARGEST_CROP:
            raise UserError(
                f"{source}: its setting data.{names[argument]} is no size; restore it or take another"
            )
    return found


def build_recorded(
    checkpoint: Checkpoint, name: str, args: Mapping[str, Any], source: str | os.PathLike[str]
) -> nn.Module:
    """The network ``name`` with the arguments and weights of a checkpoint.

    What the file ``source`` says of its network is tried without memory first, so that a network is only made
    where the file holds its weights.

    Raises:
        UserError: no such network, impossible arguments, or weights of another network.
    """
    left = 4 * len(checkpoint.net) + _SPARE

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("it would have far more weights than the file")

    hook = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"):
            outline = build_network(name, args)
        hook.remove()
        check_weights(outline, checkpoint.net, source)
        needed = sum(parameter.nbytes for parameter in outline.parameters())
        storages = [value.untyped_storage() for value in checkpoint.net.values()]
        held = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
        if needed > 16 * held:  # views of one number over and over
            raise RuntimeError("it would have far more weights than the file")
        network = build_network(name, args)
    except UserError as error:
        raise UserError(str(error) if str(source) in str(error) else f"{source}: {error}") from error
    except _UNBUILT as error:
        raise UserError(
            f"{source}: its network '{name}' cannot be built ({error}); take another file"
        ) from error
    finally:
        hook.remove()
    load_weights(network, checkpoint.net, source)
    return network


def load_weights(network: nn.Module, net: Mapping[str, torch.Tensor], source: str | os.PathLike[str]) -> None:
    """Copy the tensors ``net`` of the file ``source`` into ``network``; all must fit.

    Raises:
        UserError: names or shapes differ, in one line that says which.
    """
    check_weights(network, net, source)
    network.load_state_dict(net, strict=False)


def check_weights(
    network: nn.Module, net: Mapping[str, torch.Tensor], source: str | os.PathLike[str]
) -> None:
    """Whether ``load_weights`` would take them; ``network`` may be without memory.

    Raises:
        UserError: as ``load_weights``.
    """
    own = network.state_dict()
    # Files from before torch 0.4.1 lack the counters of batch norms, which inference does not use.
    missing = [name for name in own if name not in net and not name.endswith("num_batches_tracked")]
    foreign = [name for name in net if name not in own]
    shapes = [
        f"{name} is {list(net[name].shape)}, the network's {list(own[name].shape)}"
        for name in own
        if name in net and net[name].shape != own[name].shape
    ]
    faults = [("lacks", missing), ("has unknown", foreign), ("has other shapes:", shapes)]
    text = "; ".join(f"{what} {_some(names)}" for what, names in faults if names)
    if text:
        raise UserError(f"{source}: is a checkpoint of another network than {type(network).__name__}: {text}")


def _some(names: list[str], limit: int = 3) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def _read(path: Path, file: IO[bytes], training: bool) -> Checkpoint:
    start = file.read(4)
    file.seek(0)
    if start == b"PK\x03\x04":
        with zipfile.ZipFile(file) as archive:
            return _read_zip(path, archive, training, os.fstat(file.fileno()).st_size)
    return _read_legacy(path, file, training)


def _read_zip(path: Path, archive: zipfile.ZipFile, training: bool, size: int) -> Checkpoint:
    names = {name.partition("/")[2]: name for name in archive.namelist()}
    if "data.pkl" not in names:
        raise ValueError("a zip file without data.pkl")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise ValueError("a compressed zip file")
    order = archive.read(names["byteorder"]) if "byteorder" in names else b"little"
    if order != b"little":
        raise ValueError("written on a big-endian machine")
    unpickler = RestrictedUnpickler(io.BytesIO(archive.read(names["data.pkl"])))
    content = unpickler.load()

    left = size

    def read(ref: StorageRef) -> bytes:
        nonlocal left
        data = archive.read(names[f"data/{ref.key}"])
        left -= len(data)
        if left < 0:
            raise ValueError("its parts overlap")
        return data

    return _checkpoint(path, content, unpickler.left_out, read, training)


def _read_legacy(path: Path, file: IO[bytes], training: bool) -> Checkpoint:
    if RestrictedUnpickler(file).load() != _LEGACY_MAGIC:
        raise ValueError("does not begin like one")
    RestrictedUnpickler(file).load()  # protocol version
    system = RestrictedUnpickler(file).load()
    if not system["little_endian"]:
        raise ValueError("written on a big-endian machine")
    unpickler = RestrictedUnpickler(file)
    content = unpickler.load()
    keys = [str(key) for key in RestrictedUnpickler(file).load()]
    first = file.tell()
    size = file.seek(0, os.SEEK_END)
    widths = _widths(content)
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        file.seek(first)
        (numel,) = struct.unpack("<q", file.read(8))
        length = numel * widths.get(key, 0)
        first += 8
        if key not in widths or not 0 <= length <= size - first:
            raise ValueError(f"storage {key} is cut short")
        places[key] = (first, length)
        first += length

    def read(ref: StorageRef) -> bytes:
        position, length = places[ref.key]
        file.seek(position)
        return file.read(length)

    return _checkpoint(path, content, unpickler.left_out, read, training)


def _widths(content: Any) -> dict[str, int]:
    """Bytes per number of every storage that ``content`` refers to."""
    widths: dict[str, int] = {}
    seen: set[int] = set()
    stack = [content]
    while stack:
        value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, TensorRef):
            widths[value.storage.key] = value.storage.dtype.itemsize
        elif isinstance(value, dict):
            stack += value.values()
        elif isinstance(value, (list, tuple, set, frozenset)):
            stack += value
        elif isinstance(value, StandIn):
            stack += value.parts()
    return widths


def _checkpoint(
    path: Path, content: Any, foreign: set[str], read: Callable[[StorageRef], bytes], training: bool
) -> Checkpoint:
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no network weights")
    if type(content.get("format")) is int:  # ours
        refuse_newer(path, content["format"], FORMAT, "checkpoint")
    weights = next(
        (content[key] for key in ("net", "state_dict") if isinstance(content.get(key), dict)), content
    )
    refs = {str(name): ref for name, ref in weights.items() if isinstance(ref, TensorRef)}
    if not refs:
        raise UserError(f"{path}: holds no network weights; is it a checkpoint of a training run?")
    wrapped = all(name.startswith("module.") for name in refs)
    storages: dict[str, torch.Tensor] = {}
    net = {
        name.removeprefix("module.") if wrapped else name: _tensor(ref, storages, read)
        for name, ref in refs.items()
    }
    taken, state = _TAKEN, {}
    if training and weights is not content:
        taken = _TAKEN | set(_TRAINING)
        for name in _TRAINING:
            found = plain(content.get(name), lambda ref: _tensor(ref, storages, read))
            state[name] = found if isinstance(found, dict) else None
    left_out = set(foreign)
    left_out |= {str(name) for name in weights if str(name) not in refs and weights is not content}
    if weights is not content:
        left_out |= {
            str(name) for name, value in content.items() if str(name) not in taken and value is not None
        }
    epoch, net_type = content.get("epoch"), content.get("net_type")
    constructor, settings = plain(content.get("constructor")), plain(content.get("settings"))
    return Checkpoint(
        net,
        epoch if isinstance(epoch, int) else None,
        net_type if isinstance(net_type, str) else None,
        constructor if isinstance(constructor, dict) else None,
        settings if isinstance(settings, dict) else None,
        sorted(left_out),
        **state,
    )


def _tensor(
    ref: TensorRef, storages: dict[str, torch.Tensor], read: Callable[[StorageRef], bytes]
) -> torch.Tensor:
    """The tensor of a reference; tensors that shared memory share it again."""
    if ref.storage.key not in storages:
        data = bytearray(read(ref.storage))
        storages[ref.storage.key] = (
            torch.frombuffer(data, dtype=ref.storage.dtype)
            if data
            else torch.empty(0, dtype=ref.storage.dtype)
        )
    storage = storages[ref.storage.key]
    start = ref.storage.start + ref.offset
    numbers = (*ref.size, *ref.stride, ref.offset, ref.storage.start)
    last = start + sum((n - 1) * step for n, step in zip(ref.size, ref.stride))
    if storage.dtype != ref.storage.dtype or len(ref.size) != len(ref.stride) or min(numbers) < 0:
        raise ValueError(f"a tensor does not fit its storage {ref.storage.key}")
    if 0 not in ref.size and last >= storage.numel():
        raise ValueError(f"storage {ref.storage.key} is cut short")
    return storage.as_strided(ref.size, ref.stride, start)
