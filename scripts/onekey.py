"""Train, test and evaluate a variant: any of the three stages, one after the other.

python scripts/onekey.py --train --test --eval --module spot --arch transt --variant spot_transt_003 \
    --start_epoch 325 --end_epoch 400 --dataset LaSOT --gpus 0,1,2,3 --threads 4 --ts_tag t
"""

import argparse
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from config.cli import Parser, overrides, run
from config.console import say
from config.errors import UserError
from config.settings import Settings
from ltr.admin.train import variant_settings
from pysot_toolkit.datasets.benchmarks import open_benchmark
from pysot_toolkit.testing.checkpoints import epoch_range
from pysot_toolkit.testing.launch import run_child, script, under_mpi, under_torchrun
from pysot_toolkit.testing.queue import check_batch
from pysot_toolkit.testing.ranks import check_gpus, parse_gpus
from pysot_toolkit.trackers.base import TRACKERS

Stage = tuple[str, list[str], dict[str, str]]


def main() -> int:
    parser = Parser("Train, test and evaluate a variant: any of the three stages, one after the other.")
    parser.add_argument("--train", action="store_true", help="train, or go on where it was interrupted")
    parser.add_argument("--test", action="store_true", help="test the checkpoints of the named epochs")
    parser.add_argument("--eval", action="store_true", help="evaluate all results of the variant")
    parser.add_argument("--module", required=True, help="family of the train setting, e.g. spot")
    parser.add_argument("--arch", default="transt", help="registered tracker (default: transt)")
    parser.add_argument("--variant", required=True, help="train setting, e.g. spot_transt_003")
    parser.add_argument(
        "--interval", type=int, default=25, help="epochs between tested checkpoints (default: 25)"
    )
    parser.add_argument("--start_epoch", type=int, help="first tested epoch")
    parser.add_argument("--end_epoch", type=int, help="last tested epoch")
    parser.add_argument("--dataset", help="benchmark of test_dataset_dirs, e.g. LaSOT")
    parser.add_argument(
        "--gpus", default="", help="GPU numbers, e.g. 0,1,2,3 (default: the device of the settings)"
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="MPI processes that test (default: 1, without MPI)"
    )
    parser.add_argument(
        "--batch", type=int, help="sequences that testing advances together (default: testing.batch, 1)"
    )
    parser.add_argument(
        "--ts_tag", choices=("t", "s"), default="t", help="test the teacher (default) or the student"
    )
    options, _ = parser.parse()
    handed_on = [part for key, value in options.set for part in ("--set", key, value)]
    handed_on += ["--device", options.device] if options.device else []
    for name, command, environment in plan(options, handed_on):
        say(f"onekey: {name}", "title")
        code = run_child(command, environment)
        if code:
            say(f"onekey: stopped, {name} ended with exit code {code}")
            return code
    return 0


def plan(options: argparse.Namespace, handed_on: list[str]) -> list[Stage]:
    """The chosen stages as (name, command, environment), once all that can be checked beforehand is right."""
    if not (options.train or options.test or options.eval):
        raise UserError("nothing to do: name at least one of --train, --test, --eval")
    settings = variant_settings(options.module, options.variant, overrides(options))
    gpus = parse_gpus(options.gpus)
    check_gpus(gpus, settings)
    under_mpi([], options.threads)  # refuses what test_epochs.py would refuse, before anything is trained
    stages: list[Stage] = []
    if options.train:
        command = [*script("run_training.py"), options.module, options.variant, *handed_on]
        stages.append(("training", *under_torchrun(command, gpus, settings)))
    if options.test or options.eval:
        if not options.dataset:
            raise UserError("--dataset is needed for --test and --eval")
        open_benchmark(options.dataset, settings)
    if options.test:
        stages.append(("testing", test_command(options, settings) + handed_on, {}))
    if options.eval:
        command = [*script("eval.py"), "--dataset", options.dataset, "--num", str(options.threads), "--vis"]
        command += ["--tracker_prefix", f"{settings.variant}_ep", *handed_on]
        stages.append(("evaluation", command, {}))
    return stages


def test_command(options: argparse.Namespace, settings: Settings) -> list[str]:
    """The testing stage; epochs that this training would never save are refused before it starts."""
    if options.start_epoch is None or options.end_epoch is None:
        raise UserError("--start_epoch and --end_epoch are needed for --test")
    epochs = epoch_range(options.start_epoch, options.end_epoch, options.interval)
    TRACKERS.get(options.arch)
    if options.train:
        train = settings.train
        never = [e for e in epochs if e > train.epochs or (e % train.save_interval and e != train.epochs)]
        if never:
            raise UserError(
                f"--start_epoch {options.start_epoch} --end_epoch {options.end_epoch} --interval {options.interval}: "
                f"{options.variant} trains {train.epochs} epochs and keeps every {train.save_interval}th, so there will be "
                f"no epoch {never[0]}"
            )
        if options.ts_tag == "t" and epochs[0] <= train.burn_in_epochs:
            raise UserError(
                f"--ts_tag t: {options.variant} has no teacher up to epoch {train.burn_in_epochs}; test its student with --ts_tag s"
            )
    command = [*script("test_epochs.py"), "--interval", str(options.interval)]
    command += ["--start_epoch", str(options.start_epoch), "--end_epoch", str(options.end_epoch)]
    command += ["--dataset", options.dataset, "--threads", str(options.threads), "--gpus", options.gpus]
    command += ["--proj_path", f"ltr/{settings.module_name}/{settings.variant}", "--arch", options.arch]
    if options.batch is not None:
        check_batch(options.batch)
        command += ["--batch", str(options.batch)]
    return [*command, "--ts_tag", options.ts_tag]


if __name__ == "__main__":
    run(main)
