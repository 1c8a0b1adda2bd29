"""Names to classes, filled by decorators, so that a new file is all a new tracker needs."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from config.errors import UserError, nearest

T = TypeVar("T", bound=Callable[..., Any])


class Registry:
    """The registered objects of one kind.

    Args:
        kind: what the objects are, for messages ("tracker", "dataset").
        package: dotted package whose modules are imported on the first look-up, so that
            their decorators have run.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._entries: dict[str, Any] = {}
        self._imported = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files the decorated object under ``name``."""

        def add(entry: T) -> T:
            present = self._entries.get(name)
            if present is not None and present.__module__ != entry.__module__:
                raise ValueError(f"two objects are registered as {self.kind} '{name}'")
            self._entries[name] = entry
            return entry

        return add

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._import_all()
        return sorted(self._entries)

    def get(self, name: str) -> Any:
        """The object registered as ``name``; ``UserError`` with the nearest name if there is none."""
        self._import_all()
        if name not in self._entries:
            raise UserError(f"unknown {self.kind} '{name}': {nearest(name, self._entries)}")
        return self._entries[name]

    def _import_all(self) -> None:
        if self._imported:
            return
        self._imported = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
