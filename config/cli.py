"""What every verb shares: ``--set``, ``--device``, and how errors end."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn

from config.console import paint
from config.environment import load_settings
from config.errors import UserError
from config.settings import Settings


class Options(argparse.ArgumentParser):
    """An argument parser that says in one line what is wrong, and shows its description as it is written."""

    def __init__(self, description: str | None) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, formatter_class=layout, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Called by ``parse_args`` with what is wrong."""
        raise UserError(f"{message} (see {os.path.basename(sys.argv[0])} --help)")


def positive(text: str) -> int:
    """The type of an option that counts something: a whole number of at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


class Parser(Options):
    """As ``Options``, with ``--set KEY VALUE`` (repeatable) and ``--device``."""

    def __init__(self, description: str) -> None:
        super().__init__(description)
        self.add_argument(
            "--set",
            nargs=2,
            action="append",
            metavar=("KEY", "VALUE"),
            default=[],
            help="any setting of config/defaults.py",
        )
        self.add_argument("--device", help="auto, cpu, cuda or cuda:N")

    def parse(self) -> tuple[argparse.Namespace, Settings]:
        """The parsed options, and the settings with ``--set`` and ``--device`` applied."""
        options = self.parse_args()
        return options, load_settings(overrides(options))


def overrides(options: argparse.Namespace) -> list[str]:
    """``--set`` and ``--device`` as one ``KEY VALUE`` list, to hand on to a child process or a variant."""
    pairs = [text for pair in options.set for text in pair]
    return [*pairs, "device", options.device] if options.device else pairs


def run(main: Callable[[], int | None]) -> None:
    """Run a verb and leave with its exit code: 2 and one line for the user's error, 130 for Ctrl-C, 143 for SIGTERM."""
    signal.signal(signal.SIGTERM, _terminate)
    one_of_many = os.environ.get("WORLD_SIZE", "1") != "1"  # as torchrun starts them
    if one_of_many:
        sys.excepthook = _show_and_leave
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may hold what no encoding has
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = main() or 0
        sys.stdout.flush()
    except (UserError, KeyboardInterrupt, BrokenPipeError) as error:
        code = _told(error)
        if one_of_many:
            _leave(code)
    except SystemExit as end:
        if one_of_many and isinstance(end.code, int):
            _leave(end.code)
        raise
    raise SystemExit(code)


def _told(error: BaseException) -> int:
    """Say what ended a verb; its exit code."""
    if isinstance(error, UserError):
        print(f"{paint('error:', 'error', sys.stderr)} {error}", file=sys.stderr)
        return 2
    if isinstance(error, KeyboardInterrupt):
        print("interrupted; what was finished is kept", file=sys.stderr)
        return 130
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def _leave(code: int) -> NoReturn:
    """End this process without freeing what it holds.

    Where another process has died, to free torch's process group may wait for a thread that waits for Python itself
    (seen with torch 2.8): this process would stay, and the others would wait for it.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


def _show_and_leave(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.__excepthook__(kind, error, trace)
    _leave(1)


def _terminate(*_: object) -> None:
    raise SystemExit(143)
