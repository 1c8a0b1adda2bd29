"""The one exception that stands for a mistake the user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 1000  # letters of a message


class UserError(Exception):
    """Something the user can mend: printed as one line, exit code 2, no traceback.

    The text names the file, line or option, says what is wrong and what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """``text`` as one line of bearable length that a terminal shows and does not obey."""
    line = " ".join(str(text).split())
    if len(line) > _LONGEST:  # the beginning names the file, the end what to do
        line = f"{line[: _LONGEST - 203]} ... {line[-198:]}"
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in line
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as ``did you mean 'LaSOT'?`` for a name that is not among ``known``.

    Without a close match the hint lists what is known.
    """
    names = sorted(known)
    lowered = {n.lower(): n for n in names}
    match = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    if match:
        return f"did you mean '{lowered[match[0]]}'?"
    return "known: " + ", ".join(names) if names else "none is known"
