"""The one exception that stands for a mistake the user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend: printed as one line, exit code 2, no traceback.

    The text names the file, line or option, says what is wrong and what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))


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
