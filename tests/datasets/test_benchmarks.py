"""Benchmarks in their genuine layouts: JSON and folder agree, quirks are kept, damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from config.environment import load_settings
from config.errors import UserError
from pysot_toolkit.datasets import open_benchmark
from pysot_toolkit.datasets.base import BENCHMARKS
from pysot_toolkit.datasets.vot import VOT_TAGS, polygon_to_rectangle
from tests.datasets.folders import boxes, images, opened


@pytest.mark.parametrize("name", ["OTB100", "LaSOT", "GOT-10k", "VOT2018"])
def test_json_and_folder_agree(shared, name):
    """The same real videos, once through pysot's JSON and once through the benchmark's own files."""
    root = shared("sequences", name)
    from_json = opened(name, root)
    assert from_json.source == root.parent / "seq_files" / f"{name}.json"
    from_folder = {sequence.name: sequence for sequence in BENCHMARKS.get(name)().read_folder(root)}
    assert from_folder and set(from_folder) <= {sequence.name for sequence in from_json}
    for sequence in from_json:
        assert len(sequence.frames) == len(sequence.ground_truth) and Path(sequence.frames[0]).exists()
        other = from_folder.get(sequence.name)
        if other is None:
            continue
        assert [Path(a) for a in sequence.frames] == [Path(b) for b in other.frames]
        np.testing.assert_allclose(
            sequence.ground_truth, other.ground_truth, atol=0.01
        )  # VOT's JSON is rounded
        if sequence.annotation.polygon is not None:
            np.testing.assert_allclose(sequence.annotation.polygon, other.annotation.polygon, atol=0.005)
            assert_tags_equal(sequence.annotation.tags, other.annotation.tags)
        if name == "OTB100":  # LaSOT's folders do not hold the attributes
            assert sequence.attributes == other.attributes
        assert (sequence.present is None) == (other.present is None)
        assert sequence.present is None or np.array_equal(sequence.present, other.present)
        height, width = cv2.imread(sequence.frames[-1]).shape[:2]
        assert sequence.image_size == other.image_size == (width, height)


def assert_tags_equal(one, two) -> None:
    assert set(one) == set(two) == set(VOT_TAGS)
    for tag in VOT_TAGS:
        np.testing.assert_array_equal(one[tag], two[tag])


def test_absence_of_lasot_means_present_is_false(shared):
    """``absent`` is 1 where the target is present, and absent frames of these videos have zero boxes."""
    sequences = list(opened("LaSOT", shared("sequences", "LaSOT")))
    hidden = [~sequence.present for sequence in sequences]
    assert sum(mask.sum() for mask in hidden) > 0
    for sequence, mask in zip(sequences, hidden):
        assert not sequence.ground_truth[mask].any() and (sequence.ground_truth[~mask, 2:] > 0).all()


def test_otb_ranges_targets_and_names(tmp_path):
    """David from frame 300 whether the earlier images are there or not; two targets of one video; tabs."""
    images(tmp_path / "David" / "img", range(1, 771))
    boxes(tmp_path / "David" / "groundtruth_rect.txt", 471, "\t")
    images(tmp_path / "Jogging" / "img", range(1, 4))
    boxes(tmp_path / "Jogging" / "groundtruth_rect.1.txt", 3, " ")
    boxes(tmp_path / "Jogging" / "groundtruth_rect.2.txt", 3)
    images(tmp_path / "Tiger1" / "img", range(1, 355))
    boxes(tmp_path / "Tiger1" / "groundtruth_rect.txt", 354)
    images(tmp_path / "Human4" / "img", range(1, 3))
    boxes(tmp_path / "Human4" / "groundtruth_rect.1.txt", 2)
    boxes(tmp_path / "Human4" / "groundtruth_rect.2.txt", 2)
    otb = opened("OTB100", tmp_path)
    assert [sequence.name for sequence in otb] == ["David", "Human4-2", "Jogging-1", "Jogging-2", "Tiger1"]
    assert Path(otb["David"].frames[0]).name == "0300.jpg" and len(otb["David"].frames) == 471
    assert Path(otb["Tiger1"].frames[0]).name == "0006.jpg"
    assert otb["Tiger1"].init_bbox.tolist() == [6, 2, 30, 40]
    for number in range(1, 300):
        (tmp_path / "David" / "img" / f"{number:04d}.jpg").unlink()
    assert len(opened("OTB100", tmp_path)["David"].frames) == 471
    assert {"jogging_1", "Jogging_1", "Jogging.1"} <= set(otb.layout.result_names("Jogging-1"))
    assert "faceocc1" in otb.layout.result_names("FaceOcc1")
    with pytest.raises(UserError, match="did you mean 'Jogging-1'"):
        otb["Jogging1"]


def test_lasot_takes_its_own_list_then_the_published_then_all(tmp_path):
    for name in ("airplane-1", "airplane-2", "kite-99"):
        folder = tmp_path / name.rpartition("-")[0] / name
        images(folder / "img", range(1, 4), "{:08d}.jpg")
        boxes(folder / "groundtruth.txt", 3)
        for flags in ("full_occlusion.txt", "out_of_view.txt"):
            (folder / flags).write_text("0,1,0\n" if flags[0] == "f" else "0,0,0\n")
    lasot = opened("LaSOT", tmp_path)
    assert [sequence.name for sequence in lasot] == ["airplane-1"]  # airplane-2 is a training video
    assert lasot["airplane-1"].present.tolist() == [True, False, True]
    (tmp_path / "testing_set.txt").write_text("kite-99\n")
    assert [sequence.name for sequence in opened("LaSOT", tmp_path)] == ["kite-99"]
    (tmp_path / "testing_set.txt").write_text("kite-98\n")
    with pytest.raises(UserError, match="lists 'kite-98'"):
        opened("LaSOT", tmp_path)


@pytest.mark.parametrize(("name", "rate", "rows"), [("NFS240", 240, 16), ("NFS30", 30, 16), ("NFS30", 30, 2)])
def test_need_for_speed_has_corners_and_is_annotated_at_240(tmp_path, name, rate, rows):
    count = 16 if rate == 240 else 2
    images(tmp_path / "yoyo" / str(rate) / "yoyo", range(1, count + 1), "{:05d}.jpg")
    lines = [f'0 {10 + k} 20 {40 + k} 60 {k} 0 0 0 "yoyo"' for k in range(rows)]
    (tmp_path / "yoyo" / str(rate) / "yoyo.txt").write_text("\n".join(lines) + "\n")
    sequence = opened(name, tmp_path)["yoyo"]
    step = rows // count
    assert sequence.ground_truth[:2].tolist() == [[10, 20, 30, 40], [10 + step, 20, 30, 40]]
    assert len(sequence.frames) == count


def test_trackingnet_test_counts_frames_from_zero_and_has_first_boxes(tmp_path):
    images(tmp_path / "TEST" / "frames" / "abc_0", range(12), "{}.jpg")
    boxes(tmp_path / "TEST" / "anno" / "abc_0.txt", 1)
    sequence = opened("TrackingNet", tmp_path)["abc_0"]
    assert [Path(frame).stem for frame in sequence.frames] == [str(k) for k in range(12)]
    assert sequence.ground_truth.shape == (1, 4)


def test_got10k_reads_val_else_test(tmp_path):
    for split in ("test", "val"):
        name = f"GOT-10k_{split.title()}_000001"
        folder = tmp_path / split / name
        images(folder, range(1, 4), "{:08d}.jpg")
        (tmp_path / split / "list.txt").write_text(f"{name}\n")
        boxes(folder / "groundtruth.txt", 1 if split == "test" else 3)
        assert opened("GOT-10k", tmp_path).sequences[0].name == name
    (folder / "cover.label").write_text("8\n0\n3\n")
    (folder / "meta_info.ini").write_text("[METAINFO]\nresolution: (640, 360)\n")
    sequence = opened("GOT-10k", tmp_path).sequences[0]
    assert sequence.annotation.cover.tolist() == [8, 0, 3] and sequence.image_size == (640, 360)
    (folder / "cover.label").write_text("8\n0\n")
    with pytest.raises(UserError, match=r"cover.label: 2 values for 3 boxes"):
        _ = opened("GOT-10k", tmp_path).sequences[0].annotation


def test_rectangle_of_a_polygon_keeps_centre_and_area():
    square = np.array([10.0, 0, 20, 10, 10, 20, 0, 10])  # a diamond of area 200
    x, y, w, h = polygon_to_rectangle(square)
    assert (x + (w - 1) / 2, y + (h - 1) / 2) == (10, 10)
    assert (w - 1) * (h - 1) == pytest.approx(200)
    upright = np.array([5.0, 6, 25, 6, 25, 16, 5, 16])
    assert polygon_to_rectangle(upright).tolist() == [5, 6, 21, 11]


def test_a_benchmark_nobody_wrote_a_reader_for_needs_only_a_json(tmp_path):
    entry = {"img_names": ["a/1.jpg", "a/2.jpg"], "gt_rect": [[1, 2, 3, 4], [1, 2, 3, 4]], "attr": ["FM"]}
    (tmp_path / "Own").mkdir()
    with pytest.raises(UserError, match=r"no sequences of Own"):
        opened("Own", tmp_path / "Own")
    (tmp_path / "Own.json").write_text(json.dumps({"a": entry}))
    own = opened("Own", tmp_path / "Own")
    assert own["a"].frames == [f"{tmp_path}/Own/a/1.jpg", f"{tmp_path}/Own/a/2.jpg"] and own.attributes() == {
        "FM": ["a"]
    }
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "Own.json").write_text(
        '{"b": {"img_names": ["b"], "gt_rect": [[NaN, 1, 2, 3]]}}'
    )
    named = opened("Own", tmp_path / "Own", tmp_path / "elsewhere")
    assert named.source.parent.name == "elsewhere" and np.isnan(named["b"].init_bbox[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": {"img_names": ["1.jpg"], "gt_rect": [[1, 2, 3', "is not valid JSON"),
        ("[]", "holds no sequences"),
        ('{"a": {"img_names": ["1.jpg"]}}', "sequence 'a' has no list 'gt_rect'"),
        ('{"a": {"img_names": ["1.jpg"], "gt_rect": [[1, 2], [3]]}}', "not of equal length"),
        ('{"a": {"img_names": ["1.jpg"], "gt_rect": [[1, 2, 3]]}}', "rows of 4 or 8"),
        (
            '{"a": {"img_names": ["1.jpg"], "gt_rect": [[1, 2, 3, 4]], "absent": [1, 1]}}',
            "2 values in 'absent' for 1",
        ),
        ('{"a": {"img_names": ["1.jpg"], "gt_rect": []}}', "rows of 4 or 8"),
        ('{"a": {"img_names": ["1.jpg"], "gt_rect": [[NaN, 2, 3, 4]]}}', "row 1 of 'gt_rect' holds a number"),
        ('{"a": {"img_names": ["1.jpg"], "gt_rect": [[1,2,3,4],[1,2,3,4]]}}', "1 images but 2 annotated"),
    ],
)
def test_broken_json_is_named(tmp_path, text, message):
    (tmp_path / "OTB100.json").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        _ = opened("OTB100", tmp_path).sequences[0].frames
    assert "\n" not in str(caught.value)


def test_wrong_names_and_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="did you mean 'LaSOT'"):
        open_benchmark("LASOTT", load_settings())
    with pytest.raises(UserError, match="is missing"):
        opened("OTB100", tmp_path / "nowhere")
    with pytest.raises(UserError, match="no sequences of OTB100"):
        opened("OTB100", tmp_path)
    boxes(tmp_path / "Box" / "groundtruth_rect.txt", 3)
    images(tmp_path / "Box" / "img", range(1, 3))
    with pytest.raises(UserError, match="2 images but 3 annotated"):
        _ = opened("OTB100", tmp_path)["Box"].frames
    (tmp_path / "Box" / "groundtruth_rect.txt").write_text("1,2,3,4\n1,2,3\n")
    with pytest.raises(UserError, match=r"groundtruth_rect.txt: line 2: 3 numbers where line 1 has 4"):
        _ = opened("OTB100", tmp_path)["Box"].ground_truth
