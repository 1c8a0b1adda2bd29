"""Parity of the key-frame rule and its file format."""

from __future__ import annotations

import json

import numpy as np

from ltr.dataset.base import DATASETS, Annotation
from sampling.key_frames import sample_key_frames


class _Toy:
    """The toy videos of a case in place of a data set on disk."""

    def __init__(self, name: str, split: str, videos: list[dict]) -> None:
        self.name, self.split, self._videos = name, split, videos
        kind = DATASETS.get(name)
        self.human_labels = kind.human_labels.__get__(self)
        names = [video["name"] if isinstance(video["name"], list) else [video["name"]] for video in videos]
        self.keys = [kind.sequence_key(*parts) for parts in names]

    def __len__(self) -> int:
        return len(self._videos)

    def annotation(self, i: int) -> Annotation:
        visible = np.array(self._videos[i]["visible"], dtype=bool)
        bbox = self._videos[i]["bbox"]
        return Annotation(np.ones((len(visible), 4)) if isinstance(bbox, str) else np.array(bbox), visible)


def key_frames(folder, kit) -> None:
    """The files that the reference wrote, with its random choice replaced by the middle candidate."""
    expected = json.loads((folder / "expected.json").read_text())
    failures = []
    for name in sorted(expected):
        settings = expected[name]["fs_settings"]
        videos = json.loads((folder / f"videos_{settings['dataset']}.json").read_text())
        toy = _Toy(settings["dataset"], settings["split"], videos)
        found = sample_key_frames(toy, settings["num"], choose=lambda frames: frames[len(frames) // 2])
        assert found == expected[name], name
        failures.append(len(found["failure_seqs"]))
    with np.load(folder / "golden.npz") as golden:
        assert failures == golden["count"].tolist()


HANDLERS = {"spot_keyframes": key_frames}
