"""Write overlay videos or contact sheets of chosen videos with the boxes of chosen trackers and the truth."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config.cli import Parser, run
from config.console import say
from config.environment import resolve
from pysot_toolkit.visualization.playback import play


def main() -> None:
    parser = Parser(__doc__ or "")
    parser.add_argument("-d", "--dataset", required=True, help="name of the benchmark")
    parser.add_argument("-t", "--trackers", nargs="*", default=[], help="whose boxes are drawn")
    parser.add_argument("-v", "--videos", nargs="*", default=[], help="which videos (default: all)")
    parser.add_argument(
        "-p", "--tracker_path", help="folder with {dataset}/{tracker}/ (default: var/results)"
    )
    parser.add_argument("--sheet", action="store_true", help="contact sheets (PNG) instead of videos (MP4)")
    options, settings = parser.parse()
    results = resolve(options.tracker_path) if options.tracker_path else None
    for path in play(settings, options.dataset, options.trackers, options.videos, results, options.sheet):
        say(str(path))


if __name__ == "__main__":
    run(main)
