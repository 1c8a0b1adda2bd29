"""Charts of single numbers: attribute radar, accuracy-robustness, EAO bars, speed against accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from pysot_toolkit.visualization.style import MAX_LINES, house_style, line_style, marker_style, shortened

_MAX_RADAR = 7  # trackers on one radar


def radar(
    attributes: Sequence[str],
    values: Mapping[str, Sequence[float]],
    title: str,
    score: str,
    numbers: Mapping[str, int],
) -> Figure:
    """One closed line per tracker over the attributes.

    Args:
        attributes: one axis each, at least three.
        values: tracker, the best first, to one value in [0, 1] per attribute; NaN leaves a gap.
        title: above the chart.
        score: what the values are.
        numbers: tracker to the number that gives its colour.
    """
    angles = np.linspace(0, 2 * math.pi, len(attributes), endpoint=False)
    with house_style():
        figure = plt.figure(figsize=(9.4, 6.4), layout="constrained")
        axes: Any = figure.add_subplot(projection="polar")
        axes.set_theta_zero_location("N")
        axes.set_theta_direction(-1)
        for name, row in list(values.items())[:_MAX_RADAR]:
            closed = [*row, row[0]]
            axes.plot(
                [*angles, angles[0]],
                closed,
                label=shortened(name),
                linewidth=1.8,
                markersize=4,
                marker=marker_style(numbers[name])["marker"],
                **line_style(numbers[name]),
            )
        highest = max(
            (value for row in values.values() for value in row if not math.isnan(value)), default=1.0
        )
        axes.set_ylim(0, min(1.0, math.ceil(highest * 10 + 0.2) / 10))
        axes.set_xticks(angles, [_wrapped(attribute) for attribute in attributes], fontsize=10)
        axes.tick_params(axis="x", pad=12)
        axes.tick_params(axis="y", labelsize=9, labelcolor="#555555")
        axes.set_title(title, pad=18)
        figure.legend(loc="outside right upper", title=score, edgecolor="none", alignment="left")
    plt.close(figure)
    return figure


def accuracy_robustness(
    points: Mapping[str, tuple[float, float]], title: str, numbers: Mapping[str, int]
) -> Figure:
    """VOT's AR plot (Kristan et al., TPAMI 2016): the better tracker is further up and to the right.

    Args:
        points: tracker, the best first, to (reliability exp(-30 * failures per frame), accuracy), both in [0, 1].
        title: above the chart.
        numbers: tracker to the number that gives its colour.
    """
    with house_style():
        figure, axes = plt.subplots(figsize=(8.4, 4.8), layout="constrained")
        for name, (reliability, accuracy) in list(points.items())[:MAX_LINES]:
            axes.plot(
                reliability,
                accuracy,
                linestyle="none",
                markersize=10,
                label=shortened(name),
                **marker_style(numbers[name]),
            )
        axes.set(
            title=title, xlabel="robustness (share of 30-frame spans without a failure)", ylabel="accuracy"
        )
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(0, 1.005)
        figure.legend(loc="outside right upper", edgecolor="none", alignment="left")
    plt.close(figure)
    return figure


def ranked_bars(
    values: Mapping[str, float],
    title: str,
    label: str,
    whiskers: Mapping[str, tuple[float, float]],
    numbers: Mapping[str, int],
) -> Figure:
    """One horizontal bar per tracker, the best on top.

    Args:
        values: tracker, the best first, to its score.
        title: above the chart.
        label: what the values are.
        whiskers: tracker to the (low, high) of its 95 % interval, where there is one.
        numbers: tracker to the number that gives its colour.
    """
    shown = list(values.items())[:MAX_LINES]
    with house_style():
        figure, axes = plt.subplots(figsize=(8.4, 1.5 + 0.42 * max(len(shown), 2)), layout="constrained")
        for row, (name, value) in enumerate(shown):
            axes.barh(row, value, color=line_style(numbers[name])["color"], height=0.62)
            low, high = whiskers.get(name, (math.nan, math.nan))
            end = value
            if not math.isnan(low):
                axes.plot([low, high], [row, row], color="#222222", linewidth=1.4, solid_capstyle="butt")
                end = max(value, high)
            axes.annotate(
                f"{value:.3f}", (end, row), (6, 0), textcoords="offset points", va="center", fontsize=10.5
            )
        axes.set_yticks(range(len(shown)), [shortened(name) for name, _ in shown])
        axes.invert_yaxis()
        axes.set(title=title, xlabel=label)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.12)
        axes.set_xlim(left=0)
    plt.close(figure)
    return figure


def speed_accuracy(
    points: Mapping[str, tuple[float, float]], title: str, score: str, numbers: Mapping[str, int]
) -> Figure:
    """Speed (logarithmic) against a score.

    Args:
        points: tracker, the best first, to (frames per second, score).
        title: above the chart.
        score: what the second number is.
        numbers: tracker to the number that gives its colour.
    """
    with house_style():
        figure, axes = plt.subplots(figsize=(8.4, 4.8), layout="constrained")
        for name, (fps, value) in list(points.items())[:MAX_LINES]:
            axes.plot(
                fps,
                value,
                linestyle="none",
                markersize=10,
                label=shortened(name),
                **marker_style(numbers[name]),
            )
        axes.set_xscale("log")
        axes.margins(y=0.15)
        speeds = [fps for fps, _ in points.values()]
        axes.set_xlim(min(speeds) / 2, max(speeds) * 2)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(
            title=title,
            xlabel="speed (frames per second, as measured by each tracker's own run)",
            ylabel=score,
        )
        figure.legend(loc="outside right upper", edgecolor="none", alignment="left")
    plt.close(figure)
    return figure


def _wrapped(text: str) -> str:
    """A label on at most two lines."""
    words = text.split(" ")
    if len(text) <= 12 or len(words) == 1:
        return text
    cut = min(range(1, len(words)), key=lambda k: abs(len(" ".join(words[:k])) - len(text) / 2))
    return " ".join(words[:cut]) + "\n" + " ".join(words[cut:])
