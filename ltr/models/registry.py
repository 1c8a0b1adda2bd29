"""Names to networks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from config.errors import UserError, nearest
from config.registry import Registry

NETWORKS = Registry("network", "ltr.models.tracking")


def build_network(name: str, args: Mapping[str, Any] | None = None) -> nn.Module:
    """The network registered as ``name``, built with the keyword arguments ``args``.

    Raises:
        UserError: unknown network or argument (with the nearest name), or an impossible value.
    """
    entry = NETWORKS.get(name)
    args = dict(args or {})
    known = inspect.signature(entry).parameters
    for key in args:
        if key not in known:
            raise UserError(
                f"network.args.{key}: network '{name}' takes no such argument, {nearest(key, known)}"
            )
    try:
        return entry(**args)
    except ValueError as error:
        raise UserError(f"network '{name}': {error}; change network.args") from error
