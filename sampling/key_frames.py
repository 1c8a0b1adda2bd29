"""Which frames of which video carry a label: the rule, the file format, and reading it for training."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from config.console import Progress, say, warn
from config.environment import resolve
from config.errors import UserError
from config.files import read_json, write_json
from config.settings import Settings
from ltr.dataset.base import DATASETS, VideoDataset

MODE = "key_frames"

_MEND = "correct the file (docs/own_videos.md) or sample it anew (key_frame_sampling.py --overwrite)"

Choice = Callable[[np.ndarray], int]
"""Picks one of the candidate frames, int64 ``[n]``, n >= 2."""


class Trajectory(NamedTuple):
    """The labelled frames of one target."""

    f_ids: np.ndarray
    """int64 ``[k]``, sorted, 0-based."""
    bboxes: np.ndarray | None
    """float64 ``[k, 4]`` x, y, w, h in pixels, or None: the data set's own boxes."""


class KeyFrames(NamedTuple):
    """The labelled frames of one data set."""

    path: Path
    failure_seqs: list[str]
    """Keys of all videos of the file that are never used."""
    sequences: dict[str, list[Trajectory]]
    """Key to trajectories, in the order of the data set, for the videos that it holds."""

    def entries(self, dataset: VideoDataset) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
        """Every trajectory as ``(key, number, f_ids [k], bboxes [k, 4])``; boxes the file lacks are read.

        A key frame whose box has no size is left out (walking back to a human label can reach one),
        and so is a trajectory that keeps none; both are told in one line.

        Raises:
            UserError: a broken annotation file.
        """
        position = {key: i for i, key in enumerate(dataset.keys)}
        dropped = 0
        for key, trajectories in self.sequences.items():
            for number, (f_ids, bboxes) in enumerate(trajectories):
                if bboxes is None:
                    bboxes = dataset.annotation(position[key]).bbox[f_ids]
                sized: np.ndarray = (bboxes[:, 2] > 0) & (bboxes[:, 3] > 0)
                dropped += int((~sized).sum())
                if sized.any():
                    yield key, number, f_ids[sized], bboxes[sized]
        if dropped:
            warn(f"{self.path.name}: {dropped} key frames have a box without a size and are left out")


def sampling_file(settings: Settings, name: str, split: str, num: int) -> Path:
    """``{paths.sampling_results}/{name}_{split}_kf_{num:03d}.json``, the split in its canonical spelling."""
    split = DATASETS.get(name).canonical_split(split)
    return resolve(settings.paths.sampling_results) / f"{_title(name, split, num)}.json"


def sample_video(visible: np.ndarray, human: np.ndarray, num: int, choose: Choice) -> list[int] | None:
    """Key frames of one video by the published rule, or None when a part of it shows the target too rarely.

    Part i of ``num`` is centred at ``i * n // num + n // (2 * num)``. Its window grows on both sides in
    steps of ``max(1, n // (8 * num))`` until it holds two visible frames; ``choose`` takes one of those
    in it. From there the nearest earlier frame with a human-made box is taken, or frame 0.

    Args:
        visible: bool ``[n]``.
        human: bool ``[n]``, frames that a person labelled.
        num: number of parts.
        choose: the random draw.

    Returns:
        Sorted distinct frames, at most ``num``.
    """
    n = len(visible)
    seen, labelled = np.flatnonzero(visible), np.flatnonzero(human)
    step = max(1, n // (8 * num))
    chosen: set[int] = set()
    for part in range(num):
        centre = min(part * n // num + n // (2 * num), n - 1)
        for gap in range(step, n + 1, step):
            low, high = np.searchsorted(seen, (centre - gap, centre + gap))
            if high - low >= 2:
                break
        else:
            return None
        frame = choose(seen[low:high])
        before = np.searchsorted(labelled, frame, side="right")
        chosen.add(int(labelled[before - 1]) if before else 0)
    return sorted(chosen)


def sample_key_frames(
    dataset: VideoDataset,
    num: int,
    *,
    seed: int = 0,
    use_all_anno: bool = False,
    choose: Choice | None = None,
) -> dict[str, Any]:
    """The content of a sampling file for ``dataset``.

    Each video has its own generator, seeded by ``seed`` and its key: other videos, other splits and
    the order do not change what is drawn for it.

    Args:
        num: labelled frames per video.
        use_all_anno: also take boxes that no person made.
        choose: replaces the random draw.

    Raises:
        UserError: an annotation is missing or broken.
    """
    failures: list[str] = []
    result: dict[str, list[dict[str, list[int]]]] = {}
    with Progress(len(dataset), f"key frames of {dataset.name}:{dataset.split}", "videos") as progress:
        for i, key in enumerate(dataset.keys):
            annotation = dataset.annotation(i)
            human = np.ones_like(annotation.visible) if use_all_anno else dataset.human_labels(annotation)
            frames = sample_video(annotation.visible, human, num, choose or _uniform(seed, key))
            if frames is None:
                failures.append(key)
            else:
                result[key] = [{"f_ids": frames}]
            progress.update()
    return key_frame_content(dataset.name, dataset.split, num, failures, result)


def merge_key_frames(name: str, split: str, num: int, parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One sampling file out of those of the parts of ``split``."""
    failures: list[str] = []
    result: dict[str, Any] = {}
    for part in parts:
        failures += part["failure_seqs"]
        result |= part["sparse_sample_result"]
    return key_frame_content(name, split, num, failures, result)


def key_frame_content(
    name: str, split: str, num: int, failures: list[str], result: dict[str, Any]
) -> dict[str, Any]:
    """The content of a sampling file: ``result`` is the frames of each video, ``{key: [{"f_ids": [...]}]}``."""
    settings = {"name": _title(name, split, num), "dataset": name, "split": split, "mode": MODE, "num": num}
    return {"fs_settings": settings, "failure_seqs": failures, "sparse_sample_result": result}


def write_key_frames(path: Path, content: dict[str, Any]) -> None:
    """Write a sampling file, sorted and compact, whole or not at all."""
    write_json(path, content)


def make_key_frames(path: Path, dataset: VideoDataset, settings: Settings) -> dict[str, Any]:
    """Sample ``dataset`` as ``settings.sampling`` says and write the file.

    Raises:
        UserError: a video has nothing to sample from, an annotation is broken, or no video can be used.
    """
    _check_annotated(path, dataset)
    chosen = settings.sampling
    content = sample_key_frames(dataset, chosen.num, seed=chosen.seed, use_all_anno=chosen.use_all_anno)
    failed, used = len(content["failure_seqs"]), len(content["sparse_sample_result"])
    if not used:
        raise UserError(
            f"{dataset.root}: no video of {dataset.name}:{dataset.split} shows its target often enough "
            f"for {chosen.num} key frames; check the annotation"
        )
    write_key_frames(path, content)
    say(
        f"{path}: key frames of {used} videos" + (f", {failed} failed and will not be used" if failed else "")
    )
    return content


def load_key_frames(path: Path, name: str, split: str, num: int) -> dict[str, Any]:
    """The content of a sampling file, checked to be of this data set, split and number.

    Raises:
        UserError: missing, broken, or made for something else.
    """
    content = read_json(path, "key-frame file")
    for key, kind in (("fs_settings", dict), ("sparse_sample_result", dict), ("failure_seqs", list)):
        if not isinstance(content, dict) or not isinstance(content.get(key), kind):
            raise UserError(f"{path}: '{key}' is missing or of the wrong kind; {_MEND}")
    if not all(isinstance(name, str) for name in content["failure_seqs"]):
        raise UserError(f"{path}: 'failure_seqs' holds something that is no name; {_MEND}")
    found = dict(content["fs_settings"])
    with contextlib.suppress(UserError):  # an unknown split is reported below
        found["split"] = DATASETS.get(name).canonical_split(str(found.get("split")))
    expected = {"dataset": name, "split": split, "mode": MODE, "num": num}
    wrong = [
        f"{key} {found.get(key)!r} instead of {value!r}"
        for key, value in expected.items()
        if found.get(key) != value
    ]
    if wrong:
        raise UserError(
            f"{path}: belongs to other settings ({', '.join(wrong)}); "
            "put the right file there, or sample it anew (key_frame_sampling.py --overwrite)"
        )
    return content


def ensure_key_frames(dataset: VideoDataset, settings: Settings) -> KeyFrames:
    """The key frames of ``dataset`` from its sampling file; a missing file is sampled first, with a notice.

    Raises:
        UserError: the file is missing and ``sampling.require_files`` is set, cannot be sampled, belongs to
            other settings, is broken, or names no video of the data set.
    """
    num = settings.sampling.num
    path = sampling_file(settings, dataset.name, dataset.split, num)
    if path.exists():
        content = load_key_frames(path, dataset.name, dataset.split, num)
    elif settings.sampling.require_files:
        _check_annotated(path, dataset)
        command = f"key_frame_sampling.py --dataset {dataset.name} --split {dataset.split} --num {num}"
        raise UserError(f"{path}: is missing (sampling.require_files); make it with {command}")
    else:
        _check_annotated(path, dataset)  # before the notice
        say(f"{path}: is missing, so key frames are sampled now")
        content = make_key_frames(path, dataset, settings)
    failures, result = content["failure_seqs"], content["sparse_sample_result"]
    failed = set(failures)
    sequences = {
        key: _trajectories(path, key, result[key], dataset.num_frames(i))
        for i, key in enumerate(dataset.keys)
        if key in result and key not in failed
    }
    if not sequences:
        raise UserError(
            f"{path}: names no usable video of {dataset.root}; expected keys such as '{dataset.keys[0]}'"
        )
    unknown = sum(key not in result and key not in failed for key in dataset.keys)
    if unknown:
        warn(f"{path.name}: says nothing about {unknown} of {len(dataset)} videos; they are not used")
    return KeyFrames(path, failures, sequences)


def _title(name: str, split: str, num: int) -> str:
    return f"{name}_{split}_kf_{num:03d}"


def _uniform(seed: int, key: str) -> Choice:
    digest = hashlib.sha256(key.encode()).digest()
    generator = np.random.Generator(
        np.random.PCG64(np.random.SeedSequence([seed, int.from_bytes(digest[:8], "little")]))
    )
    return lambda frames: int(frames[generator.integers(len(frames))])


def _trajectories(path: Path, key: str, entries: Any, length: int) -> list[Trajectory]:
    """The checked trajectories of one video of ``length`` frames."""
    try:
        trajectories = [_trajectory(entry, length) for entry in entries]
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        reason = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}: sequence '{key}': {reason}; {_MEND}") from error
    if not trajectories:
        raise UserError(
            f"{path}: sequence '{key}': has no trajectory; correct the file or list it in failure_seqs"
        )
    return trajectories


def _trajectory(entry: dict[str, Any], length: int) -> Trajectory:
    f_ids = entry["f_ids"]
    if not f_ids or not all(type(frame) is int for frame in f_ids):
        raise ValueError("f_ids must be a list of at least one whole number")
    if len(set(f_ids)) < len(f_ids):
        raise ValueError("f_ids names a frame twice")
    if outside := [frame for frame in f_ids if not 0 <= frame < length]:
        raise ValueError(f"f_ids names frame {outside[0]}, the video has frames 0 to {length - 1}")
    order = np.argsort(f_ids)
    bboxes = None
    if entry.get("bboxes") is not None:
        bboxes = np.array(entry["bboxes"], dtype=np.float64)
        if bboxes.shape != (len(f_ids), 4):
            raise ValueError("bboxes must hold one x,y,w,h per frame of f_ids")
        if not np.isfinite(bboxes).all() or not (bboxes[:, 2:] > 0).all():
            raise ValueError("bboxes must be finite, with w and h above 0")
        bboxes = bboxes[order]
    return Trajectory(np.array(f_ids, dtype=np.int64)[order], bboxes)


def _check_annotated(path: Path, dataset: VideoDataset) -> None:
    missing = dataset.unlabelled()
    if missing:
        example = f'{{"{missing[0]}": [{{"f_ids": [0, 50, 100], "bboxes": [[x, y, w, h], ...]}}]}}'
        raise UserError(
            f"{path}: is missing, and {len(missing)} of {len(dataset)} videos have no groundtruth.txt to "
            f"sample from; write this JSON file with the boxes you know, 'sparse_sample_result' like "
            f"{example} (docs/own_videos.md)"
        )
