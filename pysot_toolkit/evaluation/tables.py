"""A report on the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tabulate import tabulate

from config.console import paint, say, warn
from pysot_toolkit.evaluation.comparison import Interval, compare, intervals, spreads, video_gaps
from pysot_toolkit.evaluation.protocol import Column, Protocol, Scores
from pysot_toolkit.evaluation.report import Report
from pysot_toolkit.evaluation.results import Fault

_GAPS = 5  # videos at each end of a table of gaps
_NAMED = 8  # faults of a kind that are named per tracker; all are in the JSON and CSV files

_MEANING = {
    "missing": "result file(s) missing (left out of the means; TrackingNet's kit: all-zero boxes)",
    "broken": "result file(s) unreadable (left out like missing ones)",
    "short": "result file(s) too short (absent lines count as failures)",
    "long": "result file(s) too long (cut to the annotation)",
    "nan": "result file(s) with NaN boxes (misses)",
    "negative": "result file(s) with boxes of negative size (scored as they stand)",
    "presence": "file(s) of presence scores unreadable (no F1)",
    "refused": "video(s) that a protocol leaves out, as its reference program does",
    "times": "time file(s) unreadable (no speed for the video)",
}


class Table(NamedTuple):
    """What is shown on the terminal and on the page of a report."""

    title: str
    headers: list[str]
    rows: list[list[str]]

    def text(self) -> str:
        """For the terminal."""
        return _table(self.headers, self.rows)


def show(report: Report, per_video: bool = False, against: str | None = None, runs: bool = False) -> None:
    """Print the overall and per-attribute tables, per video too if asked, and everything that was wrong.

    With ``against``, also how every tracker differs from that one; with ``runs``, the spread of several runs.

    The best of a column is marked ``*`` (green on a terminal), an incomplete tracker ``!``.
    """
    for protocol in report.protocols:
        say("")
        say(f"{report.dataset}, protocol {protocol.name} v{protocol.version} ({protocol.source})", "title")
        say(overall_table(report, protocol))
        attributes = attribute_table(report, protocol)
        if attributes:
            say("")
            say(f"{protocol.columns[0].title} by attribute", "title")
            say(attributes)
        if per_video:
            for column in protocol.columns[:3]:
                say("")
                say(f"{column.title} by video", "title")
                say(video_table(report, protocol, column))
    further = [
        *(run_tables(report) if runs else []),
        *(comparison_tables(report, against) if against else []),
    ]
    for table in further:
        say("")
        say(table.title, "title")
        say(table.text())
    for name in report.trackers:
        for line in fault_lines(report.faults[name]):
            warn(f"{name}: {line}")


def overall_table(report: Report, protocol: Protocol) -> str:
    """One row per tracker, the best first; the mark goes to trackers with results for all videos."""
    names = report.ranking(protocol)
    scores = [report.scores[protocol.name][name].overall for name in names]
    complete = [report.usable(name, protocol) == report.total for name in names]
    columns = [
        _best_marked([_value(score, column) for score in scores], column, complete)
        for column in protocol.columns
    ]
    videos = [_videos(report, protocol, name) for name in names]
    shown = [i for i, column in enumerate(columns) if any(cell != "-" for cell in column)]
    titles = [protocol.columns[i].title for i in shown]
    cells = [columns[i] for i in shown]
    if report.total > 1:
        titles.insert(1, "95 % interval")
        cells.insert(
            1, [interval_text(protocol, report.scores[protocol.name][name].sequences) for name in names]
        )
    rows = [[name, *(column[row] for column in cells), videos[row]] for row, name in enumerate(names)]
    return _table(["tracker", *titles, "videos"], rows)


def attribute_table(report: Report, protocol: Protocol) -> str:
    """One row per attribute with the ranking score of each tracker; empty where there are no attributes."""
    names, column = report.ranking(protocol), protocol.columns[0]
    tables = [report.scores[protocol.name][name] for name in names]
    attributes = sorted({attribute for table in tables for attribute in table.attributes})
    rows = []
    for attribute in attributes:
        values = [_value(table.attributes.get(attribute), column) for table in tables]
        videos = max(table.attribute_counts.get(attribute, 0) for table in tables)
        rows.append([f"{attribute} ({videos})", *_best_marked(values, column)])
    return _table(["attribute (videos)", *names], rows) if rows else ""


def video_table(report: Report, protocol: Protocol, column: Column) -> str:
    """One row per video with one score of each tracker."""
    names = report.ranking(protocol)
    tables = [report.scores[protocol.name][name].sequences for name in names]
    rows = [
        [video, *_best_marked([_value(table.get(video), column) for table in tables], column)]
        for video in report.sequences
    ]
    return _table(["video", *names], rows)


def fault_lines(faults: Sequence[Fault]) -> list[str]:
    """One line per kind of fault: how many, what was done, which videos."""
    lines = []
    for kind, meaning in _MEANING.items():
        found = [fault for fault in faults if fault.kind == kind]
        if found:
            named = ", ".join(f"{f.sequence} ({f.path}: {f.detail})" for f in found[:_NAMED])
            more = f", and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            lines.append(f"{len(found)} {meaning}: {named}{more}")
    return lines


def comparison_tables(report: Report, against: str) -> list[Table]:
    """Per protocol: the difference of every tracker from ``against`` with its 95 % interval, and for the best of
    the others the videos with the largest gaps.

    Raises:
        UserError: no tracker ``against``.
    """
    tables = []
    for name, differences in compare(report, against).items():
        protocol = next(protocol for protocol in report.protocols if protocol.name == name)
        rows = [
            [
                item.tracker,
                item.column.title,
                f"{item.difference.value:+.{item.column.digits}f}",
                _bounds(item.difference, item.column, signed=True),
                "yes" if item.clear else "no",
                f"{item.better}",
                f"{item.worse}",
                f"{item.videos}",
            ]
            for item in differences
            if not math.isnan(item.difference.value)
        ]
        if not rows:
            continue
        headers = [
            "tracker",
            "score",
            "difference",
            "95 % interval",
            "clear",
            "better on",
            "worse on",
            "videos",
        ]
        tables.append(
            Table(f"{protocol.name}: difference from {against} (paired over videos)", headers, rows)
        )
        tables.append(_gap_table(report, protocol, differences[0].tracker, against))
    return tables


def run_tables(report: Report) -> list[Table]:
    """Per protocol: mean and spread of the trackers with several runs; nothing where there are none."""
    tables = []
    for protocol in report.protocols:
        rows = []
        for spread in spreads(report, protocol):
            cells = [
                "-"
                if math.isnan(spread.mean[column.key])
                else f"{spread.mean[column.key]:.{column.digits}f} ± {spread.deviation[column.key]:.{column.digits}f}"
                for column in protocol.columns
            ]
            rows.append([spread.name, f"{spread.runs}", *cells])
        if rows:
            headers = ["tracker", "runs", *(column.title for column in protocol.columns)]
            tables.append(Table(f"{protocol.name}: mean and standard deviation over runs", headers, rows))
    return tables


def _gap_table(report: Report, protocol: Protocol, tracker: str, against: str) -> Table:
    column = protocol.columns[0]
    scores = report.scores[protocol.name]
    gaps = video_gaps(protocol, scores[tracker].sequences, scores[against].sequences)
    chosen = gaps if len(gaps) <= 2 * _GAPS else [*gaps[:_GAPS], *gaps[-_GAPS:]]
    digits = column.digits
    rows = [
        [
            gap.video,
            f"{gap.value:.{digits}f}",
            f"{gap.against:.{digits}f}",
            f"{gap.value - gap.against:+.{digits}f}",
        ]
        for gap in chosen
    ]
    title = f"{protocol.name}: videos with the largest gaps in {column.title}"
    return Table(title, ["video", tracker, against, "difference"], rows)


def interval_text(protocol: Protocol, sequences: Mapping[str, Scores]) -> str:
    """Where 95 % of the draws put the ranking score, ``low .. high``."""
    column = protocol.columns[0]
    found = intervals(protocol, sequences)
    return _bounds(found[column.key], column) if found else "-"


def _bounds(interval: Interval, column: Column, signed: bool = False) -> str:
    if math.isnan(interval.low):
        return "-"
    sign = "+" if signed else ""
    return f"{interval.low:{sign}.{column.digits}f} .. {interval.high:{sign}.{column.digits}f}"


def _videos(report: Report, protocol: Protocol, name: str) -> str:
    """``280``, or ``! 279/280`` where a result is missing, damaged or refused."""
    usable = report.usable(name, protocol)
    damaged = usable < report.total or any(
        fault.kind not in ("times", "refused") for fault in report.faults[name]
    )
    text = str(usable) if usable == report.total else f"{usable}/{report.total}"
    return f"! {text}" if damaged else text


def _value(scores: Scores | None, column: Column) -> float:
    return scores.values[column.key] if scores else math.nan


def _best_marked(values: list[float], column: Column, eligible: list[bool] | None = None) -> list[str]:
    """Numbers as text, the best of several marked (all of them on a tie); speed depends on the machine."""
    running = [
        value
        for value, runs in zip(values, eligible or [True] * len(values))
        if runs and not math.isnan(value)
    ]
    best = math.nan
    if len(running) > 1 and column.better:
        best = max(running) if column.better == "higher" else min(running)
    cells = []
    for number, value in enumerate(values):
        text = "-" if math.isnan(value) else f"{value:.{column.digits}f}"
        is_best = value == best and (eligible is None or eligible[number])
        cells.append(paint(f"* {text}", "good") if is_best else text)
    return cells


def _table(headers: list[str], rows: list[list[str]]) -> str:
    align = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers, tablefmt="simple", colalign=align, disable_numparse=True)
