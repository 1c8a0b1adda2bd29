"""Does the sparse stage help? One small network trained three ways on the synthetic benchmark.

- ``all``: every frame of every training video is labelled;
- ``burn-in``: 3 labelled frames per video, labelled pairs only;
- ``sparse``: 3 labelled frames per video, burn-in and sparse stage.

All three are the family's own training, with the same number of steps and samples: they differ in which frames are
key frames, and in whether there is a sparse stage. Printed is the success AUC on unseen videos (mean and
spread over seeds) and how much of the gap between ``burn-in`` and ``all`` the sparse stage recovers.

python -m benchmarks.spot_effect --seeds 3        (about an hour of CPU time; finished runs are kept)
"""

from __future__ import annotations

import importlib
import statistics
from pathlib import Path

import numpy as np
from tabulate import tabulate

from config.cli import Parser, overrides, run
from config.console import Progress, say
from config.environment import resolve, var_dir
from config.files import write_json
from config.settings import Settings
from ltr.admin.train import variant_settings
from ltr.dataset.synthetic_lasot import SyntheticSpec, make
from ltr.train_settings.common import open_datasets
from pysot_toolkit.datasets.benchmarks import open_benchmark
from pysot_toolkit.evaluation.evaluate import evaluate
from pysot_toolkit.testing.queue import Candidate, run_queue
from sampling.key_frames import key_frame_content, sampling_file, write_key_frames

SLOW = "an hour"  # `python -m benchmarks` leaves it out: its table is docs/spot_effect.md
WAYS = ("all", "burn-in", "sparse")
DATASET = "LaSOT"
SPEC = SyntheticSpec(seed=1, train_videos=48, train_frames=60, test_videos=40, test_frames=40)


def main() -> None:
    parser = Parser(__doc__ or "")
    parser.add_argument("--arch", default="transt", help="its variant spot_{arch}_demo is trained")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--only", nargs=2, metavar=("WAY", "SEED"), help="one of the runs, for several processes"
    )
    options = parser.parse_args()
    variant_settings("spot", f"spot_{options.arch}_demo", overrides(options))  # names what is unknown
    root = resolve("var/spot_effect")
    with Progress(SPEC.train_videos + SPEC.test_videos, "making videos", "videos") as progress:
        make(root / DATASET, SPEC, progress.update)
    jobs = [(way, seed) for seed in range(options.seeds) for way in WAYS]
    if options.only:
        jobs = [(options.only[0], int(options.only[1]))]
    scores: dict[str, list[float]] = {way: [] for way in WAYS}
    for way, seed in jobs:
        auc = one_run(options.arch, way, seed, root, overrides(options))
        say(f"{way}, seed {seed}: AUC {auc:.3f}")
        scores[way].append(auc)
    if options.only:
        return
    table(scores, root / f"{options.arch}.json")


def one_run(arch: str, way: str, seed: int, root: Path, pairs: list[str]) -> float:
    """Train one way, test the outcome, return its success AUC. What is finished is not done again."""
    settings = run_settings(arch, way, seed, root, pairs)
    if way == "all":
        label_all_frames(settings)
    importlib.import_module(f"ltr.train_settings.spot.{arch}").run(settings)
    part = "t" if way == "sparse" else "s"
    folder = var_dir(settings, "checkpoints", "ltr", settings.module_name, settings.variant)
    [path] = folder.glob(f"*_ep{settings.train.epochs:04d}_{part}.pth.tar")
    candidate = Candidate(f"{settings.variant}_ep{settings.train.epochs:04d}_{part}", path)
    run_queue(lambda: [candidate], lambda: open_benchmark(DATASET, settings), DATASET, arch, settings)
    return evaluate(settings, DATASET, trackers=[candidate.tracker]).value(candidate.tracker)


def run_settings(arch: str, way: str, seed: int, root: Path, pairs: list[str]) -> Settings:
    """The demo's settings, with the data, the seed and the stages of one way."""
    settings = variant_settings(
        "spot",
        f"spot_{arch}_demo",
        [
            *("paths.var", str(root)),
            *(f"paths.train.{DATASET}", str(root / DATASET)),
            *(f"paths.test.{DATASET}", str(root / DATASET)),
            *("paths.sampling_results", str(root / ("all_frames" if way == "all" else f"key_frames_{seed}"))),
            *("sampling.seed", str(seed)),
            *("seed", str(seed)),
            *("variant", f"{arch}_{way}_{seed}"),
            *("train.image_interval", "0"),
            *pairs,
        ],
    )
    settings.train.save_interval = settings.train.epochs
    if way == "all":
        settings.sampling.num = SPEC.train_frames
    if way != "sparse":
        settings.train.burn_in_epochs = settings.train.epochs
    return settings


def label_all_frames(settings: Settings) -> None:
    """Write key-frame files in which every visible frame is a key frame."""
    num = settings.sampling.num
    for dataset in open_datasets(settings):
        visible = [np.flatnonzero(dataset.annotation(i).visible).tolist() for i in range(len(dataset))]
        result = {key: [{"f_ids": frames}] for key, frames in zip(dataset.keys, visible) if frames}
        content = key_frame_content(dataset.name, dataset.split, num, [], result)
        write_key_frames(sampling_file(settings, dataset.name, dataset.split, num), content)


def table(scores: dict[str, list[float]], path: Path) -> None:
    """Print means, spreads and the share of the gap that is recovered; write the figures to ``path``."""
    means = {way: statistics.mean(values) for way, values in scores.items()}
    rows = [
        [
            way,
            f"{means[way]:.3f}",
            f"{np.std(values, ddof=1) if len(values) > 1 else 0:.3f}",
            " ".join(f"{v:.3f}" for v in values),
        ]
        for way, values in scores.items()
    ]
    say(tabulate(rows, ["labels", "AUC mean", "spread", "by seed"], disable_numparse=True))
    gap = means["all"] - means["burn-in"]
    recovered = (means["sparse"] - means["burn-in"]) / gap if gap else float("nan")
    say(f"the sparse stage recovers {100 * recovered:.0f} % of the gap of {gap:.3f}")
    write_json(path, {"auc": scores, "recovered": recovered}, indent=True)


if __name__ == "__main__":
    run(main)
