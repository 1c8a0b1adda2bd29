"""Whatever bytes stand in a file that we read: the content, or one line that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from config.errors import UserError
from tests.fuzz.case import Case, Parser
from tests.fuzz.guard import TooSlow, bounded, check, listing
from tests.fuzz.mutations import damaged
from tests.fuzz.parsers import PARSERS

FEW, MANY = 40, 2000  # examples of each parser

pytestmark = pytest.mark.faults


def attack(parser: Parser, folder: Path, examples: int) -> None:
    """Valid contents are read; none of ``examples`` damaged ones gets past the guard or out of the folder."""
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    case = parser.build(inner)
    for data in case.examples[:1]:
        assert check(parser, case, data) is None
    outside = listing(folder) - listing(inner)

    @settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(damaged(case.examples))
    def run(data: bytes) -> None:
        check(parser, case, data)

    run()
    for data in case.examples[1:]:
        check(parser, case, data)
    assert listing(folder) - listing(inner) == outside


@pytest.mark.parametrize("name", PARSERS)
def test_no_bytes_do_harm(name, tmp_path, shared):
    shared("parity")  # the published checkpoints among the examples
    attack(PARSERS[name], tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_no_bytes_do_harm_however_many(name, tmp_path, shared):
    shared("parity")
    attack(PARSERS[name], tmp_path, MANY)


def test_the_guard_itself_sees_every_kind_of_harm(tmp_path):
    def allocate() -> None:
        _ = bytearray(1 << 29)

    def spin() -> None:
        while True:
            pass

    def hide() -> None:
        try:
            allocate()
        except MemoryError as error:
            raise UserError(f"{path}: is broken") from error

    def refuse(text: str) -> None:
        raise UserError(text)

    path = tmp_path / "file"
    faults = [
        (lambda: [][0], IndexError), (allocate, MemoryError), (spin, TooSlow), (hide, AssertionError),
        (lambda: refuse("something is wrong"), AssertionError),
    ]  # fmt: skip
    for read, error in faults:
        with pytest.raises(error):
            check(Parser("probe", lambda _: case), case := Case(path, [], read), b"", seconds=0.3)
    assert check(Parser("probe", lambda _: case), Case(path, [], lambda: refuse(f"{path}: no")), b"")
    with bounded(1 << 20, 1.0):
        pass
    assert bytearray(1 << 29)  # the bounds are gone


@given(st.text(max_size=50) | st.binary(max_size=2000).map(lambda data: data.decode("latin-1")))
@example("\ud800 \x1b[2J \u2028 a\x85b")
def test_a_user_error_is_one_line_that_a_terminal_shows(text):
    shown = str(UserError(text))
    assert shown.isprintable() and len(shown.splitlines()) <= 1
    shown.encode()  # no half characters
    assert UserError(f"/a/file: {text * 100}: restore it").args[0].startswith("/a/file: ")
