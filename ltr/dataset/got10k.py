"""GOT-10k: Huang, Zhao, Huang, A Large High-Diversity Benchmark for Generic Object Tracking, TPAMI 2021."""

from __future__ import annotations

import re
from pathlib import Path

from ltr.data_specs.splits import got10k_positions
from ltr.dataset.annotation_files import check_sizes, read_boxes, read_flags, read_names
from ltr.dataset.base import DATASETS, Annotation, Video, VideoDataset, subfolders


@DATASETS.register("GOT-10k")
class GOT10k(VideoDataset):
    """``train/list.txt``, ``train/{name}/``: images, ``groundtruth.txt``, ``absence.label``, ``cover.label``.

    Splits: ``train`` and ``val`` part the official *training* folder as LTR does, ``vottrain`` and
    ``votval`` are the same without the sequences that the VOT challenges forbid, ``all`` is the whole
    folder. The official *validation* folder ``val/`` is the split ``official_val``. The root may
    also be the folder ``train`` itself.

    The published splits are positions in the complete ``list.txt``. In a smaller copy sequence
    ``GOT-10k_Train_{n}`` counts as position n - 1, where it stands in the complete list. Sequences
    that the list names and the folder lacks are left out.

    A frame is visible when its box has a size, the target is not absent and its cover is above 0.
    """

    name = "GOT-10k"
    splits = ("train", "val", "vottrain", "votval", "all", "official_val")

    @staticmethod
    def sequence_key(sequence: str) -> str:
        """The folder name itself, ``GOT-10k_Train_000001``."""
        return sequence

    def _find_videos(self, cache_dir: Path) -> list[Video]:
        part = "val" if self.split == "official_val" else "train"
        folder = self.root / part if (self.root / part).is_dir() or part == "val" else self.root
        present = set(subfolders(folder))
        list_file = folder / "list.txt"
        if list_file.exists():
            self.list_file = list_file
            names = read_names(list_file)
        else:
            names = sorted(n for n in present if n.startswith("GOT-10k_"))
        if self.split not in ("all", "official_val"):
            names = _select(names, got10k_positions(self.split))
        self.listed = len(names)
        return [Video(self.sequence_key(n), f"{folder}/{n}", f"{folder}/{n}") for n in names if n in present]

    def _read_annotation(self, video: Video, count: int) -> Annotation:
        folder = Path(video.labels)
        bbox = read_boxes(folder / "groundtruth.txt", count)
        absent = read_flags(folder / "absence.label", count) != 0
        absent |= read_flags(folder / "cover.label", count) <= 0
        return Annotation(bbox, check_sizes(folder / "groundtruth.txt", bbox, absent) & ~absent)


def _select(names: list[str], positions: list[int]) -> list[str]:
    """The names at ``positions`` of the complete list, of which ``names`` may be a part."""
    if len(names) > max(positions):
        return [names[position] for position in positions]
    chosen = set(positions)
    numbers = [re.fullmatch(r"GOT-10k_Train_([0-9]+)", name) for name in names]
    return [
        name
        for position, (name, number) in enumerate(zip(names, numbers))
        if (int(number[1]) - 1 if number else position) in chosen
    ]
