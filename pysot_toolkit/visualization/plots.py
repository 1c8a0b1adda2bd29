"""The plots of a report, ready for a paper: curves with sorted legends, and the charts that a protocol asks for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from pysot_toolkit.evaluation.comparison import intervals
from pysot_toolkit.evaluation.protocol import Curve, Protocol, Scores
from pysot_toolkit.evaluation.report import Report
from pysot_toolkit.visualization.charts import accuracy_robustness, radar, ranked_bars, speed_accuracy
from pysot_toolkit.visualization.style import MAX_LINES, house_style, line_style, shortened

_INSIDE = 5  # a longer legend would hide the curves and goes beside them
_LEAST_AXES = 3  # attributes; fewer make no radar


class Plot(NamedTuple):
    """One figure of a report."""

    name: str  # of its files
    title: str
    alt: str  # what it shows, for who cannot see it
    figure: Figure


class Line(NamedTuple):
    """One tracker in a plot of curves."""

    x: np.ndarray  # [T]
    y: np.ndarray  # [T]
    score: float  # in the legend, which it sorts
    number: int  # gives the colour


def report_plots(report: Report) -> Iterator[Plot]:
    """The plots of each protocol: its curves, the radar of its attributes, AR, EAO and speed where there are any."""
    numbers = {name: number for number, name in enumerate(report.trackers)}  # a tracker keeps its colour
    for protocol in report.protocols:
        overall = {
            name: scores
            for name in report.ranking(protocol)
            if (scores := report.scores[protocol.name][name].overall) is not None
        }
        if not overall:
            continue
        where = f"{report.dataset}, {protocol.name} v{protocol.version}"
        best = f"best: {next(iter(overall))}"
        for curve in protocol.curves:
            title = f"{curve.title} on {where}"
            lines = {
                _marked(report, name): _line(curve, scores, numbers[name]) for name, scores in overall.items()
            }
            figure = curve_figure(curve, lines, title)
            yield Plot(
                f"{protocol.name}_{curve.key}", title, f"{curve.title} curves, {where}; {best}", figure
            )
        yield from _charts(report, protocol, overall, numbers, where, best)


def curve_figure(curve: Curve, lines: Mapping[str, Line], title: str) -> Figure:
    """The curves of several trackers, the legend sorted by score (higher is better)."""
    ranked = sorted(lines.items(), key=lambda item: (-item[1].score, item[0]))
    with house_style():
        beside = len(ranked) > _INSIDE
        figure, axes = plt.subplots(figsize=(9.8 if beside else 6.4, 4.8), layout="constrained")
        for rank, (name, line) in enumerate(ranked[:MAX_LINES]):
            axes.plot(
                line.x,
                line.y,
                label=f"{line.score:.3f}  {shortened(name)}",
                zorder=10 - rank / 100,
                **line_style(line.number),
            )
        axes.set(title=title, xlabel=curve.x_label, ylabel=curve.y_label)
        ends = [x for line in lines.values() for x in (line.x[0], line.x[-1]) if math.isfinite(x)]
        if ends and min(ends) < max(ends):
            share = curve.thresholds is None and min(ends) >= 0 and max(ends) <= 1  # such as recall
            axes.set_xlim(*((0, 1) if share else (min(ends), max(ends))))
        axes.set_ylim(0, 1.005)
        shown = f", best {MAX_LINES} of {len(ranked)}" if len(ranked) > MAX_LINES else ""
        legend = (figure if beside else axes).legend(
            loc="outside right upper" if beside else "best",
            title=curve.score_title + shown,
            framealpha=0.9,
            edgecolor="none",
            alignment="left",
        )
        legend.set_zorder(20)
    plt.close(figure)
    return figure


def _line(curve: Curve, scores: Scores, number: int) -> Line:
    x = scores.curves[curve.x_key] if curve.thresholds is None else curve.thresholds
    return Line(x, scores.curves[curve.key], scores.values[curve.score], number)


def _marked(report: Report, name: str) -> str:
    usable = report.usable(name)
    return name if usable == report.total else f"{name} ({usable}/{report.total})"


def _charts(
    report: Report,
    protocol: Protocol,
    overall: Mapping[str, Scores],
    numbers: Mapping[str, int],
    where: str,
    best: str,
) -> Iterator[Plot]:
    column = protocol.columns[0]
    attributes = _attributes(report, protocol, list(overall))
    if len(attributes) >= _LEAST_AXES:
        rows = {
            name: [_value(report, protocol, name, attribute) for attribute in attributes] for name in overall
        }
        counts = [_count(report, protocol, attribute) for attribute in attributes]
        labels = [f"{attribute} ({count})" for attribute, count in zip(attributes, counts)]
        title = f"{column.title} by attribute on {where}"
        figure = radar(labels, rows, title, column.title, numbers)
        yield Plot(
            f"{protocol.name}_attributes", title, f"{column.title} by attribute, {where}; {best}", figure
        )
    if "ar" in protocol.pictures:
        points = {name: (s.values["reliability"], s.values["accuracy"]) for name, s in overall.items()}
        title = f"Accuracy and robustness on {where}"
        yield Plot(
            f"{protocol.name}_ar",
            title,
            f"AR plot, {where}; {best}",
            accuracy_robustness(points, title, numbers),
        )
    if "eao" in protocol.pictures:
        values = {name: scores.values["eao"] for name, scores in overall.items()}
        sure = {
            name: intervals(protocol, report.scores[protocol.name][name].sequences)["eao"] for name in values
        }
        title = f"Expected average overlap on {where}"
        bars = ranked_bars(
            values,
            title,
            "EAO, line: 95 % interval over videos",
            {name: (interval.low, interval.high) for name, interval in sure.items()},
            numbers,
        )
        yield Plot(f"{protocol.name}_eao_bars", title, f"EAO of each tracker, {where}; {best}", bars)
    timed = {
        name: (scores.values["fps"], scores.values[column.key])
        for name, scores in overall.items()
        if not math.isnan(scores.values.get("fps", math.nan))
    }
    if timed:
        title = f"Speed and {column.title} on {where}"
        figure = speed_accuracy(timed, title, column.title, numbers)
        yield Plot(f"{protocol.name}_speed", title, f"{column.title} against speed, {where}; {best}", figure)


def _attributes(report: Report, protocol: Protocol, names: Sequence[str]) -> list[str]:
    return sorted({name for tracker in names for name in report.scores[protocol.name][tracker].attributes})


def _value(report: Report, protocol: Protocol, tracker: str, attribute: str) -> float:
    scores = report.scores[protocol.name][tracker].attributes.get(attribute)
    return scores.values[protocol.columns[0].key] if scores else math.nan


def _count(report: Report, protocol: Protocol, attribute: str) -> int:
    return max(table.attribute_counts.get(attribute, 0) for table in report.scores[protocol.name].values())
