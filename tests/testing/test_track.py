"""Own input through the command line: videos, folders, cameras, several objects, whatever goes wrong."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from config.cli import run
from config.defaults import get_defaults
from ltr.models.registry import build_network
from pysot_toolkit.testing import frame_sources
from pysot_toolkit.testing.one_pass import Clip
from pysot_toolkit.trackers.base import build_tracker, twin
from scripts import track
from tests.conftest import need_shared
from tests.testing.alone import run_alone
from tests.testing.test_frame_sources import wait_for
from tests.trackers import test_dimp_tracker

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = {
    "transt": {
        "backbone": "tiny",
        "hidden_dim": 16,
        "nheads": 2,
        "dim_feedforward": 32,
        "featurefusion_layers": 1,
    },
    "ocean": {"backbone": "ocean_tiny", "hidden_dim": 16, "towers": 1, "template_margin": 1},
}
CROPS = {
    "transt": {"template_size": 32, "search_size": 64, "template_factor": 2.0, "search_factor": 4.0},
    "ocean": {"template_size": 63, "search_size": 127, "template_factor": 2.0},
}
COUNT, FPS = 24, 30.0
BOX = "129,80,64,78"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """A file with a tiny network for each of two architectures."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for arch, args in NETWORKS.items():
        torch.manual_seed(0)
        content = {
            "format": 1, "epoch": 1, "net": build_network(arch, args).state_dict(),
            "constructor": {"name": arch, "args": args}, "settings": {"data": CROPS[arch]},
        }  # fmt: skip
        torch.save(content, folder / f"{arch}.pth.tar")
    return {arch: folder / f"{arch}.pth.tar" for arch in NETWORKS}


@pytest.fixture(scope="module")
def images() -> list[Path]:
    """Real frames, in order."""
    return sorted(need_shared("sequences", "OTB100", "David", "img").glob("*.jpg"))[:COUNT]


@pytest.fixture(scope="module")
def clip(images, tmp_path_factory) -> Path:
    """They as an MP4 file."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, [cv2.imread(str(image)) for image in images])
    return path


@pytest.fixture
def folder(images, tmp_path) -> Path:
    """They as a folder whose names sort wrongly as text."""
    path = tmp_path / "frames"
    path.mkdir()
    for number, image in enumerate(images):
        shutil.copy(image, path / f"f{number}.jpg")
    return path


@pytest.fixture
def cli(checkpoints, monkeypatch, tmp_path, capfd):
    """``cli(source, option, ...)`` runs the verb in this process, with files in ``tmp_path/out``."""

    def call(source, *options, arch: str = "transt", code: int = 0):
        out = tmp_path / "out"
        given = (
            [] if "--json" in options else ["--json", str(out / "out.json"), "--save", str(out / "out.mp4")]
        )
        words = [str(source), "--arch", arch, "--checkpoint", str(checkpoints[arch]), "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", ["track.py", *words, *given, *map(str, options)])
        capfd.readouterr()
        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as end:
                run(track.main)
        finally:
            signal.signal(signal.SIGTERM, before)
        printed = capfd.readouterr()
        assert end.value.code == code, printed
        assert not list(tmp_path.rglob(".out*"))
        record = out / "out.json"
        return printed, json.loads(record.read_text()) if record.exists() else None

    return call


def write_video(path: Path, frames: list[np.ndarray], codec: str = "mp4v") -> None:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), FPS, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()


def read_video(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (answer := capture.read())[0]:
        frames.append(answer[1])
    return frames


def one_pass(arch: str, checkpoint: Path, images: list[Path], box=BOX):
    """What testing on a benchmark says of the same frames."""
    tracker = build_tracker(arch, checkpoint, get_defaults(), torch.device("cpu"))
    return run_alone(
        tracker, Clip("clip", [str(p) for p in images], np.array(list(map(float, box.split(",")))))
    )


def test_a_video_is_tracked_drawn_and_recorded(cli, clip, checkpoints, tmp_path):
    printed, record = cli(clip, "--box", BOX)
    tracker = build_tracker("transt", checkpoints["transt"], get_defaults(), torch.device("cpu"))
    frames = read_video(clip)
    tracker.initialize(cv2.cvtColor(frames[0], cv2.COLOR_BGR2RGB), np.array([129.0, 80, 64, 78]))
    answers = [tracker.track(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)) for frame in frames[1:]]
    followed = record["objects"]["target"]
    assert followed["boxes"] == [[129.0, 80, 64, 78], *(answer.bbox.tolist() for answer in answers)]
    assert followed["scores"] == [1.0, *(answer.score for answer in answers)]
    assert followed["start"] == 0 and followed["lost"] == [False] * COUNT
    assert record["source"] == {"kind": "video", "name": str(clip), "width": 320, "height": 240, "fps": FPS}
    digest = hashlib.sha256(checkpoints["transt"].read_bytes()).hexdigest()
    assert record["tracker"] == {"arch": "transt", "checkpoint": str(checkpoints["transt"]), "sha256": digest}
    assert record["frames"] == list(range(COUNT)) and record["complete"] and not record["unreadable"]

    video = tmp_path / "out/out.mp4"
    drawn = read_video(video)
    assert len(drawn) == COUNT and cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FPS) == FPS
    difference = np.abs(drawn[0].astype(int) - frames[0]).mean(-1)
    edge, inside = difference[80:158, 127:132].mean(), difference[95:140, 140:180].mean()
    assert edge > 40 and inside < 10  # the box is drawn where it is, the rest is the frame
    for part in ("decode", "track", "draw", "write"):
        assert re.search(rf"^  {part} +\d+\.\d\d ms per frame", printed.out, re.MULTILINE)
    assert re.search(
        rf"^{COUNT} frames in 0:\d\d: \d+\.\d frames/s, decoding and cropping included", printed.out
    )
    assert str(video) in printed.out and not printed.err


@pytest.mark.parametrize("arch", ["transt", "ocean"])
def test_a_folder_is_tracked_as_testing_does(cli, folder, images, checkpoints, arch):
    _, record = cli(folder, "--box", BOX, arch=arch)
    expected = one_pass(arch, checkpoints[arch], images)
    followed = record["objects"]["target"]
    assert followed["boxes"] == expected.bboxes.tolist() and followed["scores"] == expected.scores.tolist()
    assert record["source"]["kind"] == "folder" and record["source"]["name"] == str(folder)


@pytest.mark.parametrize("arch", ["transt", "ocean"])
def test_several_objects_are_each_followed_as_if_alone(cli, folder, images, checkpoints, tmp_path, arch):
    boxes = {
        "face": [129, 80, 64, 78],
        "sign": {"box": [20, 30, 50, 60.5]},
        "late": {"box": [60, 90, 50, 40], "frame": 7},
    }
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    _, record = cli(folder, "--boxes", tmp_path / "boxes.json", arch=arch)
    assert record["objects"].keys() == boxes.keys()
    for name, box, start in (("face", BOX, 0), ("sign", "20,30,50,60.5", 0), ("late", "60,90,50,40", 7)):
        followed, alone = record["objects"][name], one_pass(arch, checkpoints[arch], images[start:], box)
        assert followed["start"] == start
        assert followed["boxes"][:start] == followed["scores"][:start] == [None] * start, name
        # Several are seen in one call, which another CPU may round differently.
        np.testing.assert_allclose(followed["boxes"][start:], alone.bboxes, rtol=0, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(followed["scores"][start:], alone.scores, rtol=0, atol=1e-5, err_msg=name)
        assert followed["lost"] == [None] * start + [False] * (COUNT - start), name


@pytest.mark.parametrize("name", ["atom", "dimp50"])
def test_trackers_that_learn_share_a_network_and_nothing_else(name):
    """Two twins that take turns answer as each does alone, and hold one network."""
    frames, boxes = test_dimp_tracker.video()
    starts = (boxes[0], np.array([20.0, 30, 40, 36]))
    alone = [test_dimp_tracker.run(test_dimp_tracker.tracker(name), frames[:4], box) for box in starts]
    first = test_dimp_tracker.tracker(name)
    first.notes = []  # what a tracker may make before it is started
    pair = (first, twin(first))
    assert pair[0].network is pair[1].network and pair[0].notes is not pair[1].notes
    for tracker, box in zip(pair, starts):
        tracker.initialize(frames[0], box)
    turns = [[tracker.track(frame) for tracker in pair] for frame in frames[1:4]]
    for one, together in zip(alone, zip(*turns)):
        assert test_dimp_tracker.same(one, together)


def test_grey_16_bit_and_alpha_frames_are_tracked_alike(cli, images, tmp_path):
    """The same grey pictures, stored in four ways."""

    def stored(kind: str):
        path = tmp_path / kind
        path.mkdir()
        for number, image in enumerate(images[:6]):
            grey = cv2.imread(str(image), cv2.IMREAD_GRAYSCALE)
            pixels = {
                "colour": np.dstack([grey] * 3), "grey": grey, "grey16": grey.astype(np.uint16) << 8,
                "alpha": np.dstack([grey] * 3 + [255 - grey]),
            }[kind]  # fmt: skip
            cv2.imwrite(str(path / f"{number}.png"), pixels)
        return cli(path, "--box", BOX)[1]["objects"]

    expected = stored("colour")
    assert all(stored(kind) == expected for kind in ("grey", "grey16", "alpha"))


@pytest.mark.faults
def test_an_image_that_cannot_be_read_keeps_the_last_box(cli, folder, images, checkpoints, tmp_path):
    for number in (5, 6):
        path = folder / f"f{number}.jpg"
        path.write_bytes(path.read_bytes()[:4000])
    printed, record = cli(folder, "--box", BOX)
    followed = record["objects"]["target"]
    assert record["unreadable"] == [5, 6] and record["frames"] == list(range(COUNT)) and record["complete"]
    assert followed["boxes"][5] == followed["boxes"][6] == followed["boxes"][4]
    assert followed["scores"][5:7] == [0.0, 0.0] and all(followed["scores"][7:])
    rest = one_pass("transt", checkpoints["transt"], [p for i, p in enumerate(images) if i not in (5, 6)])
    assert followed["boxes"][7:] == rest.bboxes[5:].tolist()
    assert len(read_video(tmp_path / "out/out.mp4")) == COUNT
    [line] = printed.err.splitlines()
    assert f"2 of {COUNT} frames cannot be read" in line and "frame 5, 6" in line


@pytest.mark.faults
def test_a_damaged_frame_of_a_video_keeps_its_place(cli, images, tmp_path):
    parts = [path.read_bytes() for path in images]
    damaged = bytearray(parts[9])
    damaged[300:500] = np.random.default_rng(0).bytes(200)
    (tmp_path / "whole.mjpeg").write_bytes(b"".join(parts))
    (tmp_path / "damaged.mjpeg").write_bytes(b"".join([*parts[:9], bytes(damaged), *parts[10:]]))
    whole = list(frame_sources.open_source(str(tmp_path / "whole.mjpeg")).images)
    printed, record = cli(tmp_path / "damaged.mjpeg", "--box", BOX)
    assert record["unreadable"] == [9] and record["frames"] == list(range(COUNT))
    images_after = list(frame_sources.open_source(str(tmp_path / "damaged.mjpeg")).images)[10:]
    assert all(np.array_equal(a, b) for a, b in zip(images_after, whole[10:], strict=True))
    assert printed.err.count("\n") == 1  # and nothing of the decoder's


@pytest.mark.faults
def test_a_video_that_breaks_off_is_tracked_to_there(cli, images, tmp_path):
    path = tmp_path / "clip.avi"
    write_video(path, [cv2.imread(str(image)) for image in images], "MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    printed, record = cli(path, "--box", BOX)
    count = len(record["frames"])
    assert COUNT // 3 < count < COUNT and len(record["objects"]["target"]["boxes"]) == count
    assert f"{count} of the {COUNT} frames it announces" in printed.err


@pytest.mark.faults
def test_a_change_of_size_ends_it_and_keeps_what_was_before(cli, folder, tmp_path):
    path = folder / "f8.jpg"
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (160, 120)))
    printed, record = cli(folder, "--box", BOX, code=2)
    assert (
        printed.err.count("\n") == 1 and "frame 8 has 160 x 120 px, those before it 320 x 240" in printed.err
    )
    assert record["frames"] == list(range(8)) and not record["complete"]
    assert len(read_video(tmp_path / "out/out.mp4")) == 8


@pytest.mark.faults
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": [1, 2', "is not valid JSON"),
        ("{}", "names no objects"),
        ("[1, 2, 3, 4]", "names no objects"),
        ('{"a": [1, 2, 3]}', r"'a': \[1, 2, 3\]: is no box"),
        ('{"a": "1,2,3,4"}', "is no box"),
        ('{"a": [true, 2, 3, 4]}', "is no box"),
        ('{"a": [1, 2, 3, 0]}', "has no area"),
        ('{"a": [1, 2, 30, 40], "b": [-50, 2, 30, 40]}', "of 'b': lies outside the image"),
        ('{"a": {"bbox": [1, 2, 3, 4]}}', "it has bbox"),
        ('{"a": {"box": [1, 2, 3, 4], "frame": -1}}', "starts in frame -1"),
        ('{"a": {"box": [1, 2, 3, 4], "frame": 1.5}}', "starts in frame 1.5"),
        (
            '{"a": {"box": [1, 2, 3, 4], "frame": 999}}',
            f"starts in frame 999, .* holds frames 0 to {COUNT - 1}",
        ),
    ],
)
def test_bad_boxes_are_one_line(cli, folder, tmp_path, text, message):
    (tmp_path / "boxes.json").write_text(text)
    printed, _ = cli(folder, "--boxes", tmp_path / "boxes.json", code=2)
    assert re.search(message, printed.err) and printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.faults
@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("frames", "--box 1,2,0,4", "--box 1,2,0,4: has no area"),
        ("frames", "--box 1,2,3,-4", "has no area"),
        ("frames", "--box 320,2,30,40", r"lies outside the image of 320 x 240"),
        ("frames", "--box 1,2,3", "--box 1,2,3: is no box"),
        ("frames", "--box 1;2;3;4", "is no box"),
        ("frames", "--box nan,2,3,4", "is no box"),
        ("frames", "--box 1,2,3,4 --boxes later", "not allowed with"),
        ("frames", "--boxes missing", "file of boxes cannot be read"),
        ("frames", "", "without --box and --boxes .* has no windows.*pip install opencv-python"),
        ("frames", f"--box {BOX} --show", "--show: .* has no windows"),
        ("frames", f"--box {BOX} --visdom", "visdom does not load .*docs/track.md"),
        ("frames", f"--box {BOX} --arch tranzt", "did you mean 'transt'"),
        ("frames", f"--box {BOX} --arch ocean", "another network|holds network"),
        ("frames", f"--box {BOX} --checkpoint nowhere.pth", "--checkpoint nowhere.pth: no such file"),
        ("frames", f"--box {BOX} --save out.avi", "ends with .mp4"),
        ("frames", f"--box {BOX} --json nothing", "--json nothing: cannot be written"),
        ("frames", f"--box {BOX} --save frames/f0.jpg/a.mp4", "cannot be written"),
        ("clip.mp4", f"--box {BOX} --save clip.mp4", "used for something else"),
        ("frames", "--boxes boxes --json boxes", "used for something else"),
        ("nowhere", f"--box {BOX}", "nowhere: no such video file, folder or camera"),
        ("7", f"--box {BOX}", "camera 7: does not open"),
        ("nothing", f"--box {BOX}", "holds no images"),
        ("text.mp4", f"--box {BOX}", "is no video that OpenCV can read"),
        ("cut.mp4", f"--box {BOX}", "is no video that OpenCV can read"),
        ("frames/f1.jpg", f"--box {BOX}", "is a single image"),
        ("torn", f"--box {BOX}", r"0\.jpg: is truncated.*first frame must be whole"),
        ("torn_later", "--boxes later", r"2\.jpg: is truncated.*'a' starts there"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    cli, folder, clip, tmp_path, monkeypatch, source, options, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "visdom", None)
    Path("boxes").write_text('{"a": [1, 2, 3, 4]}')
    Path("later").write_text('{"a": {"box": [1, 2, 3, 4], "frame": 2}}')
    shutil.copy(clip, "clip.mp4")
    Path("text.mp4").write_text("no video\n")
    Path("cut.mp4").write_bytes(clip.read_bytes()[:20000])
    Path("nothing").mkdir()
    for name, torn in (("torn", 0), ("torn_later", 2)):
        Path(name).mkdir()
        for number in range(3):
            data = (folder / f"f{number}.jpg").read_bytes()
            Path(name, f"{number}.jpg").write_bytes(data[: 3000 if number == torn else None])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    printed, _ = cli(source, *options.split(), code=2)
    error = printed.err
    assert re.search(message, error) and error.count("\n") == 1 and error.startswith("error: "), error
    kept = source == "torn_later"  # two frames were tracked before
    assert kept or before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def endless(folder: Path, image: Path) -> Path:
    """A folder that takes longer than any test: one image under many names."""
    folder.mkdir()
    for number in range(20000):
        os.link(image, folder / f"{number}.jpg")
    return folder


def kept(out: Path) -> int:
    """How many frames the files hold; they agree."""
    record = json.loads((out / "out.json").read_text())
    count = len(record["frames"])
    assert not record["complete"] and len(record["objects"]["target"]["boxes"]) == count
    assert len(read_video(out / "out.mp4")) == count
    assert {path.name for path in out.iterdir()} == {"out.json", "out.mp4"}
    return count


@pytest.mark.faults
def test_ctrl_c_keeps_what_was_tracked(checkpoints, images, tmp_path):
    shutil.copy(images[0], tmp_path / "image.jpg")
    out = tmp_path / "out"
    words = ["--box", BOX, "--save", str(out / "out.mp4"), "--json", str(out / "out.json"), "--device", "cpu"]
    source = endless(tmp_path / "endless", tmp_path / "image.jpg")
    command = [
        sys.executable,
        str(ROOT / "scripts/track.py"),
        str(source),
        "--checkpoint",
        str(checkpoints["transt"]),
    ]
    process = subprocess.Popen(
        [*command, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a job's may be ignored
    )
    wait_for(lambda: list(tmp_path.glob("out/.out.mp4.*/video.mp4")) or process.poll() is not None)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    printed, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert error == "interrupted; what was finished is kept\n"
    assert f"{kept(out)} frames in" in printed


@pytest.mark.faults
def test_termination_keeps_what_was_tracked(cli, images, tmp_path):
    shutil.copy(images[0], tmp_path / "image.jpg")
    source = endless(tmp_path / "endless", tmp_path / "image.jpg")

    def terminate() -> None:
        wait_for(lambda: list(tmp_path.glob("out/.out.mp4.*/video.mp4")))
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=terminate)
    killer.start()
    cli(source, "--box", BOX, code=143)
    killer.join()
    assert kept(tmp_path / "out") >= 1


@pytest.mark.faults
def test_a_full_disk_is_told_and_leaves_the_old_video(cli, clip, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/out.mp4").write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, limits[1]))
    try:
        printed, record = cli(clip, "--box", BOX, code=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "free space on its disk" in printed.err and printed.err.count("\n") == 1
    assert (tmp_path / "out/out.mp4").read_bytes() == b"old" and len(record["frames"]) == COUNT


class FakeCamera:
    """As OpenCV gives a camera: its frames, then nothing more."""

    def __init__(self, frames: list[np.ndarray]) -> None:
        self.frames = frames

    def isOpened(self) -> bool:
        return True

    def get(self, _: int) -> float:
        return 0.0

    def read(self):
        return (True, self.frames.pop(0)) if self.frames else (False, None)

    def release(self) -> None:
        pass


def test_a_camera_is_tracked_until_it_ends(cli, clip, tmp_path, monkeypatch):
    frames = read_video(clip)
    expected = cli(clip, "--box", BOX)[1]["objects"]["target"]["boxes"]
    real = cv2.VideoCapture
    monkeypatch.setattr(
        cv2, "VideoCapture", lambda source: FakeCamera(frames[:]) if source == 0 else real(source)
    )
    printed, record = cli("0", "--box", BOX)
    assert record["source"]["kind"] == "camera" and record["source"]["name"] == "camera 0"
    assert record["source"]["fps"] == 25.0  # it does not say
    numbers = record["frames"]
    assert numbers == sorted(set(numbers)) and numbers[-1] == COUNT - 1
    missed = COUNT - len(numbers)
    assert (f"{missed} frames of camera 0 came while" in printed.err) == (missed > 0)
    assert len(read_video(tmp_path / "out/out.mp4")) == numbers[-1] - numbers[0] + 1  # at the camera's pace
    boxes = record["objects"]["target"]["boxes"]
    assert boxes[0] == expected[0] and len(boxes) == len(numbers)


@pytest.fixture
def screen(monkeypatch):
    """An OpenCV with windows: what it showed, and the answers of the user's hands."""
    hands = types.SimpleNamespace(shown=[], box=(129, 80, 64, 78), keys=[])
    fakes = {
        "getBuildInformation": lambda: "  GUI:                           QT5\n",
        "imshow": lambda _, picture: hands.shown.append(picture),
        "waitKey": lambda _: hands.keys.pop(0) if hands.keys else -1,
        "getWindowProperty": lambda *_: 1.0,
        "selectROI": lambda *_, **__: hands.box,
        "destroyWindow": lambda _: None,
        "destroyAllWindows": lambda: None,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(cv2, name, fake)
    monkeypatch.setenv("DISPLAY", ":0")
    return hands


def test_a_window_selects_shows_and_ends(cli, clip, screen, tmp_path):
    screen.keys = [-1, -1, -1, -1, ord("q")]
    _, record = cli(clip, "--show")
    assert len(screen.shown) == 5 and screen.shown[0].shape == (240, 320, 3)
    assert record["frames"] == list(range(5)) and not record["complete"]
    assert record["objects"]["target"]["boxes"][0] == [129.0, 80, 64, 78]
    assert len(read_video(tmp_path / "out/out.mp4")) == 5
    written = read_video(tmp_path / "out/out.mp4")[0].astype(int)
    assert np.abs(written - screen.shown[0]).mean() < 4  # the same picture, not with red for blue


@pytest.mark.faults
def test_no_selection_and_no_display_are_one_line(cli, clip, screen, monkeypatch):
    screen.box = (0, 0, 0, 0)
    printed, record = cli(clip, code=2)
    assert "no box was selected" in printed.err and printed.err.count("\n") == 1 and record is None
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    printed, _ = cli(clip, "--box", BOX, "--show", code=2)
    assert "there is no display" in printed.err and printed.err.count("\n") == 1


class FakeVisdom(types.ModuleType):
    """As much of visdom as is called; ``lives`` calls until its server is gone."""

    def __init__(self, lives: float) -> None:
        super().__init__("visdom")
        self.lives, self.images, self.lines = lives, [], []

    def Visdom(self, **_):
        return self._answer(self)

    def image(self, picture, **_):
        self.images.append(self._answer(picture))

    def line(self, y, x, *, name, update, **_):
        self.lines.append(self._answer((name, x[0], y[0], update)))

    def _answer(self, value):
        self.lives -= 1
        if self.lives < 0:
            raise ConnectionError
        return value


def test_visdom_gets_frames_and_scores(cli, clip, tmp_path, monkeypatch):
    fake = FakeVisdom(float("inf"))
    monkeypatch.setitem(sys.modules, "visdom", fake)
    (tmp_path / "boxes.json").write_text('{"a": [129, 80, 64, 78], "b": {"box": [1, 2, 30, 40], "frame": 3}}')
    _, record = cli(clip, "--boxes", tmp_path / "boxes.json", "--visdom")
    assert len(fake.images) == COUNT and fake.images[0].shape == (3, 240, 320)
    for name, start in (("a", 0), ("b", 3)):
        scores = [score for who, _, score, _ in fake.lines if who == name]
        assert scores == record["objects"][name]["scores"][start:]
    assert [update for *_, update in fake.lines] == [None] + ["append"] * (len(fake.lines) - 1)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("lives", "message", "frames"), [(0, "python -m visdom.server", 0), (9, "server is gone", 5)]
)
def test_a_visdom_server_that_does_not_answer_is_one_line(cli, clip, monkeypatch, lives, message, frames):
    monkeypatch.setitem(sys.modules, "visdom", FakeVisdom(lives))
    printed, record = cli(clip, "--box", BOX, "--visdom", code=2)
    assert message in printed.err and printed.err.count("\n") == 1
    assert len(record["frames"]) == frames if frames else record is None


def test_the_page_describes_what_is_written(cli, clip):
    text = (ROOT / "docs/track.md").read_text()
    blocks = [
        json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    ]
    [example] = [block for block in blocks if "format" in block]
    _, record = cli(clip, "--box", BOX)

    def form(value):
        return {key: form(item) for key, item in value.items()} if isinstance(value, dict) else type(value)

    [shown] = example.pop("objects").values()
    [written] = record.pop("objects").values()
    assert (
        form(example) == form(record)
        and form(shown) == form(written)
        and example["format"] == record["format"]
    )
    assert len({len(example["frames"]), *(len(shown[name]) for name in ("boxes", "scores", "lost"))}) == 1
