"""LaSOT: Fan et al., LaSOT: A High-quality Benchmark for Large-scale Single Object Tracking, CVPR 2019."""

from __future__ import annotations

from pathlib import Path

from ltr.data_specs.splits import lasot_test, lasot_train_val
from ltr.dataset.annotation_files import check_sizes, read_boxes, read_flags, read_names
from ltr.dataset.base import DATASETS, Annotation, Video, VideoDataset, subfolders

_FEWER_BOXES = ("monkey-17",)
"""LaSOT publishes more images than boxes of this video; those at its end count as not visible."""


@DATASETS.register("LaSOT")
class LaSOT(VideoDataset):
    """``{class}/{class}-{n}/``: ``img``, ``groundtruth.txt``, ``full_occlusion.txt``, ``out_of_view.txt``.

    Splits: ``train`` and ``test`` as published, or, where the folder holds ``training_set.txt`` and
    ``testing_set.txt`` (LaSOT's own files, one sequence name per line), as these say. A class that the
    published list does not know belongs to neither. ``train_train`` and ``train_val`` part ``train`` as
    KeepTrack does; ``all`` is every sequence in the folder.

    A frame is visible when its box has a size and it is neither fully occluded nor out of view.
    """

    name = "LaSOT"
    splits = ("train", "test", "train_train", "train_val", "all")

    @staticmethod
    def sequence_key(sequence: str) -> str:
        """``person-1`` as ``LaSOT_person-1``."""
        return f"LaSOT_{sequence}"

    def _find_videos(self, cache_dir: Path) -> list[Video]:
        folders = sorted(
            (part, int(number), sequence)
            for part in subfolders(self.root)
            for sequence in subfolders(self.root / part)
            for class_name, _, number in [sequence.rpartition("-")]
            if class_name == part and number.isdecimal()
        )
        present = {sequence: f"{self.root}/{part}/{sequence}" for part, _, sequence in folders}
        if self.split != "all":
            chosen = self._named()
            self.listed = len(chosen)
            present = {sequence: folder for sequence, folder in present.items() if sequence in chosen}
        return [Video(self.sequence_key(name), f"{folder}/img", folder) for name, folder in present.items()]

    def _named(self) -> set[str]:
        """The sequences that the split names."""
        test_split = self.split == "test"
        own_list = self.root / ("testing_set.txt" if test_split else "training_set.txt")
        if own_list.exists():
            self.list_file = own_list
            names = set(read_names(own_list))
        else:
            names = {
                f"{class_name}-{number}"
                for class_name, test in lasot_test().items()
                for number in range(1, 21)
                if (number in test) == test_split
            }
        held_out = set(lasot_train_val())
        if self.split == "train_val":
            return names & held_out
        return names - held_out if self.split == "train_train" else names

    def _read_annotation(self, video: Video, count: int) -> Annotation:
        folder = Path(video.labels)
        fewer = folder.name in _FEWER_BOXES
        bbox = read_boxes(folder / "groundtruth.txt", count, fewer)
        absent = read_flags(folder / "full_occlusion.txt", count, fewer) != 0
        absent |= read_flags(folder / "out_of_view.txt", count, fewer) != 0
        return Annotation(bbox, check_sizes(folder / "groundtruth.txt", bbox, absent) & ~absent)
