"""The queue of (checkpoint, sequence) pairs: taken by whichever rank is free, done once, errors collected."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from config.console import Progress, say, warn
from config.environment import var_dir
from config.errors import UserError
from config.settings import Settings
from pysot_toolkit.datasets.base import Sequence as BenchmarkSequence
from pysot_toolkit.testing.batch import FAILURES, Batch, Run
from pysot_toolkit.testing.handout import Alone, Handout, State, Taken
from pysot_toolkit.testing.layouts import layout_of
from pysot_toolkit.testing.one_pass import Clip, OnePassTracker
from pysot_toolkit.testing.ranks import OwnError, check_gpus, choose_rank_device, cores, join_ranks
from pysot_toolkit.testing.results import (
    Origin,
    check_origin,
    note_origin,
    result_fault,
    result_file,
    result_root,
    write_result,
)
from pysot_toolkit.trackers.base import build_tracker
from pysot_toolkit.trackers.images import BadImage

_REDRAW_SECONDS = 0.5
_WAIT_SECONDS = 0.2  # between looks at what others still hold
_DEATHS = 2  # of ranks that held a sequence, until it counts as failed
_NETWORKS = 2  # that are held at once, where the sequences of one checkpoint end and those of the next begin


@dataclass(frozen=True)
class Candidate:
    """A checkpoint to test, and the name that its results get."""

    tracker: str
    checkpoint: Path


class Task(NamedTuple):
    """One entry of the queue."""

    candidate: Candidate
    sequence: Clip


class Failure(NamedTuple):
    """A sequence, or a whole checkpoint, that gave no result."""

    tracker: str
    what: str
    reason: str
    user: bool  # the user can mend it


@dataclass
class Outcome:
    """What a run of the queue did, the same on every rank."""

    finished: int = 0
    present: int = 0
    failures: list[Failure] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    speaks: bool = True  # whether this rank is the one that reports it

    @property
    def exit_code(self) -> int:
        """0; 2 when all that failed is the user's to mend; else 1."""
        if not self.failures:
            return 0
        return 2 if all(failure.user for failure in self.failures) else 1


class _Plan(NamedTuple):
    tasks: list[Task]
    origins: dict[str, Origin]  # by tracker name
    present: int
    failures: list[Failure]


BuildTracker = Callable[[str, Path, Settings, Any], OnePassTracker]


def run_queue(
    candidates: Callable[[], Sequence[Candidate]],
    open_sequences: Callable[[], Iterable[BenchmarkSequence]],
    dataset: str,
    arch: str,
    settings: Settings,
    gpus: Sequence[int] = (),
    build: BuildTracker | None = None,
) -> Outcome:
    """Test every checkpoint on every sequence, on as many ranks as ``mpiexec`` started.

    Each rank advances up to ``settings.testing.batch`` sequences together.

    Args:
        candidates, open_sequences: called on one rank; may raise ``UserError``.
        dataset: names the result folder and its layout.
        arch: registered name of the tracker.
        gpus: rank r takes the r-th of them (modulo); none: all that there are.
        build: makes the tracker; default ``pysot_toolkit.trackers.base.build_tracker``.

    Raises:
        UserError: before any sequence is tracked: wrong names, paths or devices, results of another origin.
    """
    var = var_dir(settings)
    with join_ranks(var) as ranks:

        def plan() -> _Plan:
            check_gpus(list(gpus), settings)
            chosen = candidates()
            for candidate in chosen:  # refuses names that cannot be files before anything is tracked
                result_file(var, dataset, candidate.tracker, "sequence")
            clips, failures = read_clips(open_sequences(), dataset)
            tasks, notices, present = missing_tasks(chosen, clips, var, dataset)
            origins = {
                candidate.tracker: check_origin(
                    var, dataset, candidate.tracker, arch, candidate.checkpoint, settings
                )
                for candidate in chosen
            }
            for notice in notices:
                warn(notice)
            return _Plan(tasks, origins, present, failures)

        agreed = ranks.agree(plan)
        worker = _Worker(ranks, agreed, dataset, arch, settings, list(gpus), build or build_tracker)
        finished, failures, unreadable = worker.work()
        speaks = ranks.speaks()
    return Outcome(finished, agreed.present, agreed.failures + failures, unreadable, speaks)


def check_batch(size: int) -> None:
    """Refuse what is no number of sequences.

    Raises:
        UserError: it is none.
    """
    if size < 1:
        raise UserError(f"--batch {size}: give the number of sequences that advance together, 1 or more")


def read_clips(sequences: Iterable[BenchmarkSequence], dataset: str) -> tuple[list[Clip], list[Failure]]:
    """The frames and true regions of each sequence; those whose files are broken are failures."""
    clips, failures = [], []
    for sequence in sequences:
        try:
            annotation = sequence.annotation
            clips.append(
                Clip(sequence.name, sequence.frames, sequence.init_bbox, annotation.bbox, annotation.polygon)
            )
        except UserError as error:
            failures.append(Failure(dataset, sequence.name, str(error), user=True))
    return clips, failures


def missing_tasks(
    candidates: Sequence[Candidate], sequences: Sequence[Clip], var: Path, dataset: str
) -> tuple[list[Task], list[str], int]:
    """What is left to do, notices on existing results that must be redone, and how many are done.

    Checkpoint by checkpoint, each with its longest sequence first: a rank that goes on to the next
    checkpoint loads it once, and what comes last in the queue is short, so all ranks end together.
    """
    tasks, notices, present = [], [], 0
    for candidate in candidates:
        for sequence in sorted(sequences, key=lambda s: (-len(s.frames), s.name)):
            fault = result_fault(var, dataset, candidate.tracker, sequence.name, len(sequence.frames))
            if fault is None:
                present += 1
                continue
            tasks.append(Task(candidate, sequence))
            if fault:
                notices.append(f"{fault}; tracking it again")
    return tasks, notices, present


def report(outcome: Outcome, dataset: str, settings: Settings) -> int:
    """Say what was done and what was not, on one rank; the exit code.

    Frames that could not be read are counted and named; each failure is one line on stderr.

    Raises:
        UserError: a single mistake kept everything from being done.
    """
    if len(outcome.failures) == 1 and not outcome.finished and outcome.failures[0].user:
        raise OwnError(outcome.failures[0].reason)
    for message in outcome.unreadable:
        warn(f"{message}; the frame keeps the last box")
    done = f"{outcome.finished} sequences tracked"
    if outcome.present:
        done += f", {outcome.present} were there"
    if outcome.unreadable:
        done += f", {len(outcome.unreadable)} unreadable frames"
    say(f"{done}: {result_root(var_dir(settings), dataset)}")
    for failure in outcome.failures:
        warn(f"{failure.tracker}, {failure.what}: {failure.reason}")
    if outcome.failures:
        warn(f"{len(outcome.failures)} failed; the same command does only what is missing")
    return outcome.exit_code


@dataclass
class _Active:
    """A task in progress."""

    number: int
    task: Task
    run: Run
    alone: bool  # a rank has died holding it
    counted: int = 0  # frames


class _Worker:
    """One rank at the queue."""

    def __init__(
        self,
        ranks: Alone | Handout,
        plan: _Plan,
        dataset: str,
        arch: str,
        settings: Settings,
        gpus: list[int],
        build: BuildTracker,
    ) -> None:
        self.ranks, self.dataset, self.arch = ranks, dataset, arch
        self.tasks, self.origins = plan.tasks, plan.origins
        self.settings, self.build = settings, build
        self.var = var_dir(settings)
        self.device = choose_rank_device(gpus, settings, ranks.rank, ranks.size) if plan.tasks else None
        # No rank takes more than its share, so that none is idle from the start.
        self.size = min(settings.testing.batch, math.ceil(len(plan.tasks) / ranks.size))
        self._active: list[_Active] = []
        # Those in use; in place of one that does not load, why.
        self._trackers: dict[Candidate, OnePassTracker | Failure] = {}
        self._next: Taken | None = None  # from the queue, not begun yet
        self._pending = 0  # frames not yet told to the others
        self._shown = 0
        self._last = 0.0
        self._progress: Progress | None = None
        ranks.open(len(plan.tasks))

    def work(self) -> tuple[int, list[Failure], list[str]]:
        """Take tasks until all are settled; what all ranks did together."""
        try:
            if self.tasks:
                with Batch(self.size, max(1, min(self.size, cores() // self.ranks.size))) as batch:
                    while self.ranks.settled() < len(self.tasks):
                        self._begin_more(batch)
                        while self._active:
                            batch.step([active.run for active in self._active if active.run.going])
                            self._write()
                            self._begin_more(batch)
                        self._show()
                        if self.ranks.settled() < len(self.tasks):
                            time.sleep(_WAIT_SECONDS)  # another rank may die with what it holds
        finally:
            if self._progress is not None:
                self._progress.close()
        notes = self.ranks.notes()
        # A checkpoint that does not load fails for all its sequences: one line is enough.
        failures = dict.fromkeys(Failure(**note["failed"]) for note in notes if "failed" in note)
        unreadable = [message for note in notes for message in note.get("unreadable", ())]
        return self.ranks.finished(), list(failures), unreadable

    def _begin_more(self, batch: Batch) -> None:
        """Fill the batch from the queue."""
        while len(self._active) < self.size and (taken := self._take()) is not None:
            task = self.tasks[taken.number]
            if taken.deaths and self._is_settled(taken):
                continue
            if task.candidate not in self._trackers:
                self._trackers[task.candidate] = self._load(task.candidate)
            tracker = self._trackers[task.candidate]
            if isinstance(tracker, Failure):
                self._settle(taken.number, len(task.sequence.frames), tracker)
                continue
            if self.ranks.rank == 0 and self._progress is None:
                total = sum(len(other.sequence.frames) for other in self.tasks)
                self._progress = Progress(total, "test", "frames")
            run = batch.begin(tracker, task.sequence, layout_of(self.dataset).course)
            self._active.append(_Active(taken.number, task, run, taken.deaths > 0))

    def _take(self) -> Taken | None:
        """The next task of the queue, unless there is no room yet for its network, or a rank has died holding it.

        Such a task is tracked by itself, so that no other can be blamed where it kills this rank too.
        """
        if self._next is None and not any(active.alone for active in self._active):
            self._next = self.ranks.take()
        if self._next is None or (self._next.deaths and self._active):
            return None
        candidate = self.tasks[self._next.number].candidate
        used = {active.task.candidate for active in self._active}
        if candidate not in used and len(used) >= _NETWORKS:
            return None
        self._trackers = {c: t for c, t in self._trackers.items() if c in used or c == candidate}
        taken, self._next = self._next, None
        return taken

    def _is_settled(self, taken: Taken) -> bool:
        """Whether nothing is to be done: a rank died after it had written the result, or too many have died of it."""
        candidate, sequence = self.tasks[taken.number]
        label, frames = candidate.tracker, len(sequence.frames)
        if result_fault(self.var, self.dataset, label, sequence.name, frames) is None:
            self._settle(taken.number, frames)
        elif taken.deaths >= _DEATHS:
            reason = f"{taken.deaths} ranks were killed while they tracked it; is there memory enough?"
            self._settle(taken.number, frames, Failure(label, sequence.name, reason, user=False))
        else:
            return False
        return True

    def _load(self, candidate: Candidate) -> OnePassTracker | Failure:
        try:
            return self.build(self.arch, candidate.checkpoint, self.settings, self.device)
        except FAILURES as error:
            return _failure(candidate.tracker, "all its missing sequences", error)

    def _write(self) -> None:
        """Count what the batch has passed, and write down the sequences that have come to their end."""
        for active in self._active:
            passed = active.run.passed
            if active.run.going:
                self._count(passed - active.counted)
            else:
                self._finish(active, passed - active.counted)
            active.counted = passed
        self._active = [active for active in self._active if active.run.going]

    def _finish(self, active: _Active, frames: int) -> None:
        (candidate, sequence), run = active.task, active.run
        label, error = candidate.tracker, run.error
        unreadable: list[str] = []
        if run.result is not None:
            try:
                note_origin(self.var, self.dataset, label, self.origins[label])
                write_result(self.var, self.dataset, label, sequence.name, run.result)
            except FAILURES as problem:
                error = problem
            else:
                unreadable = [f"{sequence.name}: {message}" for message in run.result.unreadable]
        failure = None if error is None else _failure(label, sequence.name, error)
        self._settle(active.number, frames, failure, unreadable)

    def _settle(
        self, number: int, frames: int, failure: Failure | None = None, unreadable: Sequence[str] = ()
    ) -> None:
        """Tell all ranks that a task is behind us, and count its last frames."""
        if failure is not None:
            self.ranks.settle(number, State.FAILED, {"failed": failure._asdict()})
        else:
            self.ranks.settle(
                number, State.FINISHED, {"unreadable": list(unreadable)} if unreadable else None
            )
        self._pending += frames
        self._show()

    def _count(self, frames: int) -> None:
        self._pending += frames
        if time.monotonic() - self._last >= _REDRAW_SECONDS:
            self._show()

    def _show(self) -> None:
        self._last = time.monotonic()
        self.ranks.count(self._pending)
        self._pending = 0
        if self._progress is None:
            return
        tracked = self.ranks.frames()
        self._progress.update(tracked - self._shown, sequences=f"{self.ranks.settled()}/{len(self.tasks)}")
        self._shown = tracked


def _failure(tracker: str, what: str, error: BaseException) -> Failure:
    user = isinstance(error, (UserError, BadImage, OSError))
    reason = " ".join(str(error).split())
    return Failure(tracker, what, reason if user else f"{type(error).__name__}: {reason}", user)
