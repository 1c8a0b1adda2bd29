"""DAVIS and YouTube-VOS in their genuine layouts: lists, masks, first boxes, quirks, damage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from config.environment import load_settings
from config.errors import UserError
from pysot_toolkit.datasets import open_benchmark
from pysot_toolkit.datasets.masks import first_box, read_annotation, read_mask
from pysot_toolkit.evaluation.evaluate import evaluate


def opened(name: str, root: Path):
    return open_benchmark(name, load_settings([f"paths.test.{name}", str(root)]))


def mask(path: Path, *objects: tuple[int, int, int, int, int], size=(20, 30), mode="P") -> None:
    """A PNG with rectangles (number, x, y, w, h)."""
    array = np.zeros(size, np.uint8)
    for number, x, y, w, h in objects:
        array[y : y + h, x : x + w] = number
    image = Image.fromarray(array)
    if mode == "P":
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 759)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert(mode).save(path)


def davis(root: Path, name: str, *objects, frames: int = 4, images: bool = True, mode="P") -> None:
    for k in range(frames):
        mask(root / "Annotations" / "480p" / name / f"{k:05d}.png", *objects, mode=mode)
        if images:
            touch(root / "JPEGImages" / "480p" / name / f"{k:05d}.jpg")


def listed(root: Path, path: str, *lines: str) -> None:
    (root / "ImageSets" / path).parent.mkdir(parents=True, exist_ok=True)
    (root / "ImageSets" / path).write_text("".join(f"{line}\n" for line in lines))


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_davis_2017(tmp_path):
    davis(tmp_path, "bike", (1, 3, 4, 10, 6), (2, 20, 1, 5, 5))
    davis(tmp_path, "ant", (1, 0, 0, 1, 1))
    davis(tmp_path, "train-only", (1, 0, 0, 1, 1))
    listed(tmp_path, "2017/val.txt", "bike", "ant")
    benchmark = opened("DAVIS2017", tmp_path)
    assert [sequence.name for sequence in benchmark] == ["bike", "ant"]  # in the order of the list
    bike = benchmark["bike"]
    assert [Path(frame).name for frame in bike.frames] == [f"{k:05d}.jpg" for k in range(4)]
    assert [path.name for path in bike.annotation.masks] == [f"{k:05d}.png" for k in range(4)]
    assert bike.init_bbox.tolist() == [3, 4, 10, 6] and bike.image_size == (30, 20)
    assert benchmark["ant"].init_bbox.tolist() == [0, 0, 1, 1]


def test_the_first_mask_of_real_annotations(shared):
    """The box is that of the pixels, whatever the palette."""
    for folder in sorted(shared("metrics", "vos", "gt").iterdir()):
        path = min(folder.glob("*.png"))
        numbers = np.asarray(Image.open(path))
        rows, columns = np.nonzero(numbers == 1)
        x, y, w, h = first_box(read_annotation(path))
        assert (x, y) == (columns.min(), rows.min()) and (x + w - 1, y + h - 1) == (columns.max(), rows.max())
        assert np.array_equal(read_mask(path), numbers)


def test_real_frames_of_davis(shared, tmp_path):
    """They come without annotation, as a test set does but for the first mask."""
    (tmp_path / "JPEGImages").symlink_to(shared("sequences", "DAVIS", "JPEGImages"))
    names = sorted(path.name for path in (tmp_path / "JPEGImages" / "480p").iterdir())
    listed(tmp_path, "2017/test-dev.txt", *names)
    for name in names:
        images = sorted((tmp_path / "JPEGImages" / "480p" / name).glob("*.jpg"))
        size = Image.open(images[0]).size
        mask(
            tmp_path / "Annotations" / "480p" / name / f"{images[0].stem}.png",
            (1, 5, 6, 7, 8),
            size=size[::-1],
        )
        sequence = opened("DAVIS2017", tmp_path)[name]
        assert [Path(frame) for frame in sequence.frames] == images
        assert sequence.image_size == size and sequence.init_bbox.tolist() == [5, 6, 7, 8]


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "RGBA"])
def test_davis_2016_in_both_packages(tmp_path, mode):
    """Parts count as one object; the list is one of names, or of pairs of paths."""
    davis(tmp_path, "bike", (1, 3, 4, 10, 6), (255, 13, 4, 2, 6), mode=mode)
    davis(tmp_path, "ant", (255, 1, 1, 4, 4), mode=mode)
    pairs = [
        f"/JPEGImages/480p/{name}/{k:05d}.jpg /Annotations/480p/{name}/{k:05d}.png "
        for name in ("bike", "ant")
        for k in range(4)
    ]
    listed(tmp_path, "480p/val.txt", *pairs)
    own = opened("DAVIS2016", tmp_path)
    listed(tmp_path, "2016/val.txt", "bike", "ant")
    for benchmark in (own, opened("DAVIS2016", tmp_path)):
        assert [sequence.name for sequence in benchmark] == ["bike", "ant"]
        assert benchmark["bike"].init_bbox.tolist() == [3, 4, 12, 6]
        assert benchmark["ant"].init_bbox.tolist() == [1, 1, 4, 4]


def test_davis_test_sets_have_the_first_mask_only(tmp_path):
    davis(tmp_path, "bike", (1, 3, 4, 10, 6))
    for k in (1, 2, 3):
        (tmp_path / "Annotations" / "480p" / "bike" / f"{k:05d}.png").unlink()
    listed(tmp_path, "2017/test-dev.txt", "bike")
    bike = opened("DAVIS2017", tmp_path)["bike"]
    assert len(bike.frames) == 4 and len(bike.annotation.masks) == len(bike.ground_truth) == 1
    (tmp_path / "results" / "DAVIS2017" / "t").mkdir(parents=True)
    settings = load_settings(["paths.test.DAVIS2017", str(tmp_path)])
    with pytest.raises(UserError, match="only the first frames of DAVIS2017 are annotated"):
        evaluate(settings, "DAVIS2017", results=tmp_path / "results")


@pytest.mark.faults
def test_damage_to_davis_is_named(tmp_path):
    with pytest.raises(UserError, match=r"has no ImageSets/2017/val.txt"):
        opened("DAVIS2017", tmp_path)
    listed(tmp_path, "2017/val.txt", "bike", "empty", "gone")
    davis(tmp_path, "bike", (1, 3, 4, 10, 6))
    davis(tmp_path, "empty")
    (tmp_path / "Annotations" / "480p" / "bike" / "00002.png").unlink()
    benchmark = opened("DAVIS2017", tmp_path)
    with pytest.raises(UserError, match=r"bike: no mask 00002.png; restore"):
        _ = benchmark["bike"].annotation
    with pytest.raises(UserError, match=r"empty/00000.png: shows no object"):
        _ = benchmark["empty"].annotation
    with pytest.raises(UserError, match=r"Annotations/480p/gone: cannot be read"):
        _ = benchmark["gone"].annotation
    mask(tmp_path / "Annotations" / "480p" / "bike" / "00000.png", (1, 0, 0, 5, 5), mode="RGB")
    mask(tmp_path / "Annotations" / "480p" / "bike" / "00002.png", (1, 0, 0, 5, 5))
    with pytest.raises(UserError, match=r"bike/00000.png: is colour, not an 8-bit indexed PNG; restore"):
        _ = opened("DAVIS2017", tmp_path)["bike"].annotation


def youtube(split: Path, name: str, images: range, annotated: dict[int, list]) -> None:
    for k in images:
        touch(split / "JPEGImages" / name / f"{k:05d}.jpg")
    for k, objects in annotated.items():
        mask(split / "Annotations" / name / f"{k:05d}.png", *objects)
    meta = split / "meta.json"
    videos = json.loads(meta.read_text())["videos"] if meta.exists() else {}
    frames = [f"{k:05d}" for k in images]
    videos[name] = {"objects": {"1": {"category": "ant", "frames": frames}}}
    meta.write_text(json.dumps({"videos": videos}))


def test_youtube_vos_publishes_first_masks_in_valid_and_all_in_train(tmp_path):
    """A video begins where its first object does; its other objects' first masks do not make it annotated."""
    one, two = (1, 3, 4, 10, 6), (2, 20, 1, 5, 5)
    youtube(tmp_path / "valid", "0a1b", range(0, 50, 5), {10: [two], 25: [one, two]})
    youtube(tmp_path / "train", "9f8e", range(0, 20, 5), {0: [], 5: [two], 10: [one, two], 15: [one]})
    video = opened("YouTube-VOS", tmp_path)["0a1b"]  # valid, where there is one
    assert [Path(frame).name for frame in video.frames] == [f"{k:05d}.jpg" for k in range(10, 50, 5)]
    assert [path.name for path in video.annotation.masks] == ["00010.png"]
    assert video.init_bbox.tolist() == [20, 1, 5, 5] and video.image_size == (30, 20)
    assert video.extra_frames

    video = opened("YouTube-VOS", tmp_path / "train")["9f8e"]
    assert [path.name for path in video.annotation.masks] == ["00005.png", "00010.png", "00015.png"]
    assert len(video.frames) == 3 and video.init_bbox.tolist() == [20, 1, 5, 5]

    (tmp_path / "results" / "YouTube-VOS" / "t").mkdir(parents=True)
    settings = load_settings(["paths.test.YouTube-VOS", str(tmp_path)])
    with pytest.raises(UserError, match="only the first frames of YouTube-VOS are annotated"):
        evaluate(settings, "YouTube-VOS", results=tmp_path / "results")


@pytest.mark.faults
def test_damage_to_youtube_vos_is_named(tmp_path):
    with pytest.raises(UserError, match=r"has no meta.json"):
        opened("YouTube-VOS", tmp_path)
    youtube(tmp_path, "0a1b", range(0, 20, 5), {0: []})
    with pytest.raises(UserError, match=r"Annotations/0a1b: no mask shows an object"):
        _ = opened("YouTube-VOS", tmp_path)["0a1b"].annotation
    (tmp_path / "meta.json").write_text("[]")
    with pytest.raises(UserError, match=r"meta.json: has no 'videos'"):
        opened("YouTube-VOS", tmp_path)
