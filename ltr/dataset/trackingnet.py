"""TrackingNet: Mueller et al., A Large-Scale Dataset and Benchmark for Tracking in the Wild, ECCV 2018."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from config.errors import UserError
from ltr.data_specs.splits import parse_ranges
from ltr.dataset.annotation_files import check_sizes, read_boxes
from ltr.dataset.base import DATASETS, Annotation, Video, VideoDataset, subfolders

_SETS = range(12)
_INTEGER_TOLERANCE = 0.01
"""A box counts as human-made when its numbers are at most this far from integers, all four together."""


@DATASETS.register("TrackingNet")
class TrackingNet(VideoDataset):
    """``TRAIN_{set}/frames/{id}/{n}.jpg``, counted from 0, and ``TRAIN_{set}/anno/{id}.txt``.

    Splits: a selection of the sets 0 to 11 such as ``0``, ``0-3`` or ``0,1,2,3`` (the same as
    ``0-3``), or ``all``, the sets that are in the folder.

    A frame is visible when its box has a size. People labelled one frame per second, with whole
    numbers; the boxes between come from a tracker.
    """

    name = "TrackingNet"
    splits = ("0-3", "0", "all")

    @staticmethod
    def sequence_key(set_id: int, sequence: str) -> str:
        """Set 0 and an id as ``TrackingNet_00_{id}``."""
        return f"TrackingNet_{set_id:02d}_{sequence}"

    @classmethod
    def canonical_split(cls, split: str) -> str:
        if split == "all":
            return split
        numbers = cls._numbers(split)
        # Runs of three and more become ranges, so that 0,1,2,3 and 0-3 name the same files.
        runs: list[list[int]] = []
        for number in numbers:
            if runs and number == runs[-1][-1] + 1:
                runs[-1].append(number)
            else:
                runs.append([number])
        return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)

    @classmethod
    def split_parts(cls, split: str) -> list[str]:
        return [split] if split == "all" else [str(number) for number in cls._numbers(split)]

    @classmethod
    def _numbers(cls, split: str) -> list[int]:
        try:
            numbers = sorted(set(parse_ranges(split)))
        except ValueError as error:
            raise UserError(
                f"split '{split}' of TrackingNet: {error}; give sets such as 0, 0-3, 0,1,2,3 or all"
            ) from error
        if numbers[-1] not in _SETS:
            raise UserError(
                f"split '{split}' of TrackingNet: there is no set {numbers[-1]}, only 0 to {_SETS[-1]}"
            )
        return numbers

    def _find_videos(self, cache_dir: Path) -> list[Video]:
        numbers = (
            [n for n in _SETS if (self.root / f"TRAIN_{n}").is_dir()]
            if self.split == "all"
            else self._numbers(self.split)
        )
        videos = []
        for number in numbers:
            folder = f"{self.root}/TRAIN_{number}"
            for name in sorted(subfolders(f"{folder}/frames")):
                videos.append(
                    Video(
                        self.sequence_key(number, name),
                        f"{folder}/frames/{name}",
                        f"{folder}/anno/{name}.txt",
                    )
                )
        return videos

    def _read_annotation(self, video: Video, count: int) -> Annotation:
        bbox = read_boxes(Path(video.labels), count)
        return Annotation(bbox, check_sizes(Path(video.labels), bbox, np.zeros(count, dtype=bool)))

    def human_labels(self, annotation: Annotation) -> np.ndarray:
        """Which boxes have whole numbers, as bool ``[N]``: those that a person drew."""
        return np.abs(annotation.bbox - np.round(annotation.bbox)).sum(axis=1) <= _INTEGER_TOLERANCE
