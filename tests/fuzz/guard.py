"""Reading under watch: no other exception than the promised ones, bounded time and memory, no stray files."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import re
import resource
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

from config.errors import UserError
from tests.fuzz.case import Case, Parser

SECONDS = 5.0  # of CPU time for one file of a few kilobytes
_STUCK = 120.0  # s until a call that never returns to the interpreter ends the whole process
_ALLOCATION = re.compile(r"nsufficient memory|bad.?alloc|[Ff]ailed to allocate|Cannot allocate|out of memory")


class TooSlow(BaseException):
    """A parser did not end; derived from ``BaseException`` so that no parser can take it for bad input."""


def check(parser: Parser, case: Case, data: bytes, seconds: float = SECONDS) -> str | None:
    """Give ``data`` to a parser; the refusal's text, or None where it was read.

    Raises:
        AssertionError: the refusal is not one line, does not name the file, or hides a lack of memory.
        Exception: whatever else the parser let through.
    """
    case.path.write_bytes(data)
    try:
        with bounded(parser.memory, seconds), quiet():
            case.read()
    except parser.refusals as error:
        _check_refusal(parser, case, error)
        return str(error)
    return None


def _check_refusal(parser: Parser, case: Case, error: Exception) -> None:
    text = str(error)
    assert text and len(text.splitlines()) == 1 and len(text) < 2000, text
    if isinstance(error, UserError):
        assert text.isprintable(), ascii(text)
    if parser.names_file:
        assert str(case.path) in text or case.path.name in text or "sequence '" in text, text
    cause: BaseException | None = error
    while cause is not None:
        assert not isinstance(cause, MemoryError) and not _ALLOCATION.search(str(cause)), text
        cause = cause.__cause__ or cause.__context__


@contextlib.contextmanager
def bounded(memory: int, seconds: float) -> Iterator[None]:
    """At most ``memory`` bytes of address space more than now, and ``seconds`` of CPU time.

    CPU time, because other processes must not decide what counts as a hang.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = signal.signal(signal.SIGPROF, _expire)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, hard))
    faulthandler.dump_traceback_later(_STUCK, exit=True)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, before)


def _expire(*_: object) -> None:
    raise TooSlow


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing of what parsers tell a person reaches the test's output, and warnings of libraries are errors."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("error", ResourceWarning)
        yield


def listing(folder: Path) -> set[str]:
    """Every path below a folder."""
    return {os.path.join(place, name) for place, dirs, names in os.walk(folder) for name in (*dirs, *names)}
