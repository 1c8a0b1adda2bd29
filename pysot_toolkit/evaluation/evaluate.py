"""From result files and a benchmark to a report: the one call behind ``scripts/eval.py``."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from config.console import Progress
from config.environment import var_dir
from config.errors import UserError
from config.settings import Settings
from pysot_toolkit.datasets import Benchmark, open_benchmark
from pysot_toolkit.evaluation.protocol import PROTOCOLS, Protocol, Runs, Scores, Truth
from pysot_toolkit.evaluation.report import Report, TrackerScores
from pysot_toolkit.evaluation.results import Fault, find_trackers, read_runs


def evaluate(
    settings: Settings,
    dataset: str,
    prefix: str = "",
    trackers: Iterable[str] | None = None,
    results: Path | None = None,
    processes: int = 1,
) -> Report:
    """Score trackers on a benchmark with the protocols its papers use.

    Args:
        settings: for the benchmark's folder and ``paths.var``.
        dataset: name of the benchmark; results lie in ``{results}/{dataset}/{tracker}``.
        prefix: all trackers whose name starts with it ...
        trackers: ... or exactly these.
        results: the root of the results, ``var/results`` if None.
        processes: that share the work; 1: this one does it.

    Raises:
        UserError: unknown benchmark, no results, no such tracker, ground truth that is not public.
    """
    benchmark = open_benchmark(dataset, settings)
    folder = (results if results is not None else var_dir(settings, "results")) / dataset
    names = find_trackers(folder, prefix, trackers)
    protocols: list[Protocol] = [PROTOCOLS.get(name)() for name in benchmark.layout.protocols]
    jobs = list(_jobs(benchmark, protocols, folder))
    sequences: dict[str, dict[str, dict[str, Scores]]] = {
        p.name: {name: {} for name in names} for p in protocols
    }
    faults: dict[str, list[Fault]] = {name: [] for name in names}
    work = functools.partial(_score, trackers=names, protocols=protocols)
    with Progress(len(jobs), f"evaluating {dataset}", "videos") as progress:
        for job, outcomes in zip(jobs, _spread(work, jobs, processes)):
            for name, outcome in zip(names, outcomes):
                faults[name] += outcome.faults
                for protocol_name, scores in outcome.scores.items():
                    sequences[protocol_name][name][job.truth.name] = scores
            progress.update()
    attributes = benchmark.attributes()
    table = {
        protocol.name: {
            name: _summary(protocol, sequences[protocol.name][name], attributes) for name in names
        }
        for protocol in protocols
    }
    return Report(
        dataset, str(benchmark.source), [sequence.name for sequence in benchmark], protocols, table, faults
    )


class _Job(NamedTuple):
    truth: Truth
    folder: Path
    names: list[str]
    extra_frames: bool


class _Outcome(NamedTuple):
    scores: dict[str, Scores]  # by protocol
    faults: list[Fault]


def _jobs(benchmark: Benchmark, protocols: list[Protocol], folder: Path) -> Iterator[_Job]:
    """One job per sequence; refuses benchmarks that publish the first box only."""
    needs_size = any(protocol.needs_image_size for protocol in protocols)
    annotated = False
    for sequence in benchmark:
        annotated = annotated or len(sequence.ground_truth) > 1
        size = sequence.image_size if needs_size else None
        truth = Truth(sequence.name, sequence.ground_truth, sequence.present, sequence.annotation.cover, size)
        yield _Job(truth, folder, benchmark.layout.result_names(sequence.name), sequence.extra_frames)
    if not annotated:
        raise UserError(
            f"{benchmark.source}: only the first frames of {benchmark.name} are annotated;"
            f" its evaluation server scores the results in {folder}"
        )


def _spread(work, jobs: list[_Job], processes: int) -> Iterator[list[_Outcome]]:
    if processes <= 1 or len(jobs) <= 1:
        yield from map(work, jobs)
        return
    # A fresh interpreter per worker: the caller may hold threads and devices that a fork would break.
    with ProcessPoolExecutor(min(processes, len(jobs)), multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, jobs, chunksize=max(1, len(jobs) // (4 * processes)))


def _score(job: _Job, trackers: list[str], protocols: list[Protocol]) -> list[_Outcome]:
    """All trackers on one sequence; each result file is read once."""
    outcomes = []
    for tracker in trackers:
        runs, faults = read_runs(job.folder / tracker, job.names, len(job.truth.bbox), job.extra_frames)
        scores = {}
        for protocol in protocols:
            if runs is None and not protocol.missing_is_zero:
                continue
            with np.errstate(invalid="ignore", over="ignore"):  # a tracker may write NaN and infinity: misses
                scores[protocol.name] = protocol.score(job.truth, runs or Runs([np.empty((0, 4))]))
        outcomes.append(_Outcome(scores, faults))
    return outcomes


def _summary(
    protocol: Protocol, sequences: dict[str, Scores], attributes: dict[str, list[str]]
) -> TrackerScores:
    overall = protocol.summarise(list(sequences.values())) if sequences else None
    by_attribute = {}
    for attribute, names in attributes.items():
        carried = [sequences[name] for name in names if name in sequences]
        if carried:
            by_attribute[attribute] = protocol.summarise(carried)
    counts = {attribute: sum(name in sequences for name in names) for attribute, names in attributes.items()}
    return TrackerScores(overall, by_attribute, counts, sequences)
