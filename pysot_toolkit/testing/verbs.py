"""What ``test.py`` and ``test_epochs.py`` do once their options are read."""

from __future__ import annotations

import argparse
import sys

from config.console import warn
from config.environment import var_dir
from config.settings import Settings
from pysot_toolkit.datasets.base import Benchmark
from pysot_toolkit.datasets.benchmarks import open_benchmark
from pysot_toolkit.testing.checkpoints import epoch_range, find_checkpoint, find_epochs, tracker_name
from pysot_toolkit.testing.launch import run_ranks, script, under_mpi
from pysot_toolkit.testing.layouts import layout_of
from pysot_toolkit.testing.queue import Candidate, check_batch, report, run_queue
from pysot_toolkit.testing.ranks import check_gpus, launched_size, parse_gpus
from pysot_toolkit.trackers.base import TRACKERS


def run_test(options: argparse.Namespace, settings: Settings) -> int:
    """Test one checkpoint on a benchmark or one of its sequences; draw what it did where asked.

    Options: ``dataset``, ``arch``, ``batch``, ``resume``, ``name``, ``video``, ``vis``.
    """
    _take_batch(options, settings)
    TRACKERS.get(options.arch)
    layout_of(options.dataset)
    checkpoint = find_checkpoint(options.resume, settings)
    name = options.name or tracker_name(checkpoint)
    benchmark = open_benchmark(options.dataset, settings)
    videos = [benchmark[options.video]] if options.video else benchmark.sequences
    outcome = run_queue(
        lambda: [Candidate(name, checkpoint)], lambda: videos, options.dataset, options.arch, settings
    )
    if not outcome.speaks:
        return 0
    code = report(outcome, options.dataset, settings)
    if options.vis:
        from pysot_toolkit.testing.pictures import draw_results

        draw_results(var_dir(settings), options.dataset, name, videos, video=bool(options.video))
    return code


def run_test_epochs(options: argparse.Namespace, settings: Settings) -> int:
    """Test the checkpoints of several epochs of a variant.

    Started plainly with ``--threads`` over 1, it starts itself again under ``mpiexec``.
    Options: ``interval``, ``start_epoch``, ``end_epoch``, ``dataset``, ``threads``, ``gpus``,
    ``proj_path``, ``arch``, ``batch``, ``ts_tag``.
    """
    _take_batch(options, settings)
    epochs = epoch_range(options.start_epoch, options.end_epoch, options.interval)
    gpus = parse_gpus(options.gpus)
    command = under_mpi([*script("test_epochs.py"), *sys.argv[1:]], options.threads)
    TRACKERS.get(options.arch)
    layout_of(options.dataset)
    candidates, missing = find_epochs(options.proj_path, epochs, options.ts_tag, settings)

    def benchmark() -> Benchmark:
        return open_benchmark(options.dataset, settings)

    if launched_size() == 0 and options.threads > 1:
        check_gpus(gpus, settings)
        benchmark()
        return run_ranks(command)
    outcome = run_queue(lambda: candidates, benchmark, options.dataset, options.arch, settings, gpus)
    if not outcome.speaks:
        return 0
    code = report(outcome, options.dataset, settings)
    if missing:
        warn(
            f"{var_dir(settings, 'checkpoints', options.proj_path)}: no checkpoint with tag {options.ts_tag} "
            f"of epoch {', '.join(map(str, missing))}; the others were tested"
        )
    return code or (2 if missing else 0)


def _take_batch(options: argparse.Namespace, settings: Settings) -> None:
    """``--batch`` in its place among the settings."""
    if options.batch is not None:
        settings.testing.batch = options.batch
    check_batch(settings.testing.batch)
