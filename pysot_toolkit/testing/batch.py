"""Several sequences of any length that advance together, frame by frame.

Images are read, and crops cut, by a pool of threads: the next frames while the network sees the present ones.
Trackers that can (``BatchTracker``) answer for all their sequences in one call of their network, others one after
the other. What happens to a sequence depends neither on its neighbours nor on their number.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np

from config.console import warn
from config.errors import UserError
from pysot_toolkit.testing.one_pass import (
    Clip,
    Follow,
    MakeCourse,
    OnePassTracker,
    Seen,
    Start,
    TrackResult,
)
from pysot_toolkit.trackers.base import BatchTracker, in_calls, twin
from pysot_toolkit.trackers.images import BadImage, read_image

# What may go wrong with one sequence or one checkpoint while the others are fine: damaged files, a full disk,
# memory, numbers. Mistakes in the code (TypeError, AttributeError, NameError) stop the run instead.
FAILURES = (UserError, BadImage, OSError, RuntimeError, ValueError, LookupError, ArithmeticError, cv2.error)


class Run:
    """A tracker at work on one sequence, and what it has said so far.

    A frame that cannot be read keeps the last box, with score 0, and is named in the result.

    Args:
        origin: the tracker that ``tracker`` is a twin of, or itself.
        tracker: this sequence's own.
        course: what it is to do.
        readers: read the images.

    Attributes:
        ask: what the course asks for next.
        result: once it has come to its end.
        error: once it has failed.
    """

    def __init__(
        self,
        origin: OnePassTracker,
        tracker: Any,
        sequence: Clip,
        course: MakeCourse,
        readers: Executor,
    ) -> None:
        count = len(sequence.frames)
        self.origin, self.tracker, self.sequence = origin, tracker, sequence
        self.result: TrackResult | None = None
        self.error: Exception | None = None
        self.ask: Start | Follow
        self._bboxes, self._scores = np.full((count, 4), np.nan), np.zeros(count)
        self._seconds = np.zeros(count)
        self._unreadable: list[str] = []
        self._size = (0, 0)
        self._course, self._readers = course(sequence), readers
        self._ahead: tuple[int, Future[np.ndarray | BadImage]] | None = None
        self._advance(None)

    @property
    def going(self) -> bool:
        """Whether it asks for more."""
        return self.result is None and self.error is None

    @property
    def passed(self) -> int:
        """How many frames are behind it."""
        return self.ask.frame if self.going else len(self.sequence.frames)

    @contextlib.contextmanager
    def costing_only_itself(self) -> Iterator[None]:
        """A failure of the ``with`` block ends this run, and no other."""
        try:
            yield
        except FAILURES as error:
            self.error = error
            self._course.close()

    def image(self) -> np.ndarray | BadImage:
        """The frame that is asked for, RGB uint8 ``[H, W, 3]``; waits until it is read."""
        self.read_ahead(self.ask.frame)
        assert self._ahead is not None
        image = self._ahead[1].result()
        self._ahead = None
        if not isinstance(image, BadImage):
            self._size = (image.shape[1], image.shape[0])
        return image

    def read_ahead(self, index: int) -> None:
        """Have frame ``index`` read, if there is one."""
        if index < len(self.sequence.frames) and (self._ahead is None or self._ahead[0] != index):
            self._ahead = (index, self._readers.submit(_read, self.sequence.frames[index]))

    def start(self, bbox: np.ndarray, image: np.ndarray | BadImage) -> None:
        """Give the tracker its target: ``bbox`` ``[4]`` in the frame that is asked for.

        Raises:
            BadImage: the frame cannot be read.
            UserError: there is no usable box.
        """
        index, box = self.ask.frame, np.asarray(bbox, dtype=np.float64)
        if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= 0).any():
            raise UserError(
                f"sequence '{self.sequence.name}': its box {box.tolist()} of frame {index + 1} is no visible "
                "(x, y, w, h); mend its annotation"
            )
        if isinstance(image, BadImage):
            raise image
        begin = time.perf_counter()
        self.tracker.initialize(image, box.copy())
        self._note(box, 1.0, time.perf_counter() - begin)

    def skip(self, image: BadImage) -> None:
        """Keep the last box in a frame that cannot be read."""
        self._unreadable.append(str(image))
        self._note(self._bboxes[self.ask.frame - 1], 0.0, 0.0)

    def answer(self, prediction: tuple[Any, ...], seconds: float) -> None:
        """Take what the tracker says of the frame that is asked for, and how long it took.

        Raises:
            ValueError: its box is not four finite numbers.
        """
        bbox, score, *_ = prediction
        box = np.asarray(bbox, np.float64)
        if box.shape != (4,) or not np.isfinite(box).all():
            raise ValueError(f"the tracker's box of frame {self.ask.frame + 1} is {box.tolist()}")
        self._note(box, score, seconds)

    def _note(self, bbox: np.ndarray, score: float, seconds: float) -> None:
        index = self.ask.frame
        self._bboxes[index], self._scores[index], self._seconds[index] = bbox, score, seconds
        self._advance(Seen(self._bboxes[index], self._size))

    def _advance(self, seen: Seen | None) -> None:
        """Learn what comes next."""
        with self.costing_only_itself():
            try:
                self.ask = next(self._course) if seen is None else self._course.send(seen)
            except StopIteration as end:
                self.result = TrackResult(
                    self._bboxes, self._scores, self._seconds, self._unreadable, end.value
                )
            else:
                self.read_ahead(self.ask.frame)


class Batch:
    """Sequences that advance together, and the threads that read and crop for them.

    Args:
        size: how many there are at most. Over 1, each is followed by a twin of the tracker that it is begun with.
        threads: how many.
    """

    def __init__(self, size: int, threads: int) -> None:
        self._size = size
        self._pool = ThreadPoolExecutor(threads)
        self._warned = False

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def begin(self, tracker: OnePassTracker, sequence: Clip, course: MakeCourse) -> Run:
        """A run that is about to start."""
        return Run(tracker, tracker if self._size == 1 else twin(tracker), sequence, course, self._pool)

    def step(self, runs: Sequence[Run]) -> None:
        """Take each run, all of which are ``going``, one frame further."""
        following: list[tuple[Run, np.ndarray]] = []
        for run in runs:
            with run.costing_only_itself():
                ask, image = run.ask, run.image()
                if isinstance(ask, Start):
                    run.start(ask.bbox, image)
                elif isinstance(image, BadImage):
                    run.skip(image)
                else:
                    following.append((run, image))
        self._follow_together([pair for pair in following if isinstance(pair[0].tracker, BatchTracker)])
        for run, image in following:
            if not isinstance(run.tracker, BatchTracker):
                run.read_ahead(run.ask.frame + 1)
                with run.costing_only_itself():
                    begin = time.perf_counter()
                    prediction = run.tracker.track(image)
                    run.answer(prediction, time.perf_counter() - begin)

    def _follow_together(self, following: Sequence[tuple[Run, np.ndarray]]) -> None:
        """Crops by the pool; for those of one network and shape one call of it; each tracker's answer."""
        if not following:
            return
        begin = time.perf_counter()
        groups = defaultdict(list)
        for run, image, crop in self._crops(following):
            groups[id(run.origin)].append((run, image, crop))
        answers = []
        for group in groups.values():
            for numbers in in_calls([crop for _, _, crop in group], group[0][0].tracker.device):
                answers += self._answers([group[n] for n in numbers])
        share = (time.perf_counter() - begin) / len(following)
        for run, prediction in answers:
            with run.costing_only_itself():
                run.answer(prediction, share)

    def _crops(self, following: Sequence[tuple[Run, np.ndarray]]) -> list[tuple[Run, np.ndarray, Any]]:
        """What the networks are to see, of all but those where that fails."""
        # One alone would only wait for a thread; the next frames come after the crops, so that these do not wait.
        several = len(following) > 1
        futures = [self._pool.submit(run.tracker.crop, image) for run, image in following] if several else []
        for run, _ in following:
            run.read_ahead(run.ask.frame + 1)
        found = []
        for number, (run, image) in enumerate(following):
            with run.costing_only_itself():
                crop = futures[number].result() if several else run.tracker.crop(image)
                found.append((run, image, crop))
        return found

    def _answers(self, group: Sequence[tuple[Run, np.ndarray, Any]]) -> list[tuple[Run, Any]]:
        """What the trackers of crops of one shape say, of all but those where that fails."""
        trackers = [run.tracker for run, _, _ in group]
        located: Sequence[Any] | np.ndarray | None = None
        try:
            located = trackers[0].locate(trackers, [crop for _, _, crop in group])
        except FAILURES as error:  # whose it is shows when each is asked alone
            if len(group) > 1 and not self._warned:
                self._warned = True
                warn(
                    f"{len(group)} sequences at once fail ({' '.join(str(error).split())}); they are tracked one after "
                    "the other where that happens, which a smaller --batch avoids"
                )
        found = []
        for number, (run, image, crop) in enumerate(group):
            with run.costing_only_itself():
                own = run.tracker.locate([run.tracker], [crop])[0] if located is None else located[number]
                found.append((run, run.tracker.move(own, image.shape[1], image.shape[0])))
        return found


def _read(path: str) -> np.ndarray | BadImage:
    try:
        return read_image(path)
    except BadImage as error:
        return error
