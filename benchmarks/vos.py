"""How fast masks are compared: J and F of two objects in frames of 480 x 854 px, the size of DAVIS, per frame. Baselines
on the same masks: the definitions written down in numpy, where a boundary is dilated by shifting it to every offset of
the tolerance disk; and whole frames dilated by OpenCV, which is what the reference program does. All sides must agree.

    python -m benchmarks.vos [--frames 70] [--baseline 10]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from benchmarks import Row, paired, scaled, table, timed
from config.cli import Options, positive, run
from config.console import say
from pysot_toolkit.datasets.masks import read_mask
from pysot_toolkit.evaluation.davis import Davis, compare, tolerance_disk
from pysot_toolkit.evaluation.protocol import Runs, Truth

HEIGHT, WIDTH, OBJECTS = 480, 854, 2


def main() -> None:
    """Print the table."""
    parser = Options(__doc__)
    parser.add_argument("--frames", type=positive, default=70)
    parser.add_argument("--baseline", type=positive, default=10, help="frames the baselines are measured on")
    say(table(measure(**vars(parser.parse_args()))))


def measure(frames: int = 70, baseline: int = 10) -> list[Row]:
    """Milliseconds per frame: masks in memory, and from files."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        return _measure(Path(folder), max(frames, 3), baseline)


def _measure(root: Path, frames: int, sample: int) -> list[Row]:
    truth, result = make_video(root / "truth", frames, 0), make_video(root / "result", frames, 6)
    inner = [(read_mask(a), read_mask(b)) for a, b in zip(truth, result)][1:-1][:sample]
    disk = tolerance_disk((HEIGHT, WIDTH))

    def all_frames(compared: Callable) -> list[list[tuple[float, float]]]:
        return [each_object(a, b, compared) for a, b in inner]

    def ours() -> list[list[tuple[float, float]]]:
        return all_frames(lambda x, y: compare(x, y, disk))

    def opencv() -> list[list[tuple[float, float]]]:
        return all_frames(lambda x, y: straightforward(x, y, by_opencv))

    def shifts() -> list[list[tuple[float, float]]]:
        return all_frames(lambda x, y: straightforward(x, y, by_shifts))

    def protocol():
        return Davis().score(Truth("video", np.empty((1, 4)), masks=truth), Runs([], masks=result))

    got, want = ours(), shifts()
    assert np.allclose(got, want, atol=1e-12) and np.allclose(got, opencv(), atol=1e-12), "the sides disagree"
    scores = protocol()
    stored = np.stack([scores.parts["J"], scores.parts["F"]], axis=-1).swapaxes(0, 1)[: len(inner)]
    assert np.allclose(stored, want, atol=1e-12), "the protocol disagrees with the definitions"

    each = 1e3 / len(inner)
    rows = []
    for name, baseline, repeat in (
        ("OpenCV's dilation of whole frames", opencv, 5),
        ("the definitions in numpy", shifts, 3),
    ):
        fast, slow = paired(ours, baseline, repeat)
        rows.append(Row(f"in memory, against {name}", "ms", scaled(fast, each), scaled(slow, each)))
    whole = [timed(protocol)[0] for _ in range(3)]
    return [*rows, Row("protocol davis, reading included", "ms", scaled(whole, 1e3 / frames))]


def make_video(folder: Path, frames: int, offset: int) -> tuple[Path, ...]:
    """Two wobbling blobs that move; ``offset`` px beside the truth for a result."""
    folder.mkdir()
    angle = np.linspace(0, 2 * np.pi, 200)
    paths = []
    for frame in range(frames):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        for number, (x, size) in enumerate(((250, 110), (560, 60)), 1):
            radius = size * (1 + 0.15 * np.sin(5 * angle + 0.1 * frame) + 0.08 * np.sin(13 * angle + offset))
            outline = [x + frame + offset + radius * np.cos(angle), 240 + radius * np.sin(angle)]
            cv2.fillPoly(mask, [np.stack(outline, -1).round().astype(np.int32)], number)
        image = Image.fromarray(mask)
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 759)
        paths.append(folder / f"{frame:05d}.png")
        image.save(paths[-1])
    return tuple(paths)


def each_object(truth: np.ndarray, result: np.ndarray, compared: Callable) -> list[tuple[float, float]]:
    return [compared(truth == number, result == number) for number in range(1, OBJECTS + 1)]


def straightforward(truth: np.ndarray, result: np.ndarray, dilated: Callable) -> tuple[float, float]:
    """J and F of one object on whole frames."""
    region = np.sum(truth & result) / np.sum(truth | result)
    edges = [whole_boundary(mask) for mask in (truth, result)]
    near = [dilated(edge) for edge in edges]
    recall = np.sum(edges[0] & near[1]) / np.sum(edges[0])
    precision = np.sum(edges[1] & near[0]) / np.sum(edges[1])
    return float(region), float(2 * precision * recall / (precision + recall))


def whole_boundary(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask ^ padded[:-1, 1:]) | (mask ^ padded[1:, :-1]) | (mask ^ padded[1:, 1:])


def by_opencv(edge: np.ndarray) -> np.ndarray:
    return cv2.dilate(edge.astype(np.uint8), tolerance_disk(edge.shape)).astype(bool)


def by_shifts(edge: np.ndarray) -> np.ndarray:
    height, width = edge.shape
    radius = int(np.ceil(0.008 * np.sqrt(height**2 + width**2)))
    padded = np.pad(edge, radius)
    near = np.zeros_like(edge)
    for y in range(-radius, radius + 1):
        for x in range(-radius, radius + 1):
            if y * y + x * x <= radius * radius:
                near |= padded[radius + y : radius + y + height, radius + x : radius + x + width]
    return near


if __name__ == "__main__":
    run(main)
