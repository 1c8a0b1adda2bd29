"""ImageNet weights for backbones: a local file, torchvision's cache, or torchvision's download."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from config.console import say, warn
from config.environment import resolve
from config.errors import UserError
from config.files import atomic_writer
from config.settings import Settings
from ltr.admin.checkpoint_reader import load_weights, read_checkpoint

_TIMEOUT = 30.0  # seconds without a byte before a download is given up
_PREFIXES = ("module.", "feature_extractor.", "features.")  # in files from SiamDW, TracKit and SPOT


def load_pretrained(network: nn.Module, settings: Settings) -> None:
    """Start the backbone of ``network`` from ImageNet weights.

    The backbone is the module with an attribute ``imagenet``: the address of torchvision's file, or
    None where no such weights exist. Looked up are ``paths.pretrain``, torchvision's cache
    (``TORCH_HOME``), then the network. Where ``network.pretrained_file`` is set, only that file is.

    Raises:
        UserError: no weights, unless ``network.allow_random``; then a notice says so.
    """
    backbone: Any = next((module for module in network.modules() if hasattr(module, "imagenet")), None)
    if backbone is None:
        raise UserError(
            f"network '{settings.network.name}' has no registered backbone; give --set network.pretrained False"
        )
    children = list(backbone.children())
    body = children[0] if len(children) == 1 else backbone  # with torchvision's names
    address: str | None = backbone.imagenet
    named = named_weights(settings)
    if named is not None:
        if named.is_file():
            _load_body(body, named)
            return
        reason = f"no ImageNet weights for the backbone: {named} is missing; put it there"
    elif address is None:
        reason = (
            f"backbone {type(backbone).__name__} has no ImageNet weights; give --set network.pretrained False"
        )
    else:
        found = find_weights(address, resolve(settings.paths.pretrain))
        if isinstance(found, Path):
            own = body.state_dict()
            net = read_checkpoint(found).net
            # The file holds the whole classifier: later stages and the last layer have no place here.
            load_weights(body, {name: value for name, value in net.items() if name in own}, found)
            say(f"backbone: ImageNet weights from {found}")
            return
        reason = (
            f"no ImageNet weights for the backbone: {found}; put {address} into {settings.paths.pretrain}"
        )
    if not settings.network.allow_random:
        raise UserError(f"{reason}, or start from random weights with --set network.allow_random True")
    warn(f"{reason}; starting from random weights")


def named_weights(settings: Settings) -> Path | None:
    """The file of ``network.pretrained_file``, which may be missing; None where none is set."""
    name = settings.network.pretrained_file
    return resolve(settings.paths.pretrain) / name if name else None


def _load_body(body: nn.Module, path: Path) -> None:
    """Take from a file what fits the backbone's body by name, and say what of either was left out.

    Raises:
        UserError: nothing fits, or a shape differs.
    """
    content = read_checkpoint(path)
    net = {_bare(name): value for name, value in content.net.items()}
    own = body.state_dict()
    taken = {name: value for name, value in net.items() if name in own}
    if not taken:
        raise UserError(
            f"{path}: holds no weights of {type(body).__name__}, whose names are {', '.join(list(own)[:3])}, ...; name "
            "another file with --set network.pretrained_file FILE"
        )
    load_weights(body, own | taken, path)
    say(f"backbone: {len(taken)} of {len(own)} ImageNet weights from {path}")
    unknown = _stems([*(name for name in net if name not in own), *content.left_out])
    lacking = _stems(name for name in own if name not in taken and not name.endswith("num_batches_tracked"))
    if unknown:
        say(f"  left out of the file: {unknown}")
    if lacking:
        warn(f"{path}: lacks {lacking} of the backbone, which start from random weights")


def _bare(name: str) -> str:
    """The name of a tensor without what files put in front of a body's own names."""
    while name.startswith(_PREFIXES):
        name = name.partition(".")[2]
    return name


def _stems(names: Iterable[str]) -> str:
    """The first parts of names, with how many tensors each stands for: "fc (2), layer4 (53)"."""
    counts = Counter(name.partition(".")[0] for name in names)
    return ", ".join(f"{stem} ({count})" for stem, count in sorted(counts.items()))


def local_weights(address: str, folder: Path) -> Path | None:
    """The file of torchvision's ``address`` in ``folder`` or torchvision's cache; None where it is in neither."""
    name = address.rpartition("/")[2]
    stem = name.partition("-")[0]
    places = (folder / name, *sorted(folder.glob(f"{stem}*.pth*")), _cache(address))
    return next((path for path in places if path.is_file()), None)


def find_weights(address: str, folder: Path) -> Path | str:
    """The file of torchvision's ``address`` in ``folder``, the cache, or freshly downloaded; else why there is none."""
    present = local_weights(address, folder)
    if present is not None:
        return present
    name, cache = address.rpartition("/")[2], _cache(address)
    try:
        say(f"downloading {address} to {cache}")
        with urllib.request.urlopen(address, timeout=_TIMEOUT) as reply:
            data = reply.read()
    except (OSError, http.client.HTTPException) as error:
        return f"none in {folder}, none in {cache.parent}, and the download failed ({error})"
    # torchvision's names end in the beginning of the content's hash
    expected = os.path.splitext(name)[0].rpartition("-")[2]
    if not hashlib.sha256(data).hexdigest().startswith(expected):
        return f"none in {folder}, none in {cache.parent}, and the download was not what its name promises"
    with atomic_writer(cache) as file:
        file.write(data)
    return cache


def _cache(address: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]
