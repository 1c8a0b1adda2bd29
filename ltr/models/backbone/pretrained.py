"""ImageNet weights for backbones: a local file, torchvision's cache, or torchvision's download."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
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


def load_pretrained(network: nn.Module, settings: Settings) -> None:
    """Start the backbone of ``network`` from ImageNet weights.

    The backbone is ``network.backbone[0]``; its ``imagenet`` attribute is the address of torchvision's
    file, or None where no such weights exist. Looked up are ``paths.pretrain``, torchvision's cache
    (``TORCH_HOME``), then the network.

    Raises:
        UserError: no weights, unless ``network.allow_random``; then a notice says so.
    """
    backbone: Any = network.backbone[0]  # type: ignore[index]
    address: str | None = backbone.imagenet
    if address is None:
        reason = (
            f"backbone {type(backbone).__name__} has no ImageNet weights; give --set network.pretrained False"
        )
    else:
        found = find_weights(address, resolve(settings.paths.pretrain))
        if isinstance(found, Path):
            own = backbone.body.state_dict()
            net = read_checkpoint(found).net
            # The file holds the whole classifier: later stages and the last layer have no place here.
            load_weights(backbone.body, {name: value for name, value in net.items() if name in own}, found)
            say(f"backbone: ImageNet weights from {found}")
            return
        reason = (
            f"no ImageNet weights for the backbone: {found}; put {address} into {settings.paths.pretrain}"
        )
    if not settings.network.allow_random:
        raise UserError(f"{reason}, or start from random weights with --set network.allow_random True")
    warn(f"{reason}; starting from random weights")


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
