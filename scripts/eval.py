"""Evaluate the results of trackers on a benchmark: tables, JSON, CSV and, with --vis, plots and a page."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config.cli import Parser, run
from config.console import say
from config.environment import resolve, var_dir
from config.errors import UserError
from pysot_toolkit.evaluation.comparison import write_comparison
from pysot_toolkit.evaluation.evaluate import evaluate
from pysot_toolkit.evaluation.pack import pack
from pysot_toolkit.evaluation.tables import show
from pysot_toolkit.evaluation.unpack import unpack


def main() -> None:
    parser = Parser(__doc__ or "")
    parser.add_argument(
        "-p",
        "--tracker_path",
        help="folder with {dataset}/{tracker}/, or a .zip or .tar of results (default: var/results)",
    )
    parser.add_argument("-d", "--dataset", required=True, help="name of the benchmark")
    parser.add_argument(
        "-t", "--tracker_prefix", default="", help="evaluate all trackers whose name starts so"
    )
    parser.add_argument(
        "--protocol", nargs="+", default=[], help="by name, or all (default: those of the benchmark's papers)"
    )
    parser.add_argument("--against", help="compare every tracker with this one")
    parser.add_argument(
        "--runs", action="store_true", help="mean and spread over NAME_000, NAME_001 ... and repeated results"
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="average over what exists of faulty results"
    )
    parser.add_argument("--pack", help="write the archive that the benchmark's server wants of this tracker")
    parser.add_argument("-n", "--num", type=int, default=1, help="processes that share the work")
    parser.add_argument("-s", "--show_video_level", action="store_true", help="tables per video too")
    parser.add_argument("--vis", action="store_true", help="draw the plots and write index.html")
    options, settings = parser.parse()
    if options.num < 1:
        raise UserError(f"--num {options.num}: at least one process is needed")

    results = (
        unpack(settings, options.dataset, resolve(options.tracker_path)) if options.tracker_path else None
    )
    if options.pack:
        say(str(pack(settings, options.dataset, options.pack, results)))
        return
    report = evaluate(
        settings,
        options.dataset,
        options.tracker_prefix,
        results=results,
        processes=options.num,
        protocols=options.protocol,
        allow_missing=options.allow_missing,
        keep_overlaps=options.vis,
        each_run=options.runs,
        against=options.against,
    )
    show(report, options.show_video_level, options.against, options.runs)
    folder = var_dir(settings, "reports", options.dataset, options.tracker_prefix or "all")
    written = report.write(folder)
    written.append(write_comparison(report, folder, options.against, options.runs))
    if options.vis:
        from pysot_toolkit.visualization.publish import publish  # matplotlib is slow to import

        written += publish(report, folder, settings, results, options.against, options.runs)
    say(f"\n{len(written)} files in {folder}")


if __name__ == "__main__":
    run(main)
