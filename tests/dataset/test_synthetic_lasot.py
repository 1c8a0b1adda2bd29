"""The synthetic data set: deterministic, whole, in LaSOT's layout, with boxes that fit."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from config.errors import UserError
from ltr.dataset import synthetic_lasot
from ltr.dataset.lasot import LaSOT
from ltr.dataset.synthetic_lasot import SyntheticSpec, make, video_names

SPEC = SyntheticSpec(seed=5, train_videos=3, test_videos=2, train_frames=4, test_frames=6)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("synthetic") / "LaSOT", SPEC)


def contents(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_same_parameters_give_the_same_bytes(made, tmp_path):
    assert contents(make(tmp_path / "again", SPEC)) == contents(made)
    other = contents(make(tmp_path / "other", replace(SPEC, seed=6)))
    pictures = [name for name in other if name.endswith(".jpg")]
    assert pictures and all(other[name] != contents(made)[name] for name in pictures)


def test_no_two_videos_share_a_texture(monkeypatch):
    seen = []
    texture = synthetic_lasot._texture

    def remember(*args, **named):
        seen.append(hashlib.sha256(image := texture(*args, **named)).hexdigest())
        return image

    monkeypatch.setattr(synthetic_lasot, "_texture", remember)
    for number in range(5):
        synthetic_lasot._Video(SPEC, number, "disc")
    assert len(seen) >= 10 and len(set(seen)) == len(seen)


def test_the_layout_is_lasots(made, tmp_path):
    names = video_names(SPEC)
    assert (made / "training_set.txt").read_text().split() == names[:3]
    assert (made / "testing_set.txt").read_text().split() == names[3:]
    data = LaSOT("train", made, tmp_path)
    assert data.keys == sorted(f"LaSOT_{name}" for name in names[:3])
    for i in range(3):
        assert data.num_frames(i) == SPEC.train_frames
        bbox, visible = data.annotation(i)
        assert visible[0] and ((bbox[:, 2:] > 0).all(1) == visible).all()
        assert cv2.imread(data.frame_path(i, 3)).shape == (SPEC.height, SPEC.width, 3)


@pytest.mark.parametrize("number", range(5))
def test_boxes_fit_what_is_seen_of_the_target(number, monkeypatch):
    """Frames drawn with the target and without it differ inside the box, up to its borders, and nowhere else."""
    spec = replace(SPEC, train_frames=24)
    video = synthetic_lasot._Video(spec, number, synthetic_lasot.CLASSES[number])
    for frame in range(0, video.frames, 3):
        image, bbox = video.render(frame)
        monkeypatch.setattr(video._target, "draw", lambda canvas, _: np.zeros(canvas.shape[:2], np.uint8))
        empty, _ = video.render(frame)
        monkeypatch.undo()
        changed = np.abs(image.astype(int) - empty).max(-1) > 8
        if bbox is None:
            continue
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        x, y, w, h = bbox
        found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        np.testing.assert_allclose(found, [x, y, x + w, y + h], atol=3)


def test_an_interrupted_run_is_continued(made, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(made, root)
    lost, kept = video_names(SPEC)[1], root / "disc" / "disc-1" / "img" / "00000001.jpg"
    shutil.rmtree(root / "box" / lost)
    (root / "box" / f".{lost}.1.tmp" / "img").mkdir(parents=True)
    (root / "testing_set.txt").unlink()
    before = kept.stat().st_mtime_ns
    assert contents(make(root, SPEC)) == contents(made)
    assert kept.stat().st_mtime_ns == before
    assert not list(root.glob("*/.*"))


def test_what_lies_there_is_not_overwritten(made, tmp_path):
    with pytest.raises(UserError, match="other parameters"):
        make(made, replace(SPEC, seed=6))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        make(tmp_path / "foreign", SPEC)
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["notes.txt"]


def test_a_video_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthetic_lasot.Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left"):
        make(tmp_path / "LaSOT", SPEC)
    assert not [
        path for path in (tmp_path / "LaSOT").rglob("*") if path.suffix == ".jpg" or ".tmp" in path.name
    ]
