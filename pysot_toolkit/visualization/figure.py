"""A picture as it goes into a page."""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """One finished picture."""

    name: str  # of its file, without ending
    title: str
    alt: str  # one sentence that tells somebody who cannot see it what it shows
    png: bytes
