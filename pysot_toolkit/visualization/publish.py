"""Everything of a report that is looked at: its plots as files, and the page that shows them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from config.settings import Settings
from pysot_toolkit.evaluation.report import Report
from pysot_toolkit.evaluation.tables import Table, comparison_tables, run_tables
from pysot_toolkit.visualization.figure import Figure
from pysot_toolkit.visualization.html_report import write_html
from pysot_toolkit.visualization.plots import report_plots
from pysot_toolkit.visualization.style import write_figure


class ComparisonTables(NamedTuple):
    """Tables of a comparison, for the page."""

    shown: list[Table]

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Title, headers and rows of each."""
        return [(table.title, table.headers, table.rows) for table in self.shown]


def publish(
    report: Report,
    folder: Path,
    settings: Settings,
    results: Path | None = None,
    against: str | None = None,
    runs: bool = False,
) -> list[Path]:
    """Write each plot as PNG and PDF and ``index.html`` into ``folder``; returns their paths.

    Args:
        report: evaluated with ``keep_overlaps``.
        folder: where to.
        settings: for the benchmark's frames.
        results: the root of the results, as for ``evaluate``.
        against: the tracker to compare the others with.
        runs: show mean and spread of several runs.
    """
    written, figures = [], []
    for plot in report_plots(report):
        paths = write_figure(plot.figure, folder / plot.name)
        figures.append(Figure(plot.name, plot.title, plot.alt, paths[0].read_bytes()))
        written += paths
    tables = [*(run_tables(report) if runs else []), *(comparison_tables(report, against) if against else [])]
    comparison = ComparisonTables(tables) if tables else None
    written.append(write_html(report, folder, settings, figures, comparison, results))
    return written
