"""Own videos: a folder of image folders and video files, labelled by a sampling file with boxes."""

from __future__ import annotations

import errno
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np

from config.console import Progress, warn
from config.errors import UserError
from ltr.dataset.annotation_files import check_sizes, read_boxes
from ltr.dataset.base import DATASETS, Annotation, Video, VideoDataset, subfolders
from ltr.dataset.frame_index import natural_key

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")

_JPEG_QUALITY = 95


@DATASETS.register("Frames")
class Frames(VideoDataset):
    """``{name}/`` with images in the order of the numbers in their names, or a video file ``{name}.mp4``.

    The only split is ``all``. No ground truth is needed: the labelled frames and their boxes come
    from ``Frames_all_kf_{num}.json``. An image folder may hold a ``groundtruth.txt``, x,y,w,h
    in pixels per line and image; then frames can be sampled from it.

    Video files are unpacked to JPEG once, into the cache; a file that changed is unpacked again.
    """

    name = "Frames"
    splits = ("all",)

    @staticmethod
    def sequence_key(sequence: str) -> str:
        """``name`` as ``Frames_name``."""
        return f"Frames_{sequence}"

    def unlabelled(self) -> list[str]:
        return [video.key for video in self._videos if not (Path(video.labels) / "groundtruth.txt").exists()]

    def _find_videos(self, cache_dir: Path) -> list[Video]:
        found = {name: self.root / name for name in subfolders(self.root)}
        for file in self.root.iterdir():
            if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file() and not file.name.startswith("."):
                if file.stem in found:
                    raise UserError(f"{file}: {found[file.stem].name} has the same name; rename one of them")
                found[file.stem] = file
        videos = []
        for name in sorted(found, key=natural_key):
            path = found[name]
            folder = path if path.is_dir() else unpack(path, cache_dir / "frames")
            videos.append(Video(self.sequence_key(name), str(folder), str(folder)))
        return videos

    def _read_annotation(self, video: Video, count: int) -> Annotation:
        path = Path(video.labels) / "groundtruth.txt"
        bbox = read_boxes(path, count)
        return Annotation(bbox, check_sizes(path, bbox, np.zeros(count, dtype=bool)))


def unpack(video: Path, cache_dir: Path) -> Path:
    """The folder with the frames of a video file as ``00000001.jpg`` ..., made when it is not there.

    A half-unpacked video is never seen: the folder gets its name when all frames are in it. The
    name depends on the file's path, size and time of change.

    Raises:
        UserError: OpenCV cannot read the file, or the frames cannot be written.
    """
    try:
        status = video.stat()
        identity = f"{video.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
        folder = cache_dir / f"{video.stem}-{sha256(identity.encode()).hexdigest()[:12]}"
        if not folder.is_dir():
            _unpack_to(folder, video)
    except OSError as error:
        raise UserError(
            f"{video}: cannot be unpacked to {cache_dir} ({error.strerror}); free space or fix permissions"
        ) from error
    return folder


def _unpack_to(folder: Path, video: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{video.stem}."))
    try:
        _write_frames(video, partial)
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError as error:
        if error.errno not in (
            errno.EEXIST,
            errno.ENOTEMPTY,
        ):  # another process was faster: its folder serves
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_frames(video: Path, folder: Path) -> None:
    capture = cv2.VideoCapture(str(video))
    try:
        announced = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        count = 0
        with Progress(announced, f"unpacking {video.name}", "frames") as progress:
            while capture.isOpened():
                whole, image = capture.read()
                if not whole:
                    break
                count += 1
                _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
                (folder / f"{count:08d}.jpg").write_bytes(data.tobytes())
                progress.update()
    finally:
        capture.release()
    if not count:
        raise UserError(
            f"{video}: OpenCV reads no frame from this video; convert it (ffmpeg -i ... out.mp4) or remove it"
        )
    if count < announced:
        warn(f"{video}: {count} of the {announced} frames it announces can be read; the rest is left out")
