"""What a parser is to the tests: a file, valid contents, a way to read it, and what that may raise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from config.errors import UserError


class Case(NamedTuple):
    """One kind of file in a folder of its own."""

    path: Path  # the file that holds the bytes in question
    examples: list[bytes]  # valid contents
    read: Callable[[], Any]


class Parser(NamedTuple):
    """One reader and what it may raise."""

    name: str
    build: Callable[[Path], Case]
    names_file: bool = True  # errors name the file, or a sequence of it
    refusals: tuple[type[Exception], ...] = (UserError,)
    memory: int = 128 << 20  # bytes that a damaged example may need
