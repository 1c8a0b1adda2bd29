"""HTML from values: whatever is not markup yet is escaped, so a name can never become a tag."""

from __future__ import annotations

import base64
import html

_WITHOUT_END = ("img", "input")


class Markup(str):
    """Text that is HTML already."""


def markup(*parts: object) -> Markup:
    """All parts one after another; those that are not ``Markup`` are escaped."""
    return Markup("".join(part if isinstance(part, Markup) else html.escape(str(part)) for part in parts))


def tag(name: str, *parts: object, **attributes: object) -> Markup:
    """``tag("td", 3, class_="number", data_value=3)`` -> ``<td class="number" data-value="3">3</td>``.

    Attributes that are None or False are left out, True stands without a value.
    """
    text = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html.escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Markup(f"<{name}{text}>" + ("" if name in _WITHOUT_END else f"{markup(*parts)}</{name}>"))


def data_uri(kind: str, data: bytes) -> str:
    """An image of type ``image/{kind}`` as its own address."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def counted(number: int, what: str) -> str:
    """``1 video``, ``2 videos``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
