"""Tables with captions, row and column headers, and a mark for the best that needs no colour."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from pysot_toolkit.evaluation.protocol import Column, Scores
from pysot_toolkit.visualization.colours import COLORS
from pysot_toolkit.visualization.html.markup import Markup, tag

NOTHING = tag("span", "–", class_="none")


def table(
    caption: object,
    header: Sequence[Markup],
    rows: Iterable[Sequence[Markup]],
    label: str,
    tall: bool = False,
    **attributes: object,
) -> Markup:
    """A table in a box of its own that scrolls where the table is wider than the screen.

    Args:
        caption: above it.
        header: ``<th>`` of each column.
        rows: their cells.
        label: what the box holds, for those who come to it with the keyboard.
        tall: scroll down inside the box, too.
        attributes: of the ``<table>``.
    """
    lines = [part for row in rows for part in (tag("tr", *row), Markup("\n"))]
    return tag(
        "div",
        tag(
            "table",
            tag("caption", tag("span", caption)),
            tag("thead", tag("tr", *header)),
            tag("tbody", *lines),
            **attributes,
        ),
        class_="scroll tall" if tall else "scroll",
        role="region",
        aria_label=label,
        tabindex="0",
    )


def column_head(*parts: object, number: bool = True) -> Markup:
    """A ``<th>`` above a column."""
    return tag("th", *parts, scope="col", class_="number" if number else None)


def row_head(*parts: object, **attributes: object) -> Markup:
    """A ``<th>`` before a row."""
    return tag("th", *parts, scope="row", **attributes)


def score_of(scores: Scores | None, key: str) -> float:
    """A score, NaN where there is none."""
    return scores.values[key] if scores else math.nan


def swatch(number: int) -> Markup:
    """The line that stands for tracker ``number`` (0-based) in the plots."""
    return tag(
        "span", class_=f"swatch {colour_class(number)} d{number // len(COLORS) % 4}", aria_hidden="true"
    )


def tracker(number: int, name: str) -> Markup:
    """A tracker's name beside its line."""
    pieces = re.split(r"(?<=[-_.])", name)  # where a long name may break
    broken = [part for piece in pieces for part in (Markup("<wbr>"), piece)][1:]
    return tag("span", swatch(number), tag("span", *broken), class_="tracker")


def colour_class(number: int) -> str:
    """The class that sets ``--tracker`` to the colour of tracker ``number``."""
    return f"t{number % len(COLORS)}"


def colour_rules() -> str:
    """The style of those classes."""
    return "".join(f".t{number} {{ --tracker: {colour}; }}\n" for number, colour in enumerate(COLORS))


def score_cells(
    values: Sequence[float],
    column: Column,
    eligible: Sequence[bool] | None = None,
    below: Sequence[Markup] | None = None,
) -> list[Markup]:
    """A ``<td>`` per value of one score, the best of several marked (all of them on a tie).

    Args:
        values: of the trackers, NaN where there is none.
        column: digits, and whether higher is better; what is not ranked is not marked.
        eligible: who may be the best; None: all.
        below: what follows each number in its cell.
    """
    may = eligible if eligible is not None else [True] * len(values)
    running = [value for value, runs in zip(values, may) if runs and not math.isnan(value)]
    best = math.nan
    if len(running) > 1 and column.better:
        best = min(running) if column.better == "lower" else max(running)
    cells = []
    for number, (value, runs) in enumerate(zip(values, may)):
        is_best = runs and value == best
        text = NOTHING if math.isnan(value) else f"{value:.{column.digits}f}"
        mark = tag("span", "★", class_="star", role="img", aria_label="best") if is_best else ""
        cells.append(
            tag(
                "td",
                tag("span", mark, text, class_="best") if is_best else text,
                below[number] if below else "",
                class_="number",
                data_value="" if math.isnan(value) else f"{value:.6g}",
            )
        )
    return cells


def plain_table(title: str, header: Sequence[object], rows: Sequence[Sequence[object]]) -> Markup:
    """A table of ready texts; columns of numbers are set to the right."""
    numbers = [all(_numeric(row[k]) for row in rows) for k in range(len(header))]
    return table(
        title,
        [column_head(text, number=number and k > 0) for k, (text, number) in enumerate(zip(header, numbers))],
        [
            [
                row_head(row[0]),
                *(
                    tag("td", cell, class_="number" if numbers[k] else None)
                    for k, cell in enumerate(row[1:], 1)
                ),
            ]
            for row in rows
        ],
        label=title,
    )


def _numeric(cell: object) -> bool:
    text = str(cell).strip()
    return not text or text[0] in "+-−–.[(0123456789"
