"""From result files and a benchmark to a report: the one call behind ``scripts/eval.py``."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from config.console import Progress
from config.environment import var_dir
from config.errors import UserError
from config.settings import Settings
from pysot_toolkit.datasets import Benchmark, open_benchmark
from pysot_toolkit.evaluation.ope import overlaps
from pysot_toolkit.evaluation.protocol import (
    PROTOCOLS,
    RESULT_READERS,
    Protocol,
    Runs,
    Scores,
    Truth,
    Unscorable,
)
from pysot_toolkit.evaluation.report import Report, TrackerScores
from pysot_toolkit.evaluation.results import Fault, find_trackers, foreign_results, refuse_faults


def evaluate(
    settings: Settings,
    dataset: str,
    prefix: str = "",
    trackers: Iterable[str] | None = None,
    results: Path | None = None,
    processes: int = 1,
    protocols: Sequence[str] = (),
    allow_missing: bool = False,
    keep_overlaps: bool = False,
    each_run: bool = False,
    against: str | None = None,
) -> Report:
    """Score trackers on a benchmark.

    Args:
        settings: for the benchmark's folder and ``paths.var``.
        dataset: name of the benchmark; results lie in ``{results}/{dataset}/{tracker}``.
        prefix: all trackers whose name starts with it ...
        trackers: ... or exactly these.
        results: the root of the results, ``var/results`` if None.
        processes: that share the work; 1: this one does it.
        protocols: by name, the first one ranks; ``("all",)``: every one that can score this benchmark;
            none: those its papers use.
        allow_missing: go on with what is missing or broken, averaging over what exists.
        keep_overlaps: fill ``Report.overlaps``.
        each_run: fill ``Report.repetitions``.
        against: a tracker that is scored too, whatever ``prefix`` says, to compare the others with.

    Raises:
        UserError: unknown benchmark or protocol, no results, no such tracker, ground truth that is not
            public, faulty results without ``allow_missing`` (each is named on the terminal).
    """
    benchmark = open_benchmark(dataset, settings)
    folder = (results if results is not None else var_dir(settings, "results")) / dataset
    names = find_trackers(folder, prefix, trackers)
    if against is not None and against not in names:
        names += find_trackers(folder, names=[against])
    chosen = choose_protocols(benchmark, protocols)
    jobs = list(_jobs(benchmark, chosen, folder))
    sequences: dict[str, dict[str, dict[str, Scores]]] = {
        p.name: {name: {} for name in names} for p in chosen
    }
    faults: dict[str, list[Fault]] = {name: [] for name in names}
    traces: dict[str, dict[str, np.ndarray]] = {name: {} for name in names}
    # protocol -> tracker -> one list per repetition with the scores of its sequences
    repeats: dict[str, dict[str, list[list[Scores]]]] = {p.name: {name: [] for name in names} for p in chosen}
    work = functools.partial(
        _score, trackers=names, protocols=chosen, keep_overlaps=keep_overlaps, each_run=each_run
    )
    with Progress(len(jobs), f"evaluating {dataset}", "videos") as progress:
        for job, outcomes in zip(jobs, _spread(work, jobs, processes)):
            for name, outcome in zip(names, outcomes):
                faults[name] += outcome.faults
                for protocol_name, scores in outcome.scores.items():
                    sequences[protocol_name][name][job.truth.name] = scores
                for protocol_name, each in outcome.repeats.items():
                    runs = repeats[protocol_name][name]
                    runs += [[] for _ in range(len(each) - len(runs))]
                    for run, scores in zip(runs, each):
                        run.append(scores)
                if outcome.overlap is not None:
                    traces[name][job.truth.name] = outcome.overlap
            progress.update()
    for name in names:
        faults[name] = foreign_results(folder / name, faults[name], len(jobs))
    if not allow_missing:
        refuse_faults(faults)
    attributes = benchmark.attributes()
    table = {
        protocol.name: {
            name: _summary(protocol, sequences[protocol.name][name], attributes) for name in names
        }
        for protocol in chosen
    }
    return Report(
        dataset,
        str(benchmark.source),
        [sequence.name for sequence in benchmark],
        chosen,
        table,
        faults,
        traces,
        {
            protocol.name: {
                name: [protocol.summarise(run) for run in runs]
                for name, runs in repeats[protocol.name].items()
                if runs
            }
            for protocol in chosen
        },
    )


def choose_protocols(benchmark: Benchmark, names: Sequence[str]) -> list[Protocol]:
    """The protocols of these names; see ``evaluate``.

    Raises:
        UserError: unknown, or one that cannot score this benchmark's kind of results.
    """
    layout = benchmark.layout
    if not names:
        return [PROTOCOLS.get(name)() for name in layout.protocols]
    if tuple(names) == ("all",):
        every = [PROTOCOLS.get(name)() for name in PROTOCOLS.names()]
        suited = [protocol for protocol in every if _suits(protocol, benchmark)]
        usual = list(layout.protocols)
        return sorted(
            suited, key=lambda protocol: usual.index(protocol.name) if protocol.name in usual else len(usual)
        )
    chosen: list[Protocol] = [PROTOCOLS.get(name)() for name in names]
    for protocol in chosen:
        if not _suits(protocol, benchmark):
            able = [name for name in PROTOCOLS.names() if _suits(PROTOCOLS.get(name)(), benchmark)]
            raise UserError(
                f"--protocol {protocol.name}: cannot score {benchmark.name}; those that can: {', '.join(able)}"
            )
    return chosen


def _suits(protocol: Protocol, benchmark: Benchmark) -> bool:
    if benchmark.layout.results not in protocol.results:
        return False
    return not protocol.needs_cover or next(iter(benchmark)).annotation.cover is not None


class _Job(NamedTuple):
    truth: Truth
    folder: Path
    layout: str
    names: list[str]
    extra_frames: bool


class _Outcome(NamedTuple):
    scores: dict[str, Scores]  # by protocol
    faults: list[Fault]
    overlap: np.ndarray | None  # float32 [N]
    repeats: dict[str, list[Scores]]  # by protocol, one for each of several repetitions


def _jobs(benchmark: Benchmark, protocols: list[Protocol], folder: Path) -> Iterator[_Job]:
    """One job per sequence; refuses benchmarks that publish the first box only."""
    needs_size = any(protocol.needs_image_size for protocol in protocols)
    annotated = False
    layout = benchmark.layout
    for sequence in benchmark:
        annotation = sequence.annotation
        annotated = annotated or max(len(annotation.bbox), len(annotation.masks)) > 1
        truth = Truth(
            sequence.name,
            annotation.bbox,
            annotation.present,
            annotation.cover,
            sequence.image_size if needs_size else None,
            benchmark.name,
            annotation.polygon,
            annotation.tags,
            annotation.masks,
        )
        yield _Job(truth, folder, layout.results, layout.result_names(sequence.name), sequence.extra_frames)
    if not annotated:
        raise UserError(
            f"{benchmark.source}: only the first frames of {benchmark.name} are annotated;"
            f" its evaluation server scores the results in {folder} (eval.py --pack writes the archive for it)"
        )


def _spread(work, jobs: list[_Job], processes: int) -> Iterator[list[_Outcome]]:
    if processes <= 1 or len(jobs) <= 1:
        yield from map(work, jobs)
        return
    # A fresh interpreter per worker: the caller may hold threads and devices that a fork would break.
    with ProcessPoolExecutor(min(processes, len(jobs)), multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, jobs, chunksize=max(1, len(jobs) // (4 * processes)))


def _score(
    job: _Job, trackers: list[str], protocols: list[Protocol], keep_overlaps: bool, each_run: bool
) -> list[_Outcome]:
    """All trackers on one sequence; each result file is read once."""
    read = RESULT_READERS.get(job.layout)
    outcomes = []
    for tracker in trackers:
        frames = max(len(job.truth.bbox), len(job.truth.masks))
        runs, faults = read(job.folder / tracker, job.names, frames, job.extra_frames)
        scores: dict[str, Scores] = {}
        repeats: dict[str, list[Scores]] = {}
        several = range(runs.repetitions) if each_run and runs is not None and runs.repetitions > 1 else ()
        for protocol in protocols:
            if runs is None and not protocol.missing_is_zero:
                continue
            try:
                with np.errstate(
                    invalid="ignore", over="ignore"
                ):  # a tracker may write NaN, infinity: misses
                    scores[protocol.name] = protocol.score(job.truth, runs or Runs([np.empty((0, 4))]))
                    if runs is not None and several:
                        repeats[protocol.name] = [
                            protocol.score(job.truth, runs.repetition(number)) for number in several
                        ]
            except Unscorable as refusal:
                faults.append(Fault(job.truth.name, refusal.kind, "", f"{protocol.name}: {refusal}"))
        overlap = _overlap(job.truth, runs) if keep_overlaps and runs is not None and runs.boxes else None
        outcomes.append(_Outcome(scores, faults, overlap, repeats))
    return outcomes


def _overlap(truth: Truth, runs: Runs) -> np.ndarray:
    """Overlap of the first repetition in each annotated frame, float32 ``[N]``; NaN where there is no truth
    or no target to be seen, 0 where there is no prediction.
    """
    shown = min(len(truth.bbox), len(runs.boxes[0]))
    overlap = np.zeros(len(truth.bbox), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        overlap[:shown] = np.nan_to_num(overlaps(truth.bbox[:shown], runs.boxes[0][:shown]), nan=0.0)
    hidden = ~(truth.bbox[:, 2:] > 0).all(axis=1)
    if truth.present is not None:
        hidden |= ~truth.present
    overlap[hidden] = np.nan
    return overlap


def _summary(
    protocol: Protocol, sequences: dict[str, Scores], attributes: dict[str, list[str]]
) -> TrackerScores:
    if not sequences:
        return TrackerScores(None, {}, {}, {})
    by_attribute = protocol.by_attribute(sequences, attributes)
    return TrackerScores(
        protocol.summarise(list(sequences.values())),
        {attribute: scores for attribute, (scores, _) in by_attribute.items()},
        {attribute: count for attribute, (_, count) in by_attribute.items()},
        sequences,
    )
