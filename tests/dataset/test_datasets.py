"""The training sets in their genuine layouts, and what each benchmark allows."""

from __future__ import annotations

import os
import pickle
import shutil

import cv2
import numpy as np
import pytest

from config.errors import UserError
from ltr.data_specs.splits import (
    got10k_positions,
    got10k_vot_exclude,
    lasot_test,
    lasot_train_val,
    parse_ranges,
)
from ltr.dataset.base import DATASETS, open_dataset, open_spec
from ltr.dataset.frame_index import order_frames


@pytest.fixture
def sequences(shared):
    return shared("sequences")


def make_lasot(root, name, frames=4, boxes=None, occluded=None):
    """One sequence of empty image files in LaSOT's layout."""
    folder = root / name.rpartition("-")[0] / name
    (folder / "img").mkdir(parents=True)
    for frame in range(1, frames + 1):
        (folder / "img" / f"{frame:08d}.jpg").touch()
    (folder / "groundtruth.txt").write_text("".join(f"{box}\n" for box in boxes or ["5,6,7,8"] * frames))
    (folder / "full_occlusion.txt").write_text(occluded or ",".join("0" * frames))
    (folder / "out_of_view.txt").write_text(",".join("0" * frames))
    return folder


@pytest.mark.parametrize(
    ("name", "split", "keys", "frames", "visible"),
    [
        (
            "LaSOT",
            "train",
            ["LaSOT_car-1", "LaSOT_person-2", "LaSOT_person-3"],
            [220, 260, 184],
            [164, 188, 156],
        ),
        ("LaSOT", "test", ["LaSOT_person-1"], [140], [140]),
        ("GOT-10k", "all", ["GOT-10k_Train_000001", "GOT-10k_Train_000002"], [100, 90], [100, 90]),
        ("GOT-10k", "vottrain", ["GOT-10k_Train_000001"], [100], [100]),  # position 0; position 1 is in val
        ("GOT-10k", "votval", ["GOT-10k_Train_000002"], [90], [90]),
        ("GOT-10k", "official_val", ["GOT-10k_Val_000001"], [77], [77]),
        ("TrackingNet", "0", ["TrackingNet_00_building4", "TrackingNet_00_person12_1"], [90, 130], [90, 130]),
    ],
)
def test_genuine_layouts(sequences, tmp_path, name, split, keys, frames, visible):
    dataset = open_dataset(name, split, sequences / name, tmp_path)
    assert dataset.keys == keys
    assert [dataset.num_frames(i) for i in range(len(dataset))] == frames
    assert [int(dataset.annotation(i).visible.sum()) for i in range(len(dataset))] == visible
    for i in range(len(dataset)):
        assert os.path.isfile(dataset.frame_path(i, 0)) and os.path.isfile(
            dataset.frame_path(i, frames[i] - 1)
        )
        bbox, seen = dataset.annotation(i)
        assert bbox.dtype == np.float64 and bbox.shape == (frames[i], 4) and (bbox[seen, 2:] > 0).all()
    with pytest.raises(IndexError):
        dataset.frame_path(0, frames[0])
    assert pickle.loads(pickle.dumps(dataset)).keys == keys


def test_first_boxes_are_those_of_the_files(sequences, tmp_path):
    dataset = open_dataset("LaSOT", "train", sequences / "LaSOT", tmp_path)
    assert dataset.annotation(0).bbox[0].tolist() == [50, 135, 89, 39]
    absent = ~dataset.annotation(0).visible
    assert not dataset.annotation(0).bbox[absent].any()


def test_no_annotation_is_parsed_before_it_is_needed(tmp_path):
    folder = make_lasot(tmp_path / "LaSOT", "person-2", boxes=["broken"])
    dataset = open_dataset("LaSOT", "train", tmp_path / "LaSOT", tmp_path)
    assert dataset.num_frames(0) == 4
    with pytest.raises(UserError, match=str(folder / "groundtruth.txt")):
        dataset.annotation(0)


def test_published_splits():
    train, val = set(got10k_positions("train")), set(got10k_positions("val"))
    assert (len(train), len(val), len(train & val)) == (7934, 1401, 0) and train | val == set(range(9335))
    assert set(got10k_positions("vottrain")) < train and set(got10k_positions("votval")) < val
    assert len(got10k_vot_exclude()) == 1000
    assert len(lasot_test()) == 70 and all(len(numbers) == 4 for numbers in lasot_test().values())
    assert len(lasot_train_val()) == 120


def test_lasot_own_lists_define_the_split(tmp_path):
    root = tmp_path / "LaSOT"
    for name in ("toy-1", "toy-2", "toy-10", "person-1"):
        make_lasot(root, name)
    with pytest.raises(
        UserError, match="no video of LaSOT:train"
    ):  # toy is no published class, person-1 a test video
        open_dataset("LaSOT", "train", root, tmp_path)
    (root / "training_set.txt").write_text("toy-2\ntoy-10\n\nperson-7\n")
    (root / "testing_set.txt").write_text("toy-1\n")
    train = open_dataset("LaSOT", "train", root, tmp_path)
    assert train.keys == ["LaSOT_toy-2", "LaSOT_toy-10"] and train.listed == 3
    assert open_dataset("LaSOT", "test", root, tmp_path).keys == ["LaSOT_toy-1"]
    assert len(open_dataset("LaSOT", "all", root, tmp_path)) == 4


def test_got10k_sparse_copy_selects_by_number(tmp_path):
    root = tmp_path / "GOT-10k"
    names = [f"GOT-10k_Train_{number:06d}" for number in (1, 2, 12, 9332)]  # positions 0, 1, 11, 9331
    for name in names:
        (root / "train" / name).mkdir(parents=True)
    (root / "train" / "list.txt").write_text("\n".join([*names, "GOT-10k_Train_000003"]))
    train = open_dataset("GOT-10k", "train", root, tmp_path)
    assert train.keys == ["GOT-10k_Train_000001", "GOT-10k_Train_009332"] and train.listed == 3
    assert open_dataset("GOT-10k", "val", root, tmp_path).keys == names[1:3]
    (root / "train" / "list.txt").write_text("\n".join(f"GOT-10k_Train_{n:06d}" for n in range(1, 9336)))
    assert open_dataset("GOT-10k", "train", root / "train", tmp_path).keys == train.keys


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0,1,2,3", "0-3"),
        ("0-3", "0-3"),
        ("3,1,2,0", "0-3"),
        ("0", "0"),
        ("0,1", "0,1"),
        ("0-1,5-7", "0,1,5-7"),
        ("all", "all"),
    ],
)
def test_trackingnet_selection(text, canonical):
    assert DATASETS.get("TrackingNet").canonical_split(text) == canonical


@pytest.mark.parametrize("text", ["", "a", "3-1", "0,,1", "-1", "12", "0-"])
def test_trackingnet_bad_selection(text):
    with pytest.raises(UserError, match="TrackingNet"):
        DATASETS.get("TrackingNet").canonical_split(text)


def test_parse_ranges():
    assert parse_ranges("0-2, 7") == [0, 1, 2, 7]


GOOD = "5,6,7,8"


@pytest.mark.parametrize(
    ("boxes", "occluded", "says"),
    [
        ([GOOD] * 3, None, "3 lines of boxes for 4 images"),
        ([GOOD] * 5, None, "5 lines of boxes for 4 images"),
        ([GOOD, "", GOOD, GOOD], None, "line 2: '' is not a box"),
        (["#5,6,7,8", GOOD, GOOD, GOOD], None, "line 1"),
        ([GOOD, "5,6,7", GOOD, GOOD], None, "line 2: '5 6 7' is not a box"),
        ([GOOD, "5,6,7,8,9", GOOD, "1,2,3"], None, "line 2"),
        ([GOOD, GOOD, "nan,nan,nan,nan", GOOD], None, "line 3"),
        ([GOOD, GOOD, GOOD, "5,inf,7,8"], None, "line 4"),
        ([GOOD, GOOD, GOOD, "5,6,x,8"], None, "line 4: '5 6 x 8'"),
        (["5,6,-7,8", GOOD, GOOD, GOOD], None, "line 1: box 5,6,-7,8 has no size"),
        ([GOOD, "5,6,0,8", "5,6,0,8", GOOD], None, "line 2: box 5,6,0,8 has no size \\(and 1 more lines\\)"),
        ([GOOD] * 4, "0,0,0", "full_occlusion.txt: 3 values for 4 images"),
        ([GOOD] * 4, "0,0,?,0", "full_occlusion.txt, line 1: '\\?'"),
    ],
)
def test_broken_annotation_is_one_line(tmp_path, boxes, occluded, says):
    make_lasot(tmp_path / "LaSOT", "person-2", boxes=boxes, occluded=occluded)
    dataset = open_dataset("LaSOT", "all", tmp_path / "LaSOT", tmp_path)
    with pytest.raises(UserError, match=says) as error:
        dataset.annotation(0)
    assert "person-2" in str(error.value) and "\n" not in str(error.value)


def test_what_the_benchmarks_leave_behind_is_absent(tmp_path):
    boxes = [" 5.0\t6.0\t7.0\t8.0", "0,0,0,0", "1,1,-1,-1", "-4.07,96.34,236.30,172.80"]
    folder = make_lasot(tmp_path / "LaSOT", "lion-5", boxes=boxes, occluded="0,0,1,0")
    (folder / "groundtruth.txt").write_bytes("\r\n".join(boxes).encode() + b"\r\n\r\n")
    annotation = open_dataset("LaSOT", "all", tmp_path / "LaSOT", tmp_path).annotation(0)
    assert annotation.visible.tolist() == [True, False, False, True]
    assert annotation.bbox[3].tolist() == [-4.07, 96.34, 236.30, 172.80]


def test_monkey_17_has_images_without_boxes(tmp_path):
    make_lasot(tmp_path / "LaSOT", "monkey-17", boxes=[GOOD] * 3, occluded="0,0,0")
    annotation = open_dataset("LaSOT", "test", tmp_path / "LaSOT", tmp_path).annotation(0)
    assert annotation.visible.tolist() == [True] * 3 + [False] and annotation.bbox[3].tolist() == [0] * 4


def test_missing_folders(tmp_path):
    with pytest.raises(UserError, match="folder of data set 'LaSOT' is missing"):
        open_dataset("LaSOT", "train", tmp_path / "nowhere", tmp_path)
    (tmp_path / "TRAIN_0" / "frames" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match="TRAIN_1"):
        open_dataset("TrackingNet", "0-1", tmp_path, tmp_path)
    with pytest.raises(UserError, match="holds no images"):
        open_dataset("TrackingNet", "0", tmp_path, tmp_path / "cache").annotation(0)
    folder = make_lasot(tmp_path / "LaSOT", "person-2")
    shutil.rmtree(folder / "img")
    with pytest.raises(UserError, match="person-2/img"):
        open_dataset("LaSOT", "all", tmp_path / "LaSOT", tmp_path)


def test_unknown_names():
    from config.defaults import get_defaults

    for spec, says in [
        ("LaSO:train", "did you mean 'LaSOT'"),
        ("LaSOT:trian", "did you mean 'train'"),
        ("LaSOT", "NAME:SPLIT"),
    ]:
        with pytest.raises(UserError, match=says):
            open_spec(spec, get_defaults())


def test_index_cache_follows_the_folder(tmp_path, monkeypatch):
    from ltr.dataset import frame_index

    root, cache = tmp_path / "LaSOT", tmp_path / "cache"
    folders = [make_lasot(root, name) for name in ("cat-1", "cat-2")]
    for folder in folders:
        os.utime(folder / "img", (1e9, 1e9))
    listed = []
    order = frame_index.order_frames
    monkeypatch.setattr(frame_index, "order_frames", lambda files: listed.append(1) or order(files))

    def frames():
        listed.clear()
        dataset = open_dataset("LaSOT", "all", root, cache)
        return [dataset.num_frames(i) for i in range(len(dataset))]

    assert frames() == [4, 4] and len(listed) == 2
    assert frames() == [4, 4] and not listed
    (folders[1] / "img" / "00000005.jpg").touch()
    assert frames() == [4, 5] and len(listed) == 1
    assert frames() == [4, 5] and len(listed) == 1  # changed a moment ago: looked at once more
    make_lasot(root, "cat-3")
    assert frames() == [4, 5, 4]
    next(cache.iterdir()).write_bytes(b'{"version": 1, "folders": [[')
    assert frames() == [4, 5, 4] and len(listed) == 3


@pytest.mark.parametrize(
    ("files", "ordered"),
    [
        (["10.jpg", "9.jpg", "11.jpg"], ["9.jpg", "10.jpg", "11.jpg"]),
        (["02.png", "01.png", "list.txt", "._01.png"], ["01.png", "02.png"]),
        (["098.jpg", "099.jpg", "100.jpg"], ["098.jpg", "099.jpg", "100.jpg"]),
        (["99.jpg", "100.jpg"], ["99.jpg", "100.jpg"]),
        (["img_2_x.jpg", "img_10_x.jpg", "img_1_x.jpg"], ["img_1_x.jpg", "img_2_x.jpg", "img_10_x.jpg"]),
        (["1.jpg", "3.jpg"], ["1.jpg", "3.jpg"]),
        (["1.jpg", "01.jpg"], ["01.jpg", "1.jpg"]),
        (["b.JPG", "a.jpeg"], ["a.jpeg", "b.JPG"]),
        (["readme"], []),
    ],
)
def test_frame_order(files, ordered):
    frames = order_frames(files)
    assert [frames.name(i) for i in range(frames.length)] == ordered


def write_video(path, frames):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    for frame in range(frames):
        writer.write(np.full((48, 64, 3), 20 * frame, np.uint8))
    writer.release()


def test_own_videos(tmp_path):
    root, cache = tmp_path / "own", tmp_path / "cache"
    (root / "walk").mkdir(parents=True)
    for frame in (2, 10, 1):
        cv2.imwrite(str(root / "walk" / f"{frame}.png"), np.full((8, 8, 3), frame, np.uint8))
    write_video(root / "drive.avi", 6)
    dataset = open_dataset("Frames", "all", root, cache)
    assert dataset.keys == ["Frames_drive", "Frames_walk"] and dataset.unlabelled() == dataset.keys
    assert [dataset.num_frames(i) for i in range(2)] == [6, 3]
    assert cv2.imread(dataset.frame_path(1, 2))[0, 0, 0] == 10
    assert abs(int(cv2.imread(dataset.frame_path(0, 5))[24, 32, 0]) - 100) < 6
    unpacked = dataset.frame_path(0, 0)
    stamp = os.stat(unpacked).st_mtime_ns
    assert open_dataset("Frames", "all", root, cache).frame_path(0, 0) == unpacked
    assert os.stat(unpacked).st_mtime_ns == stamp  # not unpacked again
    (root / "walk" / "groundtruth.txt").write_text("1,1,3,3\n" * 3)
    assert dataset.unlabelled() == ["Frames_drive"] and dataset.annotation(1).visible.all()


def test_bad_own_videos(tmp_path):
    root, cache = tmp_path / "own", tmp_path / "cache"
    root.mkdir()
    (root / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"broken\.mp4: OpenCV reads no frame"):
        open_dataset("Frames", "all", root, cache)
    assert not any((cache / "frames").iterdir())  # nothing half made stays
    (root / "broken").mkdir()
    with pytest.raises(UserError, match="same name"):
        open_dataset("Frames", "all", root, cache)
