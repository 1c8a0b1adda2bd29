"""The tables of scores by protocol and by attribute, and what was wrong with the results."""

from __future__ import annotations

import math

from pysot_toolkit.evaluation.protocol import Protocol
from pysot_toolkit.evaluation.report import Report
from pysot_toolkit.evaluation.tables import interval_text
from pysot_toolkit.visualization.html.markup import Markup, counted, markup, tag
from pysot_toolkit.visualization.html.tables import (
    NOTHING,
    column_head,
    row_head,
    score_cells,
    score_of,
    table,
    tracker,
)


def summary(report: Report) -> Markup:
    """One table per protocol, one row per tracker."""
    tables = [_protocol_table(report, protocol) for protocol in report.protocols]
    note = ""
    if any(_damaged(report, name) for name in report.trackers):
        note = tag(
            "p",
            tag("span", "!", class_="alert", aria_hidden="true"),
            "Some results are missing or not as they should be; what is wrong with each stands under ",
            tag("a", "Faults", href="#faults"),
            ". A tracker without results for all videos is averaged over those it has and is never marked as the best.",
        )
    legend = tag("p", "★ best of a column, ↑ higher is better, ↓ lower is better.", class_="soft")
    return markup(legend, *tables, note)


def _protocol_table(report: Report, protocol: Protocol) -> Markup:
    numbers = {name: number for number, name in enumerate(report.trackers)}
    names = report.ranking(protocol)
    overall = [report.scores[protocol.name][name].overall for name in names]
    complete = [report.usable(name, protocol) == report.total for name in names]
    columns = {column: [score_of(scores, column.key) for scores in overall] for column in protocol.columns}
    columns = {column: values for column, values in columns.items() if not all(map(math.isnan, values))}
    arrows = {"higher": "\u00a0↑", "lower": "\u00a0↓"}
    cells = [score_cells(values, column, complete) for column, values in columns.items()]
    heads = [column_head(column.title, arrows.get(column.better, "")) for column in columns]
    if report.total > 1:
        sequences = [report.scores[protocol.name][name].sequences for name in names]
        cells.insert(1, [tag("td", interval_text(protocol, scores), class_="number") for scores in sequences])
        heads.insert(1, column_head("95 % interval"))
    return table(
        markup(
            tag("strong", f"{protocol.name} v{protocol.version}"),
            f", as the {protocol.source} computes it",
        ),
        [
            column_head("Tracker", number=False),
            *heads,
            column_head("Videos"),
        ],
        [
            [
                row_head(tracker(numbers[name], name)),
                *(column[row] for column in cells),
                _videos_cell(report, protocol, name),
            ]
            for row, name in enumerate(names)
        ],
        label=f"Scores by {protocol.name}",
    )


def _videos_cell(report: Report, protocol: Protocol, name: str) -> Markup:
    usable = report.usable(name, protocol)
    mark = (
        tag("span", "!", class_="alert", role="img", aria_label="with faults")
        if _damaged(report, name)
        else ""
    )
    return tag("td", mark, usable if usable == report.total else f"{usable}/{report.total}", class_="number")


def attribute_table(report: Report) -> Markup:
    """Ranking score of each tracker on the videos that carry an attribute."""
    protocol, names = report.protocols[0], report.trackers
    column = protocol.columns[0]
    tables = [report.scores[protocol.name][name] for name in names]
    rows = []
    for attribute in sorted({attribute for scores in tables for attribute in scores.attributes}):
        counts = [scores.attribute_counts.get(attribute, 0) for scores in tables]
        values = [score_of(scores.attributes.get(attribute), column.key) for scores in tables]
        complete = [count == max(counts) for count in counts]
        rows.append(
            [
                row_head(attribute),
                tag("td", max(counts), class_="number"),
                *score_cells(values, column, complete),
            ]
        )
    if not rows:
        return Markup()
    return table(
        f"{column.title} ({protocol.name} v{protocol.version}) on the videos that carry an attribute. ★ best of a row.",
        [
            column_head("Attribute", number=False),
            column_head("Videos"),
            *(column_head(tracker(number, name)) for number, name in enumerate(names)),
        ],
        rows,
        label="Scores by attribute",
    )


def faults_table(report: Report) -> Markup:
    """Every fault of every tracker's files."""
    rows = [
        [
            row_head(name),
            tag("td", fault.sequence),
            tag("td", fault.kind),
            tag("td", fault.detail, class_="words"),
            tag("td", tag("code", fault.path) if fault.path else NOTHING),
        ]
        for name in report.trackers
        for fault in report.faults[name]
    ]
    if not rows:
        return tag("p", "None: every result file is complete and readable.")
    return table(
        f"{counted(len(rows), 'fault')} in the result files",
        [column_head(text, number=False) for text in ("Tracker", "Video", "Fault", "What is wrong", "File")],
        rows,
        label="Faults",
        tall=True,
    )


def _damaged(report: Report, name: str) -> bool:
    return any(fault.kind != "times" for fault in report.faults[name])
