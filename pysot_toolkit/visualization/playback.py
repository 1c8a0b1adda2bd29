"""Watching trackers at work: overlay videos or contact sheets from the result files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from config.console import Progress
from config.environment import var_dir
from config.errors import UserError
from config.settings import Settings
from pysot_toolkit.datasets import Benchmark, open_benchmark
from pysot_toolkit.datasets import Sequence as Video
from pysot_toolkit.evaluation.protocol import RESULT_READERS
from pysot_toolkit.evaluation.results import find_trackers
from pysot_toolkit.visualization.overlay import MAX_TRACKERS, contact_sheet, overlay_video


def play(
    settings: Settings,
    dataset: str,
    trackers: Sequence[str],
    videos: Sequence[str] = (),
    results: Path | None = None,
    sheet: bool = False,
) -> Iterator[Path]:
    """Write ``var/reports/{dataset}/playback/{video}.mp4`` (``.png`` with ``sheet``) and yield each path.

    Args:
        settings: for the benchmark's folder and ``paths.var``.
        dataset: name of the benchmark.
        trackers: whose boxes are drawn, at most ``MAX_TRACKERS``; none: the truth alone.
        videos: names; none: all of the benchmark.
        results: the root of the results, ``var/results`` if None.
        sheet: contact sheets instead of videos.

    Raises:
        UserError: an unknown name, a tracker without a result for a video, images that cannot be read.
    """
    benchmark = open_benchmark(dataset, settings)
    chosen = [benchmark[name] for name in videos] or benchmark.sequences
    if len(trackers) > MAX_TRACKERS:
        raise UserError(
            f"-t: {len(trackers)} trackers; one picture can tell {MAX_TRACKERS} apart, give fewer"
        )
    folder = (results if results is not None else var_dir(settings, "results")) / dataset
    if trackers:
        find_trackers(folder, names=trackers)
    target = var_dir(settings, "reports", dataset, "playback")
    with Progress(len(chosen), f"drawing {dataset}", "videos") as progress:
        for video in chosen:
            boxes = {name: predicted_boxes(benchmark, video, folder / name) for name in trackers}
            if sheet:
                yield contact_sheet(target / f"{video.name}.png", video, boxes)
            else:
                yield overlay_video(target / f"{video.name}.mp4", video, boxes)
            progress.update()


def predicted_boxes(benchmark: Benchmark, video: Video, folder: Path) -> np.ndarray:
    """The boxes (x, y, w, h) px of a tracker's first run on a video, ``[n, 4]``; NaN where it gave none.

    Raises:
        UserError: ``folder`` has no result for the video, or one without boxes.
    """
    read = RESULT_READERS.get(benchmark.layout.results)
    frames = len(video.ground_truth)
    runs, faults = read(folder, benchmark.layout.result_names(video.name), frames, video.extra_frames)
    if runs is None:
        fault = faults[0]
        raise UserError(f"{fault.path}: {fault.detail}; run scripts/test.py for it or leave the tracker out")
    if not runs.boxes:
        raise UserError(f"{folder}: its results for '{video.name}' are masks; boxes alone are drawn")
    return runs.boxes[0]
