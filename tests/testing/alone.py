"""One sequence taken to its end by the loop that testing uses."""

from __future__ import annotations

from collections.abc import Callable

from pysot_toolkit.testing.batch import Batch
from pysot_toolkit.testing.one_pass import Clip, MakeCourse, OnePassTracker, TrackResult, one_pass


def run_alone(
    tracker: OnePassTracker,
    sequence: Clip,
    on_frames: Callable[[int], None] = lambda passed: None,
    course: MakeCourse = one_pass,
) -> TrackResult:
    """What the tracker says of the sequence; its error is raised. ``on_frames`` hears how many frames are behind it."""
    with Batch(1, 1) as batch:
        run = batch.begin(tracker, sequence, course)
        while run.going:
            batch.step([run])
            on_frames(run.passed)
    if run.error is not None:
        raise run.error
    assert run.result is not None
    return run.result
