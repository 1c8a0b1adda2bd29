"""What a tracker did, to look at: a contact sheet per sequence, and a video where one sequence was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from config.console import say
from pysot_toolkit.datasets.base import Sequence as BenchmarkSequence
from pysot_toolkit.testing.results import read_boxes, result_fault, result_file
from pysot_toolkit.visualization.overlay import contact_sheet, overlay_video


def draw_results(
    var: Path, dataset: str, tracker: str, sequences: Sequence[BenchmarkSequence], video: bool
) -> list[Path]:
    """Pictures of the finished sequences under ``var/reports/{dataset}/{tracker}``; those are returned.

    Args:
        video: also an overlay video of each sequence.
    """
    folder, written = var / "reports" / dataset / tracker, []
    for sequence in sequences:
        if result_fault(var, dataset, tracker, sequence.name, len(sequence.frames)) is not None:
            continue  # it failed, and has been named
        boxes: dict[str, np.ndarray] = {
            tracker: read_boxes(result_file(var, dataset, tracker, sequence.name))
        }
        written.append(contact_sheet(folder / f"{sequence.name}.png", sequence, boxes))
        if video:
            written.append(overlay_video(folder / f"{sequence.name}.mp4", sequence, boxes))
    if written:
        say(f"{len(written)} pictures: {folder if len(written) > 2 else ', '.join(map(str, written))}")
    return written
