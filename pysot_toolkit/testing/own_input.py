"""Trackers on a user's own input: one or more objects followed through a video, a folder of images or a camera."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from config.console import Progress, duration, say, warn
from config.errors import UserError
from config.files import read_json, refuse_newer, sha256, write_json
from config.interrupt import Interrupt
from config.settings import Settings
from pysot_toolkit.testing.checkpoints import find_checkpoint
from pysot_toolkit.testing.frame_sources import Frame, Prefetch, Source, open_source
from pysot_toolkit.testing.live_view import Mark, VideoFile, Visdom, Window, check_window, draw, select_box
from pysot_toolkit.testing.ranks import choose_rank_device
from pysot_toolkit.testing.targets import Target, parse_box, read_targets
from pysot_toolkit.trackers.base import TRACKERS, Tracker, build_tracker, track_together, twin
from pysot_toolkit.trackers.images import BadImage

FORMAT = 1  # of the JSON file
_ALONE = "target"  # what a single object is called


def run_track(options: argparse.Namespace, settings: Settings) -> int:
    """Track in a user's own input; draw, show and record what the trackers say.

    Whatever ends the tracking early, an error too, the frames before it are kept. Options: ``source``,
    ``arch``, ``checkpoint``, ``box``, ``boxes``, ``save``, ``json``, ``show``, ``visdom``.
    """
    targets = _given_targets(options)
    if targets is None:
        check_window("without --box and --boxes the target is selected in a window")
    if options.show:
        check_window("--show")
    TRACKERS.get(options.arch)
    checkpoint = _find_checkpoint(options.checkpoint, settings)
    source = open_source(options.source)
    save, record = _outputs(options, [source.name, str(checkpoint)])
    with contextlib.ExitStack() as stack:
        video = stack.enter_context(VideoFile(save, source.fps)) if save else None
        window = stack.enter_context(Window()) if options.show else None
        browser = Visdom() if options.visdom else None
        device = choose_rank_device([], settings, rank=0, size=1)
        tracker = build_tracker(options.arch, checkpoint, settings, device)
        run = OwnInput(source, tracker, video, window, browser)
        with Interrupt() as stop:
            try:
                run.follow(targets, stop)
            finally:
                if record and run.frames:
                    facts = {
                        "arch": options.arch,
                        "checkpoint": str(checkpoint),
                        "sha256": sha256(checkpoint),
                    }
                    write_json(record, run.record() | {"tracker": facts})
                if video is not None and run.frames:
                    video.finish()
                run.report([path for path in (save, record) if path is not None])
    stop.pass_on()
    return 0


class Stopwatch:
    """Seconds spent on each part of the work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of the ``with`` block to ``name``."""
        begin = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - begin)

    def add(self, name: str, seconds: float) -> None:
        """Count ``seconds`` to ``name``."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


class Followed:
    """One object, its tracker, and an answer per frame: None before its first."""

    def __init__(self, target: Target, tracker: Tracker) -> None:
        self.target, self.tracker = target, tracker
        self.answers: list[Mark | None] = []

    @property
    def last(self) -> Mark | None:
        """Its newest answer."""
        return self.answers[-1] if self.answers else None

    def begin(self, frame: Frame) -> Mark | None:
        """Start the object in a frame, if that is late enough.

        Raises:
            UserError: the frame that it starts from cannot be read.
        """
        name = self.target.name
        if frame.number < self.target.start:
            return None
        if isinstance(frame.image, BadImage):  # later than its start where a camera's frame was missed
            raise UserError(f"{frame.image}; '{name}' starts there: start it from another frame")
        self.tracker.initialize(frame.image, self.target.bbox.copy())
        return Mark(name, self.target.bbox, 1.0, False)


def follow_all(objects: Sequence[Followed], frame: Frame) -> list[Mark | None]:
    """Start or follow the objects in a frame; one that cannot be read keeps their last boxes, with score 0.

    Raises:
        UserError: as ``Followed.begin``.
    """
    marks: dict[int, Mark | None] = {}
    going = [n for n, one in enumerate(objects) if one.last is not None]
    if isinstance(frame.image, BadImage):
        marks = {n: last._replace(score=0.0) for n in going if (last := objects[n].last)}
    elif going:
        predictions = track_together([objects[n].tracker for n in going], frame.image)
        for n, (bbox, score, lost) in zip(going, predictions):
            if not np.isfinite(bbox).all():
                raise ValueError(f"the tracker's box of frame {frame.number} is {bbox.tolist()}")
            marks[n] = Mark(objects[n].target.name, bbox, float(score), bool(lost))
    for n, one in enumerate(objects):
        one.answers.append(marks[n] if n in marks else one.begin(frame))
    return [one.last for one in objects]


class OwnInput:
    """A source, what is followed in it, and what has been said so far.

    Args:
        source: where the frames come from.
        tracker: for the first object; the others get copies that share its network.
        video: where the drawn frames go.
        window: the same.
        browser: the same.
    """

    def __init__(
        self,
        source: Source,
        tracker: Tracker,
        video: VideoFile | None = None,
        window: Window | None = None,
        browser: Visdom | None = None,
    ) -> None:
        self.source, self._tracker = source, tracker
        self._video, self._window, self._browser = video, window, browser
        self.frames: list[int] = []
        self.unreadable: list[int] = []
        self.objects: list[Followed] = []
        self.complete = False  # the source came to its end
        self._size = (0, 0)  # width, height, px
        self._image = np.empty(0)  # the last that could be read
        self._clock, self._elapsed = Stopwatch(), 0.0

    def follow(self, targets: Sequence[Target] | None, stop: Interrupt) -> None:
        """Track until the source ends, ``stop()`` or the window says so.

        Args:
            targets: what to follow; None: what the user selects in a window.
            stop: asked between frames.

        Raises:
            UserError: no frames, an unreadable first one, a box outside it, a change of the image size, a start
                after the end.
        """
        label = f"tracking in {Path(self.source.name).name}"
        begin = time.perf_counter()
        with Prefetch(self.source) as frames, Progress(self.source.count, label, "frames") as progress:
            going = True
            while going:
                with self._clock.part("wait"):
                    frame = frames.take(stop)
                if frame is None:
                    break
                if not self.objects:
                    self._begin(frame, targets)
                    begin = time.perf_counter()  # without the time that selecting took
                going = self._step(frame)
                self._elapsed = time.perf_counter() - begin
                progress.update(score=self._scores())
            self.complete = going and not stop()
        if self.complete:
            self._check_end()

    def _begin(self, frame: Frame, targets: Sequence[Target] | None) -> None:
        """Know the image size from the first frame, and what to follow."""
        if isinstance(frame.image, BadImage):
            raise UserError(f"{frame.image}; the first frame must be whole, start from another one")
        height, width = frame.image.shape[:2]
        self._size = (width, height)
        if targets is None:
            targets = [Target(_ALONE, select_box(frame.image), frame.number)]
        count = self.source.count if self.source.kind == "folder" else 0  # a video only announces it
        for target in targets:
            x, y, w, h = target.bbox
            if 0 < count <= target.start:
                raise UserError(
                    f"'{target.name}' starts in frame {target.start}, {self.source.name} holds frames 0 to {count - 1}; "
                    "give the box of one of them"
                )
            if x >= width or y >= height or x + w <= 0 or y + h <= 0:
                raise UserError(
                    f"box {target.bbox.tolist()} of '{target.name}': lies outside the image of {width} x {height} px; "
                    "give x,y,w,h in px from the top left corner"
                )
        trackers = [self._tracker, *(twin(self._tracker) for _ in targets[1:])]
        self.objects = [Followed(target, tracker) for target, tracker in zip(targets, trackers)]

    def _step(self, frame: Frame) -> bool:
        """Track one frame and show it; whether to go on."""
        image, index = frame.image, frame.number
        if not isinstance(image, BadImage) and image.shape[1::-1] != self._size:
            raise UserError(
                f"{self.source.name}: frame {index} has {image.shape[1]} x {image.shape[0]} px, those before it "
                f"{self._size[0]} x {self._size[1]}; make them all the same size"
            )
        self._clock.add("decode", frame.seconds)
        with self._clock.part("track"):
            marks = follow_all(self.objects, frame)
        places = index - self.frames[-1] if self.frames else 1
        self.frames.append(index)
        if isinstance(image, BadImage):
            self.unreadable.append(index)
        else:
            self._image = image
        return self._show(index, marks, places)

    def _show(self, index: int, marks: list[Mark | None], places: int) -> bool:
        """Draw frame ``index``, which takes ``places`` of the source's; whether to go on."""
        if self._video is None and self._window is None and self._browser is None:
            return True
        with self._clock.part("draw"):
            text = f"#{index} unreadable" if index in self.unreadable[-1:] else f"#{index}"
            canvas = draw(self._image, marks, text)
        if self._video is not None:
            with self._clock.part("write"):
                self._video.write(canvas, places)  # so that a camera's video keeps its speed
        if self._window is None and self._browser is None:
            return True
        with self._clock.part("show"):
            if self._browser is not None:
                self._browser.show(canvas, index, marks)
            return self._window is None or self._window.show(canvas)

    def _scores(self) -> str:
        return " ".join(f"{mark.score:.2f}" if mark else "-" for mark in (one.last for one in self.objects))

    def _check_end(self) -> None:
        """What is to be said of a source that has ended."""
        name, count = self.source.name, len(self.frames)
        if not count:
            raise UserError(
                f"{name}: gives no frame; check that it plays, or convert it (ffmpeg -i IN out.mp4)"
            )
        if count < self.source.count:
            warn(f"{name}: {count} of the {self.source.count} frames it announces can be read; it ends there")
        late = [followed.target for followed in self.objects if followed.target.start > self.frames[-1]]
        if late:
            raise UserError(
                f"'{late[0].name}' starts in frame {late[0].start}, the input ends with frame {self.frames[-1]}; "
                "give the box of an earlier frame"
            )

    def record(self) -> dict[str, Any]:
        """What was said about the frames so far, as docs/track.md describes it."""
        count = len(self.frames)
        source = {"kind": self.source.kind, "name": self.source.name, "fps": self.source.fps}
        objects = {}
        for followed in self.objects:
            marks = followed.answers[:count]
            objects[followed.target.name] = {
                "start": next(
                    (index for index, mark in zip(self.frames, marks) if mark), followed.target.start
                ),
                "boxes": [mark and mark.bbox.tolist() for mark in marks],
                "scores": [mark and mark.score for mark in marks],
                "lost": [mark and mark.lost for mark in marks],
            }
        return {
            "format": FORMAT,
            "source": source | {"width": self._size[0], "height": self._size[1]},
            "complete": self.complete,
            "frames": self.frames,
            "unreadable": self.unreadable,
            "objects": objects,
        }

    def report(self, written: Sequence[Path]) -> None:
        """Print how fast each part was, and what is unusual."""
        count = len(self.frames)
        if not count:
            return
        if self.unreadable:
            which = ", ".join(map(str, self.unreadable[:5])) + (" ..." if len(self.unreadable) > 5 else "")
            warn(
                f"{len(self.unreadable)} of {count} frames cannot be read; the last boxes were kept: frame {which}"
            )
        missed = self.frames[-1] + 1 - count
        if missed:
            warn(f"{missed} frames of {self.source.name} came while others were tracked, and were left out")
        speed = count / max(self._elapsed, 1e-9)
        say(
            f"{count} frames in {duration(self._elapsed)}: {speed:.1f} frames/s, decoding and cropping included"
        )
        parts = {name: 1e3 * seconds / count for name, seconds in self._clock.seconds.items()}
        waited = parts.pop("wait", 0.0)
        for name, milliseconds in parts.items():
            note = f"  (beside tracking; {waited:.2f} ms waited for)" if name == "decode" else ""
            say(f"  {name:<7}{milliseconds:8.2f} ms per frame{note}")
        for path in written:
            say(f"  {path}")


def _given_targets(options: argparse.Namespace) -> list[Target] | None:
    """What the command line says to follow; None: nothing."""
    if options.box is not None:
        return [Target(_ALONE, parse_box(options.box, "--box"))]
    return read_targets(Path(options.boxes)) if options.boxes is not None else None


def _find_checkpoint(text: str, settings: Settings) -> Path:
    try:
        return find_checkpoint(text, settings)
    except UserError as error:  # which calls the option as other verbs have it
        raise UserError(str(error).replace("--resume", "--checkpoint", 1)) from error


def _refuse_newer_record(path: Path) -> None:
    try:
        content = read_json(path, "tracking record")
    except UserError:
        return  # something else, which the user gives up
    if isinstance(content, dict) and "format" in content:
        refuse_newer(path, content["format"], FORMAT, "tracking record", ", or give another name")


def _outputs(options: argparse.Namespace, inputs: list[str]) -> tuple[Path | None, Path | None]:
    """The files of ``--save`` and ``--json``.

    Raises:
        UserError: one cannot be written, is an input, or is there in a newer version.
    """
    if options.save and Path(options.save).suffix.lower() != ".mp4":
        raise UserError(f"--save {options.save}: the video is an MP4; give a name that ends with .mp4")
    if options.boxes:
        inputs = [*inputs, str(Path(options.boxes).expanduser().resolve())]
    paths: list[Path | None] = []
    for name in ("save", "json"):
        given = getattr(options, name)
        path = Path(given).expanduser().resolve() if given else None
        if path is not None:
            folder = next(parent for parent in path.parents if parent.exists())
            if str(path) in inputs or path in paths:
                raise UserError(f"--{name} {given}: is used for something else; give another name")
            if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
                raise UserError(f"--{name} {given}: cannot be written; give another file or fix permissions")
            if name == "json" and path.is_file():
                _refuse_newer_record(path)
        paths.append(path)
    return paths[0], paths[1]
