"""The whole chain on videos that it makes itself: train from 3 labelled frames per video, test, evaluate.

Everything lies under var/demo. Started again, it goes on where it was.
"""

import shutil
import sys
import time
from pathlib import Path

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from config.cli import Parser, overrides, run
from config.console import Progress, duration, say
from config.environment import resolve, var_dir
from config.settings import Settings
from ltr.admin.train import train, variant_settings
from ltr.dataset.synthetic_lasot import SyntheticSpec, make
from ltr.train_settings.common import save_untrained
from pysot_toolkit.datasets.benchmarks import open_benchmark
from pysot_toolkit.evaluation.evaluate import evaluate
from pysot_toolkit.evaluation.report import Report
from pysot_toolkit.evaluation.tables import show
from pysot_toolkit.testing.queue import Candidate, run_queue
from pysot_toolkit.testing.queue import report as report_queue
from pysot_toolkit.testing.results import read_boxes, result_file
from pysot_toolkit.visualization.overlay import contact_sheet, overlay_video

MODULE, DATASET = "spot", "LaSOT"


def main() -> int:
    parser = Parser(__doc__ or "")
    parser.add_argument("--arch", default="transt", help="which tracker: transt (default), ocean or dimp")
    options = parser.parse_args()
    variant = f"spot_{options.arch}_demo"
    started = time.monotonic()
    folder = resolve("var/demo")
    pairs = [
        *("paths.var", str(folder)),
        *(f"paths.train.{DATASET}", str(folder / DATASET)),
        *(f"paths.test.{DATASET}", str(folder / DATASET)),
        *("paths.sampling_results", str(folder / "key_frames")),
        *overrides(options),
    ]
    settings = variant_settings(MODULE, variant, pairs)

    say("1/4 synthetic videos", "title")
    spec = SyntheticSpec()
    with Progress(spec.train_videos + spec.test_videos, "making videos", "videos") as progress:
        make(folder / DATASET, spec, progress.update)

    say("2/4 training from 3 labelled frames per video", "title")
    train(MODULE, variant, pairs)

    say("3/4 testing on unseen videos", "title")
    candidates = checkpoints(settings)
    outcome = run_queue(
        lambda: candidates, lambda: open_benchmark(DATASET, settings), DATASET, options.arch, settings
    )
    code = report_queue(outcome, DATASET, settings)
    if code:
        return code

    say("4/4 evaluation", "title")
    names = [candidate.tracker for candidate in candidates]
    report = evaluate(settings, DATASET, trackers=names, protocols=("pysot-ope",), keep_overlaps=True)
    show(report)
    written = pictures(settings, report, names[-1], names[0])
    for path in written:
        say(f"  {path}")
    say(f"the demo took {duration(time.monotonic() - started)}")
    final, before = (report.value(name) for name in (names[-1], names[0]))
    say(f"demo: AUC {final:.2f} untrained {before:.2f}", "good")
    return 0


def checkpoints(settings: Settings) -> list[Candidate]:
    """The network before training first, then the teacher at the kept epochs of the sparse stage."""
    variant = settings.variant
    folder = var_dir(settings, "checkpoints", "ltr", MODULE, variant)
    untrained = folder / "untrained.pth.tar"
    if not untrained.exists():
        save_untrained(settings, untrained)
    kept = range(settings.train.save_interval, settings.train.epochs + 1, settings.train.save_interval)
    found = [Candidate(f"{variant}_untrained", untrained)]
    for epoch in kept:
        for path in folder.glob(f"*_ep{epoch:04d}_t.pth.tar"):
            found.append(Candidate(f"{variant}_ep{epoch:04d}_t", path))
    return found


def pictures(settings: Settings, report: Report, tracker: str, untrained: str) -> list[Path]:
    """Tables, plots, and what the tracker did on its median test video; the files that were written."""
    from pysot_toolkit.visualization.publish import publish  # matplotlib is slow to import

    folder = var_dir(settings, "reports", DATASET, settings.variant)
    written = [*report.write(folder), *publish(report, folder, settings)]
    protocol = report.protocols[0]
    scores = report.scores[protocol.name][tracker].sequences
    ranked = sorted(scores, key=lambda name: scores[name].values[protocol.columns[0].key])
    sequence = open_benchmark(DATASET, settings)[ranked[len(ranked) // 2]]
    boxes = {
        name: read_boxes(result_file(var_dir(settings), DATASET, name, sequence.name))
        for name in (tracker, untrained)
    }
    written.append(contact_sheet(folder / "tracked.png", sequence, boxes))
    written.append(overlay_video(folder / "tracked.mp4", sequence, boxes))
    inputs = sorted(var_dir(settings, "checkpoints", "ltr", MODULE, settings.variant, "inputs").glob("*.png"))
    if inputs:
        written.append(Path(shutil.copy(inputs[-1], folder / "student_inputs.png")))
    return written


if __name__ == "__main__":
    run(main)
