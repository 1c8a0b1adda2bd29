"""Training samples per second and core, against plain OpenCV: frames are JPEG files of quality 90, targets 40 to 250 px
wide and high where a frame has 720 rows. "Plain" decodes every frame whole, takes its mean with ``np.mean`` over two
axes and cuts the same crops. The targets are six times what the published loader does (27 pairs per second, of 640x480
72, and there 48 instances) and seven times for instances (16): it also reads annotations anew for every sample, and was
measured on a machine that decodes a frame as fast as this page's. An instance needs one of its three frames whole, for
the mean of its channels.

    python -m benchmarks.loader
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks import Row, paired, rates, scaled, table
from config.cli import run
from config.console import say
from config.defaults import get_defaults
from ltr.data import proposals
from ltr.data.adaptive_crop import crop_rectangles, cut_rectangle
from ltr.data.crop import crop, jitter
from ltr.data.image_loader import Part, open_frame
from ltr.data.loader import Key, TrackingSamples, collate
from ltr.data.processing_ltr import Jitter, SequenceProcessing
from ltr.data.proposals import PerturbedBoxes
from ltr.data.sampler import FrameBox, LabelledPair, LabelledPairs, SparseInstance, SparseInstances
from ltr.data.sampler_ltr import SequenceFrames
from ltr.data.sampler_state import RECORD, SamplerState
from ltr.dataset.base import Annotation

SIZE, SMALL, LARGE = (1280, 720), (640, 480), (1920, 1080)
FILES, VIDEOS, LENGTH = 24, 40, 600
RELAYS = (3, 250)
BATCH, ROUNDS = 16, 6
LONGER = 6  # batches of ours in a turn, which then lasts as long as the baseline's, and finds warm what that has cooled


class Repeated:
    """A data set of many videos whose frames are a few files."""

    name, split = "benchmark", "all"

    def __init__(self, files: list[str]) -> None:
        self.files = files
        self.keys = [f"video-{number}" for number in range(VIDEOS)]

    def __len__(self) -> int:
        return VIDEOS

    def num_frames(self, i: int) -> int:
        """The same for all."""
        return LENGTH

    def frame_path(self, i: int, frame: int) -> str:
        """One of the files."""
        return self.files[(i * 7 + frame) % len(self.files)]

    def annotation(self, i: int) -> Annotation:
        """Not needed: the sampler state has the boxes."""
        raise NotImplementedError


def make_files(folder: Path, size: tuple[int, int]) -> list[str]:
    """JPEG files about as large as frames of real video (150 to 200 kB at 720p)."""
    width, height = size
    rng = np.random.default_rng(0)
    paths = []
    for number in range(FILES):
        image = np.zeros((height, width, 3), np.float32)
        for cells, weight in ((6, 60), (24, 30), (96, 16), (320, 9)):
            noise = rng.normal(0, weight, (cells * height // width, cells, 3)).astype(np.float32)
            image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        paths.append(str(folder / f"{height}-{number}.jpg"))
        pixels = (image + 120).clip(0, 255).astype(np.uint8)
        cv2.imwrite(paths[-1], pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return paths


def random_boxes(rng: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
    """Boxes ``[count, 4]`` inside the frame, 40 to 250 px wide and high in one of 720 rows."""
    sides = rng.uniform(40, 250, (count, 2)) * size[1] / SIZE[1]
    return np.concatenate([rng.uniform(0, 1, (count, 2)) * (size - sides), sides], 1)


def make_state(dataset: Repeated, relays: int, folder: Path, size: tuple[int, int]) -> SamplerState:
    """Three key frames per video, and other recorded frames up to ``relays``."""
    rng = np.random.default_rng(1)
    keys = np.array([100, 300, 500])
    state = SamplerState.create(
        folder / f"state-{relays}-{size[1]}",
        [(key, 0, keys, random_boxes(rng, 3, size)) for key in dataset.keys],
    )
    if relays > len(keys):
        others = np.setdiff1d(np.arange(LENGTH), keys)
        records = np.zeros(VIDEOS * (relays - len(keys)), RECORD)
        records["order"] = np.arange(len(records))
        records["row"] = np.repeat(np.arange(VIDEOS), relays - len(keys))
        records["frame"] = np.concatenate(
            [np.sort(rng.choice(others, relays - len(keys), False)) for _ in range(VIDEOS)]
        )
        records["bbox"], records["confidence"] = random_boxes(rng, len(records), size), 0.9
        state.merge(records)
    return state


def plain_image(path: str) -> np.ndarray:
    """The whole frame."""
    image = cv2.imread(path, cv2.IMREAD_COLOR)
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def plain_frame(path: str) -> tuple[np.ndarray, np.ndarray]:
    """The whole frame, and its channel mean as the published code takes it."""
    image = plain_image(path)
    return image, np.mean(image, axis=(0, 1))


def plain_pair(pair: LabelledPair, rng: np.random.Generator) -> None:
    """The two crops of a labelled pair."""
    image, mean = plain_frame(pair.template.path)
    crop(image, pair.template.bbox, 2.0, 128, mean)
    image, mean = plain_frame(pair.search.path)
    crop(image, jitter(pair.search.bbox, 3.0, 0.25, rng.standard_normal(2), rng.random(2)), 4.0, 256, mean)


def plain_instance(instance: SparseInstance, rng: np.random.Generator) -> None:
    """The four crops of an unsupervised instance."""
    for frame in (instance.key, instance.relay):
        image, mean = plain_frame(frame.path)
        crop(image, frame.bbox, 2.0, 128, mean)
    image, mean = plain_frame(instance.unlabeled.path)
    about = instance.unlabeled.bbox
    crop(image, about, 4.0, 256, mean)
    crop(image, jitter(about, 3.0, 0.25, rng.standard_normal(2), rng.random(2)), 4.0, 256, mean)


def main() -> None:
    """Print the table."""
    say(table(measure()))


def measure() -> list[Row]:
    """Samples per second, and milliseconds of one region."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, files, large = (make_files(folder, size) for size in (SMALL, SIZE, LARGE))
        return [
            pairs(files, folder, SIZE, 6 * 27),
            pairs(small, folder, SMALL, 6 * 72),
            *(instances(files, folder, SIZE, relays, 7 * 16) for relays in RELAYS),
            instances(small, folder, SMALL, RELAYS[0], 6 * 48),
            sequences(files),
            part(files, SIZE, 1.5),
            part(large, LARGE, 3.1),
        ]


def pairs(files: list[str], folder: Path, size: tuple[int, int], target: float) -> Row:
    """Labelled pairs per second."""
    dataset = Repeated(files)
    source = LabelledPairs([dataset], make_state(dataset, 0, folder, size), 0)  # type: ignore[list-item]
    samples = TrackingSamples(source, None, get_defaults())
    return rate(f"labelled pairs, {size[0]}x{size[1]}", samples, "sup", source, plain_pair, target)


def instances(files: list[str], folder: Path, size: tuple[int, int], relays: int, target: float) -> Row:
    """Unsupervised instances per second."""
    dataset = Repeated(files)
    state = make_state(dataset, relays, folder, size)
    labelled = LabelledPairs([dataset], state, 0)  # type: ignore[list-item]
    source = SparseInstances([dataset], state, 0, 1, 4)  # type: ignore[list-item]
    name = f"unsupervised instances, {relays} relay frames, {size[0]}x{size[1]}"
    samples = TrackingSamples(labelled, source, get_defaults())
    return rate(name, samples, "unsup", source, plain_instance, target)


def rate(name: str, samples: TrackingSamples, kind: str, source: Any, plain: Any, target: float) -> Row:
    """Samples per second by the loader, and from the same draws by the plain way."""
    ours_at, plain_at = itertools.count(), itertools.count()

    def batches() -> None:
        for _ in range(LONGER):
            first = next(ours_at) * BATCH
            collate([samples[Key(1, first + j, kind)] for j in range(BATCH)])

    def plain_batch() -> None:
        first = next(plain_at) * BATCH
        rng = np.random.default_rng(first)
        for j in range(BATCH):
            plain(source.draw(1, first + j), rng)

    ours, theirs = paired(batches, plain_batch, ROUNDS)
    return Row(name, "/s", rates(LONGER * BATCH, ours), rates(BATCH, theirs), limit=target)


def sequences(files: list[str]) -> Row:
    """DiMP's: 3 train and 3 test frames of 288 px, five times the target wide, with 8 proposals each."""
    processing = SequenceProcessing(
        size=(288, 288),
        search_factor=5.0,
        train_jitter=Jitter(3.0, 0.25),
        test_jitter=Jitter(4.5, 0.5),
        proposals=PerturbedBoxes(count=8, min_iou=0.1, sigmas=(0.01, 0.05, 0.1, 0.2)),
    )
    boxes = random_boxes(np.random.default_rng(3), len(files), SIZE)
    frames = [FrameBox(path, bbox) for path, bbox in zip(files, boxes)]
    drawn = [SequenceFrames(frames[i : i + 3], frames[i + 3 : i + 6]) for i in range(0, len(files), 6)]
    ours_at, plain_at = itertools.count(), itertools.count()

    def ours() -> None:
        for number, sample in enumerate(drawn):
            processing(sample, np.random.default_rng([next(ours_at), number]))

    def plain() -> None:
        for number, sample in enumerate(drawn):
            rng = np.random.default_rng([next(plain_at), number])
            for part, amount in ((sample.train, (3.0, 0.25)), (sample.test, (4.5, 0.5))):
                about = proposals.jitter(np.stack([frame.bbox for frame in part]), *amount, rng=rng)
                for frame, where in zip(part, crop_rectangles(about, SIZE, 5.0, (288, 288))):
                    cut_rectangle(plain_image(frame.path), where, (288, 288))

    fast, slow = paired(ours, plain, ROUNDS)
    name = "sequences of DiMP, 3 + 3 frames (the plain way makes no proposals)"
    return Row(name, "/s", rates(len(drawn), fast), rates(len(drawn), slow))


def part(files: list[str], size: tuple[int, int], limit: float) -> Row:
    """A square of 256 px somewhere in a frame, against the whole frame."""
    rng = np.random.default_rng(2)
    corners = rng.integers(0, np.array(size) - 256, (len(files), 2)).tolist()

    def ours() -> None:
        for path, (left, top) in zip(files, corners):
            open_frame(path).region(Part(left, top, left + 256, top + 256))

    def wholes() -> None:
        for path in files:
            plain_image(path)

    fast, slow = paired(ours, wholes, ROUNDS)
    each = 1e3 / len(files)
    name = f"a square of 256 px in a JPEG of {size[0]}x{size[1]}"
    return Row(name, "ms", scaled(fast, each), scaled(slow, each), limit=limit)


if __name__ == "__main__":
    run(main)
