"""A synthetic video data set in LaSOT's layout, for the demo and for experiments that need no download.

A textured target moves, scales, rotates, bends and turns (its texture slides over its face, so that it
looks different at the end of a video) over a textured moving background, among objects of other
textures, behind passing objects and under changing light. Every texture is drawn for one video alone,
so training and test videos share none.

Layout: ``<class>/<class>-<n>/{img/00000001.jpg, groundtruth.txt, full_occlusion.txt, out_of_view.txt,
nlp.txt}``, ``training_set.txt`` and ``testing_set.txt`` with one video name per line. The same
parameters give the same bytes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from config.errors import UserError
from config.files import read_json, write_json, write_text

LOOK = 1  # raised whenever the same parameters would give other pictures
CLASSES = ("disc", "box", "star", "leaf", "drop")
HIDDEN_SHARE = 0.15  # a target of which less is seen counts as fully occluded
RIM = 5  # px, thickness of an object's contour line, of which the inner half shows
JPEG_QUALITY = 90
_PARAMETERS = "synthetic.json"


@dataclass(frozen=True, kw_only=True)
class SyntheticSpec:
    """What a synthetic data set holds; ``width`` and ``height`` in px, frames per video."""

    seed: int = 0
    train_videos: int = 512
    test_videos: int = 24
    train_frames: int = 10
    test_frames: int = 40
    width: int = 320
    height: int = 240


def make(root: Path, spec: SyntheticSpec, progress: Callable[[], None] | None = None) -> Path:
    """Make the data set in ``root``; videos that are there already are kept.

    A video appears whole or not at all, so an interrupted run is continued by the next.

    Args:
        root: folder of the data set, made where missing.
        spec: what it holds.
        progress: called once per video.

    Returns:
        ``root``.

    Raises:
        UserError: ``root`` holds something else, or cannot be written.
    """
    root = Path(root)
    parameters = {"look": LOOK, **asdict(spec)}
    names = video_names(spec)
    written = root / _PARAMETERS
    if written.exists():
        if read_json(written) != parameters:
            raise UserError(
                f"{root}: holds a synthetic data set with other parameters; remove it or name another folder"
            )
    elif root.exists() and any(root.iterdir()):
        raise UserError(f"{root}: is not empty and holds no synthetic data set; name another folder")
    else:
        write_json(written, parameters)

    def one(numbered: tuple[int, str]) -> None:
        number, name = numbered
        folder = root / name.rsplit("-", 1)[0] / name
        if not folder.exists():
            _write_video(folder, _Video(spec, number, name.rsplit("-", 1)[0]))

    for left_over in root.glob("*/.*.tmp"):  # of a run that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for _ in pool.map(one, enumerate(names)):
            if progress is not None:
                progress()
    except OSError as error:
        raise UserError(
            f"{root}: cannot be written ({error.strerror or error}); free space or fix permissions"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
    write_text(root / "training_set.txt", "\n".join(names[: spec.train_videos]) + "\n")
    write_text(root / "testing_set.txt", "\n".join(names[spec.train_videos :]) + "\n")
    return root


def video_names(spec: SyntheticSpec) -> list[str]:
    """Names of the training videos, then of the test videos: ``disc-1``, ``box-1``, ..., ``disc-2``, ..."""
    count = spec.train_videos + spec.test_videos
    return [f"{CLASSES[i % len(CLASSES)]}-{i // len(CLASSES) + 1}" for i in range(count)]


def _write_video(folder: Path, video: _Video) -> None:
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        (temporary / "img").mkdir(parents=True)
        boxes, hidden = [], []
        for frame in range(video.frames):
            image, bbox = video.render(frame)
            ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            if not ok:
                raise UserError(f"{folder}: frame {frame + 1} could not be encoded as JPEG")
            (temporary / "img" / f"{frame + 1:08d}.jpg").write_bytes(data.tobytes())
            boxes.append(bbox if bbox is not None else (0, 0, 0, 0))  # LaSOT's box of an absent target
            hidden.append(int(bbox is None))
        (temporary / "groundtruth.txt").write_text("".join("{},{},{},{}\n".format(*bbox) for bbox in boxes))
        (temporary / "full_occlusion.txt").write_text(",".join(map(str, hidden)) + "\n")
        (temporary / "out_of_view.txt").write_text(",".join("0" for _ in hidden) + "\n")
        (temporary / "nlp.txt").write_text(f"textured {video.shape} moving over a textured background\n")
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Video:
    """All that is drawn once per video; ``render`` gives a frame."""

    def __init__(self, spec: SyntheticSpec, number: int, shape: str) -> None:
        self.shape = shape
        self.frames = frames = spec.train_frames if number < spec.train_videos else spec.test_frames
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([spec.seed, number])))
        scale = float(np.sqrt(spec.width * spec.height))
        self._back = _Background(rng, spec, frames)
        self._target = _Thing(rng, spec, frames, shape, size=rng.uniform(0.15, 0.24) * scale)
        others = [str(rng.choice(CLASSES)) for _ in range(int(rng.integers(0, 2)))]
        self._others = [
            _Thing(rng, spec, frames, other, size=rng.uniform(0.12, 0.24) * scale) for other in others
        ]
        passing = int(rng.random() < 0.6)
        self._passing = [
            _Thing(rng, spec, frames, "box", size=rng.uniform(0.12, 0.3) * scale).crossing(rng, self._target)
            for _ in range(passing)
        ]
        self._gain = np.exp(_smooth(rng, frames, 15, 0.20))
        self._tint = np.exp(np.stack([_smooth(rng, frames, 20, 0.08) for _ in range(3)], 1))
        self._noise = rng.normal(0, 3.0, (2, spec.height, spec.width, 1)).astype(np.float32)

    def render(self, frame: int) -> tuple[np.ndarray, tuple[int, int, int, int] | None]:
        """Image, RGB uint8 ``[H, W, 3]``, and the target's visible extent ``(x, y, w, h)``, px; None: hidden."""
        canvas = self._back.draw(frame)
        for other in self._others:
            other.draw(canvas, frame)
        seen = self._target.draw(canvas, frame)
        whole = max(self._target.area(frame), 1)
        for thing in self._passing:
            seen[thing.draw(canvas, frame) > 0] = 0
        light = (self._gain[frame] * self._tint[frame]).astype(np.float32)
        canvas = canvas.astype(np.float32) * light + self._noise[frame % 2]
        image = np.clip(canvas, 0, 255).astype(np.uint8)
        if np.count_nonzero(seen) < HIDDEN_SHARE * whole:
            return image, None
        x, y, w, h = cv2.boundingRect(seen)
        return image, (x, y, w, h)


class _Background:
    """A texture larger than the frame, seen by a camera that pans, zooms and tilts."""

    def __init__(self, rng: np.random.Generator, spec: SyntheticSpec, frames: int) -> None:
        self._size = (spec.width, spec.height)
        self._texture = _texture(
            rng, spec.width * 2, spec.height * 2, wave=rng.uniform(60, 140), contrast=0.35
        )
        self._shift = np.stack([_smooth(rng, frames, 20, 0.16 * side) for side in self._size], 1)
        self._zoom = np.exp(_smooth(rng, frames, 30, 0.08))
        self._angle = _smooth(rng, frames, 30, 4.0)

    def draw(self, frame: int) -> np.ndarray:
        width, height = self._size
        matrix = cv2.getRotationMatrix2D((float(width), float(height)), self._angle[frame], self._zoom[frame])
        matrix[:, 2] += self._shift[frame] - (width / 2, height / 2)
        return cv2.warpAffine(
            self._texture, matrix, self._size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )


class _Thing:
    """A textured object with an outline that bends and a pose for every frame."""

    def __init__(
        self, rng: np.random.Generator, spec: SyntheticSpec, frames: int, shape: str, size: float
    ) -> None:
        self._frame_size = (spec.width, spec.height)
        self._texture = _texture(rng, 384, 384, wave=rng.uniform(20, 50), contrast=1.0)
        self._rim = tuple(rng.uniform(0, 255, 3).tolist())
        self._radius = _outline(shape)
        self._half = size / 2 * np.exp(_smooth(rng, frames, 20, 0.25))
        self._aspect = np.exp(rng.uniform(-0.25, 0.25) + _smooth(rng, frames, 20, 0.15))
        self._angle = np.radians(rng.uniform(0, 360) + _smooth(rng, frames, 20, 50.0))
        self._bend = _smooth(rng, frames, 12, 0.08), _smooth(rng, frames, 12, 0.08)
        self._slide = 192 + np.stack([_smooth(rng, frames, 20, 42.0) for _ in range(2)], 1)
        centre = np.stack([side * (0.5 + _smooth(rng, frames, 12, 0.20)) for side in self._frame_size], 1)
        self.centre = np.clip(centre, 0.14 * np.array(self._frame_size), 0.86 * np.array(self._frame_size))

    def crossing(self, rng: np.random.Generator, target: _Thing) -> _Thing:
        """The same object on a straight way that meets ``target`` in the middle half of the video."""
        frames = len(self.centre)
        meeting = int(rng.integers(frames // 4, 3 * frames // 4 + 1))
        angle = rng.uniform(0, 2 * np.pi)
        speed = max(rng.uniform(6.0, 11.0), 0.55 * self._frame_size[0] / max(meeting, 1))  # far off at first
        step = speed * np.array([np.cos(angle), np.sin(angle)])
        if step @ (target.centre[meeting] - target.centre[0]) > 0:  # never along with the target
            step = -step
        self.centre = target.centre[meeting] + (np.arange(frames) - meeting)[:, None] * step
        return self

    def polygon(self, frame: int) -> np.ndarray:
        """The outline in the frame, px ``[K, 2]``."""
        theta = np.linspace(0, 2 * np.pi, len(self._radius), endpoint=False)
        bend = 1 + self._bend[0][frame] * np.sin(2 * theta) + self._bend[1][frame] * np.cos(3 * theta)
        points = np.stack([np.cos(theta), np.sin(theta)], 1) * (self._radius * bend)[:, None]
        return points @ self._pose(frame).T + self.centre[frame]

    def area(self, frame: int) -> int:
        """Pixels of the whole object, whatever covers it."""
        return int(cv2.contourArea(self.polygon(frame).astype(np.float32)))

    def draw(self, canvas: np.ndarray, frame: int) -> np.ndarray:
        """Paint the object into ``canvas``; returns where it is, uint8 ``[H, W]``, 255 inside."""
        width, height = self._frame_size
        seen = np.zeros((height, width), np.uint8)
        polygon = self.polygon(frame)
        left, top = np.clip(np.floor(polygon.min(0)).astype(int) - 1, 0, (width, height))
        right, bottom = np.clip(np.ceil(polygon.max(0)).astype(int) + 2, 0, (width, height))
        if right - left < 2 or bottom - top < 2:
            return seen
        mask = np.zeros((bottom - top, right - left), np.uint8)
        outline = np.round((polygon - (left, top)) * 16).astype(np.int32)
        cv2.fillPoly(mask, [outline], 255, cv2.LINE_AA, 4)
        forward = np.column_stack([self._pose(frame) / 64.0, np.zeros(2)])  # 128 texture px span the object
        forward[:, 2] = self.centre[frame] - (left, top) - forward[:, :2] @ self._slide[frame]
        patch = cv2.warpAffine(
            self._texture,
            forward,
            (right - left, bottom - top),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        cv2.polylines(patch, [outline], True, self._rim, RIM, cv2.LINE_AA, 4)
        region = canvas[top:bottom, left:right]
        alpha = (mask.astype(np.float32) / 255)[..., None]
        region[...] = (region + alpha * (patch.astype(np.float32) - region)).astype(np.uint8)
        seen[top:bottom, left:right] = (mask > 127) * np.uint8(255)
        return seen

    def _pose(self, frame: int) -> np.ndarray:
        """Unit circle to frame, px: stretch, then turn."""
        cosine, sine = np.cos(self._angle[frame]), np.sin(self._angle[frame])
        stretch = np.sqrt(self._aspect[frame])
        return np.array([[cosine, -sine], [sine, cosine]]) @ np.diag(
            [self._half[frame] * stretch, self._half[frame] / stretch]
        )


def _outline(shape: str, points: int = 72) -> np.ndarray:
    """Radius of a shape's outline over the angle, ``[points]``, at most about 1."""
    theta = np.linspace(0, 2 * np.pi, points, endpoint=False)
    if shape == "disc":
        return np.ones(points)
    if shape == "box":
        return np.minimum(1 / np.maximum(np.abs(np.cos(theta)), np.abs(np.sin(theta))), 1.3)
    if shape == "star":
        return 0.78 + 0.22 * np.cos(5 * theta)
    if shape == "leaf":
        return 0.55 + 0.45 * np.cos(theta) ** 2
    return 0.75 + 0.25 * np.cos(theta)  # drop


def _smooth(rng: np.random.Generator, frames: int, every: int, sigma: float) -> np.ndarray:
    """A smooth random course ``[frames]``: cubic through a normal draw about ``every`` so many frames."""
    knots = max(2, round(frames / every) + 1)
    draws = np.clip(rng.normal(0, sigma, (1, knots)), -2 * sigma, 2 * sigma).astype(np.float32)
    return cv2.resize(draws, (frames, 1), interpolation=cv2.INTER_CUBIC)[0].astype(np.float64)


def _texture(rng: np.random.Generator, width: int, height: int, wave: float, contrast: float) -> np.ndarray:
    """A random texture (noise, stripes, checks or dots), RGB uint8 ``[height, width, 3]``.

    Args:
        wave: px from stripe to stripe.
        contrast: of its colours around their mean, 1 for all there are.
    """
    field = _noise(rng, width, height, wave)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    warp = 0.6 * wave * _noise(rng, width, height, wave)
    u = (x * np.cos(angle) + y * np.sin(angle) + warp) * (2 * np.pi / wave)
    v = (y * np.cos(angle) - x * np.sin(angle) + warp) * (2 * np.pi / wave)
    kind = rng.integers(4)
    if kind == 1:
        field = 0.45 * field + 0.55 * np.sin(u)
    elif kind == 2:
        field = 0.45 * field + 0.65 * np.sign(np.sin(u) * np.sin(v))
    elif kind == 3:
        field = 0.5 * field + 0.9 * (np.cos(u) + np.cos(v) > 0.9)
    field = (field - field.min()) / np.ptp(field)
    colours = rng.uniform(15, 240, (int(rng.integers(3, 6)), 3))
    colours = colours.mean(0) + contrast * (colours - colours.mean(0))
    table = cv2.resize(colours[None].astype(np.float32), (256, 1), interpolation=cv2.INTER_LINEAR)[0]
    return table[(field * 255).astype(np.uint8)].astype(np.uint8)


def _noise(rng: np.random.Generator, width: int, height: int, wave: float) -> np.ndarray:
    """Noise of four octaves below ``2 * wave`` px, about in [-1, 1], float32 ``[height, width]``."""
    field = np.zeros((height, width), np.float32)
    for cell, weight in ((2 * wave, 1.0), (wave, 0.7), (wave / 2, 0.5), (wave / 4, 0.35)):
        grid = rng.uniform(-1, 1, (int(height / cell) + 3, int(width / cell) + 3)).astype(np.float32)
        field += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return field / 1.6
