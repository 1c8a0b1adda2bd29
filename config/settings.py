"""Settings that know their names: an attribute tree where a misspelt key is an error."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Any

from yacs.config import CfgNode

from config.errors import UserError, nearest

_SEALED = "__sealed__"


class Settings(CfgNode):
    """A yacs ``CfgNode`` that refuses unknown keys and keeps the type of each value.

    Nodes made with ``open_node`` take any key (arguments of a network, dataset folders);
    they are checked where they are used.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__dict__.get(_SEALED):
            if name not in self:
                raise UserError(f"unknown setting '{name}': {nearest(name, self)}")
            value = _coerce(name, self[name], value)
        super().__setattr__(name, value)

    def seal(self) -> None:
        """From now on unknown keys are refused, here and in all nodes that were not made open."""
        if not self.is_new_allowed():
            self.__dict__[_SEALED] = True
        for value in self.values():
            if isinstance(value, Settings):
                value.seal()

    def override(self, pairs: Sequence[str]) -> None:
        """Apply ``KEY VALUE KEY VALUE ...`` of the command line, values read as Python literals or text.

        Raises:
            UserError: unknown key (with the nearest known one) or a value of the wrong type.
        """
        if len(pairs) % 2:
            raise UserError(f"--set takes pairs KEY VALUE, '{pairs[-1]}' has no value")
        known = [key for key, _ in self.flat()]
        for key, text in zip(pairs[::2], pairs[1::2]):
            node: Any = self
            *path, leaf = key.split(".")
            for part in path:
                node = node.get(part) if isinstance(node, Settings) else None
            if not isinstance(node, Settings) or (leaf not in node and not node.is_new_allowed()):
                raise UserError(f"--set {key}: unknown setting, {nearest(key, known)}")
            if isinstance(node.get(leaf), Settings):
                raise UserError(f"--set {key}: is a group of settings, name one of {', '.join(node[leaf])}")
            value = _literal(text)
            if leaf in node:
                value = _coerce(key, node[leaf], value if not isinstance(node[leaf], str) else text)
            node[leaf] = value

    def flat(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """All leaves as ``("train.epochs", 400)``, sorted by key."""
        for key in sorted(self):
            if isinstance(self[key], Settings):
                yield from self[key].flat(f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", self[key]

    def plain(self) -> dict[str, Any]:
        """Nested dicts of plain values, for checkpoints and JSON."""
        return {key: value.plain() if isinstance(value, Settings) else value for key, value in self.items()}

    def differences(self, other: Settings) -> list[tuple[str, Any, Any]]:
        """``(key, other's value, own value)`` wherever the two trees differ."""
        mine, theirs = dict(self.flat()), dict(other.flat())
        return [
            (key, theirs.get(key), mine.get(key))
            for key in sorted(mine | theirs)
            if mine.get(key) != theirs.get(key)
        ]


def open_node(**values: Any) -> Settings:
    """A node that takes any key."""
    return Settings(dict(values), new_allowed=True)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _coerce(key: str, old: Any, new: Any) -> Any:
    """``new`` in the type of ``old``, or a ``UserError``."""
    if isinstance(old, Settings) or isinstance(new, Settings):
        if isinstance(old, Settings) and isinstance(new, Settings):
            return new
        raise UserError(f"setting '{key}': a group of settings cannot be replaced by a value")
    if isinstance(new, (int, float)) and not abs(new) < float("inf"):
        raise UserError(f"setting '{key}': {new} is no finite number")
    if isinstance(old, bool) and isinstance(new, int) and new in (0, 1):
        return bool(new)
    if isinstance(new, int) and abs(new) >= 1 << 63:
        raise UserError(f"setting '{key}': the number is too large")
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        return float(new)
    if isinstance(old, (list, tuple)) and isinstance(new, str):
        new = [part.strip() for part in new.split(",") if part.strip()]
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        return type(old)(new)
    if old is None or type(new) is type(old):
        return new
    raise UserError(
        f"setting '{key}': {new!r} is of type {type(new).__name__}, expected {type(old).__name__} like {old!r}"
    )
