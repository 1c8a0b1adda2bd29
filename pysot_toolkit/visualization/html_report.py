"""The HTML report: one page that holds all it shows and asks nothing of the network."""

from __future__ import annotations

import io
import string
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Protocol

from PIL import Image

from config.environment import var_dir
from config.files import atomic_writer
from config.settings import Settings
from pysot_toolkit.datasets import open_benchmark
from pysot_toolkit.evaluation.report import Report
from pysot_toolkit.visualization.colours import TRUTH
from pysot_toolkit.visualization.figure import Figure
from pysot_toolkit.visualization.html.markup import Markup, counted, data_uri, markup, tag
from pysot_toolkit.visualization.html.provenance import provenance
from pysot_toolkit.visualization.html.scores import attribute_table, faults_table, summary
from pysot_toolkit.visualization.html.segments import segments_section
from pysot_toolkit.visualization.html.tables import colour_rules, plain_table
from pysot_toolkit.visualization.html.videos import video_table

_FILES = resources.files("pysot_toolkit.visualization.html")


class Comparison(Protocol):
    """What a comparison of trackers must be able to do to be shown."""

    def tables(self) -> Sequence[tuple[str, Sequence[object], Sequence[Sequence[object]]]]:
        """Title, header and rows of each table."""


def write_html(
    report: Report,
    folder: Path,
    settings: Settings,
    figures: Sequence[Figure],
    comparison: Comparison | None = None,
    results: Path | None = None,
    command: str | None = None,
) -> Path:
    """Write ``folder/index.html``; returns its path.

    Args:
        report: with ``overlaps`` for the lines of overlap over time and the worst segments.
        folder: of the report.
        settings: for the benchmark's folder and ``paths.var``.
        figures: the plots, in this order.
        comparison: its tables, where trackers were compared.
        results: the root of the results that were evaluated, ``var/results`` if None.
        command: that made the report, as it is shown; None: the command line of this process.

    Raises:
        UserError: the benchmark is no longer there, or the folder cannot be written.
    """
    benchmark = open_benchmark(report.dataset, settings)
    root = (results if results is not None else var_dir(settings, "results")) / report.dataset
    sections = {
        "Summary": summary(report),
        "Plots": _plots(figures),
        "Attributes": attribute_table(report),
        "Comparison": _comparison(comparison),
        "Videos": video_table(report, benchmark),
        "Worst segments": segments_section(report, benchmark, root),
        "Faults": faults_table(report),
        "Provenance": provenance(benchmark, root, report.trackers, command),
    }
    page = string.Template(_text("page.html")).substitute(
        title=markup(f"{report.dataset}: {counted(len(report.trackers), 'tracker')}"),
        style=_text("page.css") + colour_rules() + f".truth {{ --tracker: {TRUTH}; }}\n",
        script=_text("page.js"),
        content=_content(report, {title: body for title, body in sections.items() if body}),
    )
    path = folder / "index.html"
    with atomic_writer(path) as file:
        file.write(page.encode("utf-8", "replace"))  # file names need not be text
    return path


def _content(report: Report, sections: dict[str, Markup]) -> Markup:
    protocol = report.protocols[0]
    names = {title: title.lower().replace(" ", "-") for title in sections}
    return markup(
        tag(
            "header",
            tag("h1", report.dataset),
            tag(
                "p",
                f"{counted(len(report.trackers), 'tracker')} on {counted(report.total, 'video')}, ranked by"
                f" {protocol.columns[0].title} of protocol {protocol.name} v{protocol.version}.",
            ),
            tag(
                "nav",
                tag("ul", *(tag("li", tag("a", title, href=f"#{names[title]}")) for title in sections)),
                aria_label="Sections",
            ),
        ),
        tag(
            "main",
            *(
                tag("section", tag("h2", title, id=names[title]), body, aria_labelledby=names[title])
                for title, body in sections.items()
            ),
            id="content",
            tabindex="-1",
        ),
    )


def _plots(figures: Sequence[Figure]) -> Markup:
    shown = [
        tag(
            "figure",
            tag("img", src=data_uri("png", png), alt=figure.alt, width=size[0], height=size[1]),
            tag("figcaption", tag("code", figure.name)),
            aria_label=figure.title,
        )
        for figure in figures
        for png, size in [_reduced(figure.png)]
    ]
    return tag("div", *shown, class_="plots") if shown else Markup()


def _comparison(comparison: Comparison | None) -> Markup:
    tables = comparison.tables() if comparison is not None else []
    return markup(*(plain_table(title, header, rows) for title, header, rows in tables if rows))


def _text(name: str) -> str:
    return (_FILES / name).read_text("utf-8")


def _reduced(png: bytes) -> tuple[bytes, tuple[int, int]]:
    """The picture in 256 colours, a third of the bytes, and its width and height in px.

    Of the ways that Pillow has, this one keeps the colours of lines and the background: no pixel of a plot
    moved by more than 6 of 255.
    """
    with Image.open(io.BytesIO(png)) as image:
        few = image.convert("RGB").quantize(method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    data = io.BytesIO()
    few.save(data, "PNG")
    return data.getvalue(), few.size
