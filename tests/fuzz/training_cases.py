"""Files that training reads: images, annotations, key frames, sampler state; and settings."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from config.environment import load_settings
from config.errors import UserError
from config.files import read_json
from ltr.data.image_loader import BadImage, Part, channel_mean, open_frame, read_image
from ltr.data.journal import read_journal
from ltr.data.sampler_state import Journal, SamplerState
from ltr.dataset.base import open_dataset
from pysot_toolkit.testing.targets import read_targets
from sampling.key_frames import ensure_key_frames
from tests.data.state_model import as_records, entries
from tests.fuzz.case import Case, Parser


def encoded(suffix: str, *options: int) -> bytes:
    y, x = np.mgrid[:48, :64]
    picture = np.stack([x * 3, y * 5, (x + y) * 2], -1).astype(np.uint8)
    return cv2.imencode(suffix, picture, list(options))[1].tobytes()


def _images(suffix: str, *variants: tuple[int, ...]) -> Callable[[Path], Case]:
    def build(folder: Path) -> Case:
        path = folder / f"0001{suffix}"

        def read() -> None:
            read_image(path)
            frame = open_frame(path)
            channel_mean(frame.region(reduced=4))
            frame.region(Part(5, 3, 9, 16))
            frame.region(Part(1, 2, 30, 16), reduced=2)

        return Case(path, [encoded(suffix, *options) for options in variants or ((),)], read)

    return build


def _touch(folder: Path, count: int, pattern: str = "{:08d}.jpg", first: int = 1) -> None:
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        (folder / pattern.format(number)).touch()


_BOXES = b"5,6,7,8\n1,1,20.5,30\n0,0,0,0\n2,3,4,5\n"
_LABELS = {"groundtruth.txt": _BOXES, "full_occlusion.txt": b"0,0,1,0", "out_of_view.txt": b"0,0,0,0"}
_GOT10K = {"groundtruth.txt": _BOXES, "absence.label": b"0\n0\n1\n0\n", "cover.label": b"8\n8\n0\n3\n"}


def _annotated(name: str, split: str, root: Path, cache: Path) -> None:
    dataset = open_dataset(name, split, root, cache)
    for i in range(len(dataset)):
        dataset.annotation(i)
        dataset.frame_path(i, 0)


def _lasot(file: str) -> Callable[[Path], Case]:
    def build(folder: Path) -> Case:
        video = folder / "root" / "person" / "person-2"
        _touch(video / "img", 4)
        for name, content in _LABELS.items():
            (video / name).write_bytes(content)
        return Case(
            video / file, [_LABELS[file]], lambda: _annotated("LaSOT", "all", folder / "root", folder / "c")
        )

    return build


def _lasot_list(folder: Path) -> Case:
    _lasot("groundtruth.txt")(folder)
    root = folder / "root"
    return Case(
        root / "training_set.txt",
        [b"person-2\nperson-3\n"],
        lambda: _annotated("LaSOT", "train", root, folder / "c"),
    )


def _got10k(file: str) -> Callable[[Path], Case]:
    def build(folder: Path) -> Case:
        video = folder / "root" / "train" / "GOT-10k_Train_000001"
        _touch(video, 4)
        for name, content in _GOT10K.items():
            (video / name).write_bytes(content)
        listed = video.parent / "list.txt"
        listed.write_text("GOT-10k_Train_000001\n")
        path = listed if file == "list.txt" else video / file
        return Case(
            path,
            [path.read_bytes()],
            lambda: _annotated("GOT-10k", "vottrain", folder / "root", folder / "c"),
        )

    return build


def _trackingnet(folder: Path) -> Case:
    _touch(folder / "root" / "TRAIN_0" / "frames" / "abc", 4, "{}.jpg", 0)
    path = folder / "root" / "TRAIN_0" / "anno" / "abc.txt"
    path.parent.mkdir()
    return Case(path, [_BOXES], lambda: _annotated("TrackingNet", "0", folder / "root", folder / "c"))


def _frames(folder: Path) -> Case:
    _touch(folder / "root" / "mine", 4)
    return Case(
        folder / "root" / "mine" / "groundtruth.txt",
        [b"5 6 7 8\n1\t1\t20.5\t30\n0,0,0,0\n2,3,4,5"],
        lambda: _annotated("Frames", "all", folder / "root", folder / "c"),
    )


def _coco(folder: Path) -> Case:
    root = folder / "coco"
    _touch(root / "images" / "val2017", 2, "{:012d}.jpg")
    objects = [{"id": k, "image_id": 1 + k % 2, "bbox": [1.5, 2, 30, 40], "iscrowd": 0} for k in range(3)]
    images = [{"id": k, "file_name": f"{k:012d}.jpg"} for k in (1, 2)]
    path = root / "annotations" / "instances_val2017.json"
    path.parent.mkdir()
    return Case(
        path,
        [json.dumps({"images": images, "annotations": objects}).encode()],
        lambda: _annotated("COCO", "val2017", root, folder / "c"),
    )


def _cached(name: str, split: str, build: Callable[[Path], Case], ending: str) -> Callable[[Path], Case]:
    """The cache file that reading a data set leaves."""

    def cached(folder: Path) -> Case:
        case = build(folder)
        case.path.write_bytes(case.examples[0])
        for file in sorted(folder.rglob("*")):  # settled, so that the index is believed
            os.utime(file, (1e9, 1e9))
        case.read()
        (path,) = (folder / "c").glob(f"*{ending}")
        return Case(path, [path.read_bytes()], case.read)

    return cached


def _key_frames(folder: Path, boxes: bool) -> Case:
    if boxes:
        _touch(folder / "root" / "mine", 60)
        name, split, key = "Frames", "all", "Frames_mine"
    else:
        _lasot("groundtruth.txt")(folder)
        name, split, key = "LaSOT", "all", "LaSOT_person-2"
    trajectory: dict[str, Any] = {"f_ids": [0, 1, 3]}
    if boxes:
        trajectory["bboxes"] = [[1, 2, 3, 4], [1.5, 2, 3, 4], [2, 2, 3, 4]]
    content = {
        "fs_settings": {"name": "x", "dataset": name, "split": split, "mode": "key_frames", "num": 3},
        "failure_seqs": ["other"],
        "sparse_sample_result": {key: [trajectory]},
    }
    settings = load_settings(["paths.sampling_results", str(folder / "sampled"), "sampling.num", "3"])
    dataset = open_dataset(name, split, folder / "root", folder / "c")
    path = folder / "sampled" / f"{name}_{split}_kf_003.json"
    path.parent.mkdir()
    return Case(
        path,
        [json.dumps(content).encode()],
        lambda: list(ensure_key_frames(dataset, settings).entries(dataset)),
    )


def sampler_state(folder: Path) -> SamplerState:
    state = SamplerState.create(folder / "s.bin", entries([[1, 30], [2], [3], [4, 5], [6]]))
    state.merge(as_records([(0, f, (f, 2.0, 3.0, 4.0), 0.9) for f in range(12)]))
    return state


def _state_json(folder: Path) -> Case:
    path = folder / "state.json"
    sampler_state(folder).write_json(path)
    own = path.read_bytes()
    return Case(
        path,
        [own, json.dumps(json.loads(own), indent=4).encode()],
        lambda: SamplerState.from_json(path, folder / "new.bin"),
    )


def _state_file(folder: Path) -> Case:
    sampler_state(folder)
    path = folder / "s.bin"

    def read() -> None:
        state = SamplerState.open(path)
        for row in range(len(state)):
            state.key_frames(row), state.key_boxes(row), state.recorded(row)
        _ = state.sequences, state.fingerprint(), state.recorded_frames(), state.key_counts()
        state.write_json(folder / "again.json")

    return Case(path, [path.read_bytes()], read)


def _journal(folder: Path) -> Case:
    path = folder / "j.journal"
    records = as_records([(0, i, (1.0, 2.0, 3.0, 4.0), 0.9) for i in range(20)])
    with Journal(path) as journal:
        for part in np.split(records, 4):
            journal.append(part)
    sampler_state(folder).write_json(folder / "s.json")

    def read() -> None:
        read_journal(path)
        Journal(path).close()
        SamplerState.recover(folder / "s.json", path, folder / "r.bin")

    return Case(path, [path.read_bytes()], read)


def _targets(folder: Path) -> Case:
    path = folder / "boxes.json"
    content = {"a": [1, 2, 3.5, 4], "b": {"box": [1, 2, 3, 4], "frame": 3}}
    return Case(path, [json.dumps(content).encode()], lambda: read_targets(path))


def _set(folder: Path) -> Case:
    """Each line of the file is a ``KEY VALUE`` of ``--set``."""
    path = folder / "set"
    lines = b"train.epochs 3\noptim.lr 1e-3\ndata.datasets LaSOT:train,GOT-10k:all\nobjective.a [1, 2.5]\npaths.test.X y\n"

    def read() -> None:
        pairs = [
            text
            for line in path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
            if line
            for text in (*line.split(" ", 1), "")[:2]
        ]
        settings = load_settings(pairs)
        json.dumps(settings.plain())
        settings.differences(load_settings())

    return Case(path, [lines], read)


def _local(folder: Path) -> Case:
    path = folder / "local.py"
    template = Path(__file__).parents[2] / "config" / "local_template.py"

    def read() -> None:
        before = os.environ.get("SPOT_LOCAL")
        os.environ["SPOT_LOCAL"] = str(path)
        try:
            load_settings()
        finally:
            if before is None:
                del os.environ["SPOT_LOCAL"]
            else:
                os.environ["SPOT_LOCAL"] = before

    return Case(path, [template.read_bytes()], read)


def _json(folder: Path) -> Case:
    path = folder / "any.json"
    return Case(path, [b'{"a": [1, 2.5, NaN, null, "\\u00e9"], "b": {}}'], lambda: read_json(path))


def table() -> Iterator[Parser]:
    """The parsers of this room."""
    quality = int(cv2.IMWRITE_JPEG_QUALITY)
    variants = (
        (quality, 90), (quality, 40, int(cv2.IMWRITE_JPEG_PROGRESSIVE), 1),
        (quality, 80, int(cv2.IMWRITE_JPEG_RST_INTERVAL), 2),
    )  # fmt: skip
    for suffix, options in ((".jpg", variants), (".png", ()), (".bmp", ())):
        yield Parser(
            f"image{suffix}", _images(suffix, *options), refusals=(UserError, BadImage), memory=1 << 30
        )
    for file in _LABELS:
        yield Parser(f"train LaSOT {file}", _lasot(file))
    yield Parser("train LaSOT training_set.txt", _lasot_list)
    for file in (*_GOT10K, "list.txt"):
        yield Parser(f"train GOT-10k {file}", _got10k(file), file != "list.txt")
    yield Parser("train TrackingNet", _trackingnet)
    yield Parser("train Frames", _frames)
    yield Parser("train COCO", _coco)
    yield Parser("cache of frames", _cached("LaSOT", "all", _lasot("groundtruth.txt"), ".json"), False)
    yield Parser("cache of COCO", _cached("COCO", "val2017", _coco, ".npz"), False)
    yield Parser("key frames", lambda folder: _key_frames(folder, False))
    yield Parser("key frames of own videos", lambda folder: _key_frames(folder, True), False)
    yield Parser("sampler state JSON", _state_json)
    yield Parser("sampler state file", _state_file)
    yield Parser("journal", _journal)
    yield Parser("boxes of track.py", _targets)
    yield Parser("--set", _set, False)
    yield Parser("local.py", _local)
    yield Parser("JSON", _json)
