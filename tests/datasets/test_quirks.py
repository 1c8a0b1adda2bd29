"""What is peculiar to single benchmarks: names, frame ranges, annotation at another rate, absent targets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from got10k.datasets import OTB, UAV123, VOT, NfS, TColor128
from got10k.datasets import uav123 as got10k_uav123

from config.errors import UserError
from config.files import read_json
from pysot_toolkit.datasets import otb
from pysot_toolkit.datasets.vot import VOT_TAGS
from tests.datasets.folders import boxes, images, opened, video_of


def numbers(sequence) -> list[int]:
    return [int(Path(frame).stem) for frame in sequence.frames]


def same_as_got10k(ours, theirs) -> None:
    """The reader of the got10k toolkit finds the same images and boxes in the same folder."""
    assert len(ours) == len(theirs) > 0
    for sequence, (files, truth) in zip(ours, theirs):
        assert [Path(frame) for frame in sequence.frames] == [Path(file) for file in files]
        polygon = sequence.annotation.polygon
        np.testing.assert_array_equal(sequence.ground_truth if polygon is None else polygon, truth)


@pytest.mark.parametrize(
    ("name", "theirs", "count"), [("OTB100", "tb100", 100), ("OTB50", "tb50", 50), ("OTB2013", "otb2013", 51)]
)
def test_otb_has_the_members_that_got10k_lists(tmp_path, name, theirs, count):
    """One folder serves all three; Human4's first target is annotated, but no sequence."""
    attributes = read_json(Path(otb.__file__).parent / "specs" / "otb.json")["attributes"]
    for video in [*attributes, "Human4-1"]:
        base, dash, target = video.partition("-")
        boxes(tmp_path / base / f"groundtruth_rect{'.' + target if dash else ''}.txt", 1)
    benchmark = opened(name, tmp_path)
    assert len(benchmark) == count and "Human4-1" not in [sequence.name for sequence in benchmark]
    assert {sequence.name.partition("-")[0] for sequence in benchmark} == set(OTB._OTB__version_dict[theirs])
    assert len(benchmark.attributes()) == 11 and all(sequence.attributes for sequence in benchmark)


def test_otb_is_read_as_got10k_reads_it(tmp_path):
    for name, count, annotated in (("David", 770, 471), ("Football1", 75, 74), ("Basketball", 3, 3)):
        images(tmp_path / name / "img", range(1, count + 1))
        boxes(tmp_path / name / "groundtruth_rect.txt", annotated, "\t")
    images(tmp_path / "Skating2" / "img", range(1, 4))
    for target in (1, 2):
        boxes(tmp_path / "Skating2" / f"groundtruth_rect.{target}.txt", 3, ",", first=target)
    theirs = OTB(str(tmp_path), version="tb100", download=False)
    ours = opened("OTB100", tmp_path)
    same_as_got10k(ours, theirs)
    assert [name in ours.layout.result_names(s.name) for name, s in zip(theirs.seq_names, ours)] == [True] * 5


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        *[("BlurCar1", 247, 988), ("BlurCar3", 3, 359), ("BlurCar4", 18, 397), ("David", 300, 770)],
        *[("Diving", 1, 215), ("Football1", 1, 74), ("Freeman3", 1, 460), ("Freeman4", 1, 283)],
        ("Tiger1", 6, 354),
    ],
)
def test_otb_uses_only_a_part_of_some_videos(tmp_path, name, first, last):
    """The ranges on the benchmark's site and in pytracking's list of sequences."""
    images(tmp_path / name / "img", (first - 1, first, last, last + 1))
    boxes(tmp_path / name / "groundtruth_rect.txt", 2)
    assert numbers(opened("OTB100", tmp_path)[name]) == [first, last]


def test_uav123_parts_begin_where_got10k_says(tmp_path):
    """All 123 sequences; of each video only the first two images of each part are there."""
    meta = json.loads(Path(got10k_uav123.__file__).with_suffix(".json").read_text())["UAV123"]
    for name, entry in meta.items():
        boxes(tmp_path / "anno" / "UAV123" / f"{name}.txt", 2)
        first = entry["start_frame"]
        folder = tmp_path / "data_seq" / "UAV123" / entry["folder_name"]
        images(folder, (first, first + 1), "{:06d}.jpg")
    benchmark = opened("UAV123", tmp_path)
    assert len(benchmark) == len(meta) == 123
    for name, entry in meta.items():
        sequence = benchmark[name]
        assert numbers(sequence) == [entry["start_frame"], entry["start_frame"] + 1]
        assert Path(sequence.frames[0]).parent.name == entry["folder_name"]
    assert benchmark.layout.result_names("car1_2") == ["car1_2", "uav_car1_2"]


def test_uav123_at_10_fps_parts_begin_where_its_configuration_says(tmp_path):
    """The start frames in configSeqs.m of the data set."""
    starts = {
        "bird1": (1, 259, 525),
        "car1": (1, 251, 543),
        "car6": (1, 163, 603, 985, 1309),
        "car8": (1, 453),
        "car16": (1, 139),
        "group1": (1, 445, 839, 1309),
        "group2": (1, 303, 591),
        "group3": (1, 523, 943, 1457),
        "person2": (1, 397),
        "person4": (1, 501),
        "person5": (1, 293),
        "person7": (1, 417),
        "person8": (1, 359),
        "person12": (1, 201),
        "person14": (1, 283, 605),
        "person17": (1, 501),
        "person19": (1, 415, 931),
        "truck4": (1, 193),
        "uav1": (1, 519, 825),
    }
    for video, firsts in starts.items():
        for part, first in enumerate(firsts, 1):
            boxes(tmp_path / "anno" / "UAV123_10fps" / f"{video}_{part}.txt", 2)
            images(tmp_path / "data_seq" / "UAV123_10fps" / video, (first, first + 1), "{:06d}.jpg")
    benchmark = opened("UAV123_10fps", tmp_path)
    for video, firsts in starts.items():
        for part, first in enumerate(firsts, 1):
            assert numbers(benchmark[f"{video}_{part}"]) == [first, first + 1]


def test_uav20l_has_whole_videos_and_shares_the_images(tmp_path):
    images(tmp_path / "data_seq" / "UAV123" / "car8", range(1, 2576), "{:06d}.jpg")
    boxes(tmp_path / "anno" / "UAV20L" / "car8.txt", 2575)
    boxes(tmp_path / "anno" / "UAV123" / "car8_2.txt", 1219)
    for name in ("ReadMe.txt", "configSeqs.m"):  # got10k's reader wants more than three entries
        (tmp_path / name).touch()
    for name in ("UAV20L", "UAV123"):
        same_as_got10k(opened(name, tmp_path), UAV123(str(tmp_path), version=name))
    images(tmp_path / "data_seq" / "UAV20L" / "car8", range(1, 2576), "{:06d}.jpg")
    assert "/UAV20L/" in opened("UAV20L", tmp_path)["car8"].frames[0]


def test_tc128_has_ranges_and_names_of_its_own(tmp_path):
    for folder, name, first, last in (
        ("Busstation_ce2", "Busstation_ce2", 6, 9),
        ("Yo_yos_ce1", "Yo-yos_ce1", 1, 3),
    ):
        images(tmp_path / folder / "img", range(1, 12))
        boxes(tmp_path / folder / f"{name}_gt.txt", last - first + 1)
        (tmp_path / folder / f"{name}_frames.txt").write_text(f"{first},{last}\n")
    (tmp_path / "Busstation_ce2" / "Busstation_ce2_att.txt").write_text("OCC SV\nBC\n")
    benchmark = opened("TC128", tmp_path)
    same_as_got10k(benchmark, TColor128(str(tmp_path), download=False))
    assert numbers(benchmark["Busstation_ce2"]) == [6, 7, 8, 9]
    assert benchmark.attributes() == {name: ["Busstation_ce2"] for name in ("BC", "OCC", "SV")}
    assert "tpl_Yo_yos_ce1" in benchmark.layout.result_names("Yo_yos_ce1")
    (tmp_path / "Yo_yos_ce1").rename(tmp_path / "tpl_Yo_yos_ce1")
    assert numbers(opened("TC128", tmp_path)["Yo_yos_ce1"]) == [1, 2, 3]
    (tmp_path / "tpl_Yo_yos_ce1" / "Yo-yos_ce1_frames.txt").write_text("1\n")
    with pytest.raises(UserError, match=r"Yo-yos_ce1_frames\.txt: is not 'first,last'"):
        _ = opened("TC128", tmp_path)["Yo_yos_ce1"].frames


def test_need_for_speed_is_read_as_got10k_reads_it(tmp_path):
    """At 30 per second, lengths that fit but for one: annotated at 30 or at 240, one more or less."""
    count = 20
    fitting = [count - 1, count, count + 1, *range(8 * (count - 2) + 1, 8 * (count + 1) + 1)]
    for rows in fitting:
        folder = tmp_path / f"video{rows:03d}" / "30"
        images(folder / folder.parent.name, range(1, count + 1), "{:05d}.jpg")
        lines = [f'0 {k} {k + 1}.5 {k + 40} {k + 60} {k} 0 1 0 "a {k}"\n' for k in range(rows)]
        (folder / f"{folder.parent.name}.txt").write_text("".join(lines))
    same_as_got10k(opened("NFS30", tmp_path), NfS(str(tmp_path), fps=30))


def test_need_for_speed_repacked_by_pytracking(tmp_path):
    images(tmp_path / "sequences" / "yoyo", range(1, 4), "{:05d}.jpg")
    boxes(tmp_path / "anno" / "nfs_yoyo.txt", 3, "\t")
    benchmark = opened("NFS30", tmp_path)
    assert numbers(benchmark["yoyo"]) == [1, 2, 3]
    assert benchmark["yoyo"].ground_truth[2].tolist() == [3, 2, 30, 40]
    assert benchmark.layout.result_names("yoyo") == ["yoyo", "nfs_yoyo"]


def test_lasot_and_its_extension_in_one_folder(tmp_path):
    """Each takes its own; airplane-2 is a training video, atv-11 is none of the extension's."""
    for name in ("airplane-1", "airplane-2", "atv-1", "atv-10", "atv-11", "monkey-17"):
        folder = tmp_path / name.partition("-")[0] / name
        images(folder / "img", range(1, 4), "{:08d}.jpg")
        boxes(folder / "groundtruth.txt", 2 if name == "monkey-17" else 3)
        (folder / "full_occlusion.txt").write_text("0,1,0\n")
        (folder / "out_of_view.txt").write_text("1,0,0\n")
    lasot, extension = opened("LaSOT", tmp_path), opened("LaSOT_extension_subset", tmp_path)
    assert [sequence.name for sequence in lasot] == ["airplane-1", "monkey-17"]
    assert [sequence.name for sequence in extension] == ["atv-1", "atv-10"]
    assert extension["atv-10"].present.tolist() == [False, False, True]
    monkey = lasot["monkey-17"]  # more images than annotated frames
    assert monkey.extra_frames and len(monkey.frames) == 3 and len(monkey.ground_truth) == 2
    (tmp_path / "atv" / "atv-10" / "out_of_view.txt").write_text("1,0\n")
    with pytest.raises(UserError, match=r"out_of_view\.txt: 2 values for 3 boxes"):
        _ = opened("LaSOT_extension_subset", tmp_path)["atv-10"].annotation


def test_got10k_splits_by_name(tmp_path):
    val, test = video_of("GOT-10k", tmp_path), video_of("GOT-10k_test", tmp_path)
    boxes(test.truth, 1)
    for name, video in (("GOT-10k", val), ("GOT-10k_val", val), ("GOT-10k_test", test)):
        assert opened(name, tmp_path).sequences[0].name == video.name
    sequence = opened("GOT-10k_test", tmp_path / "test").sequences[0]  # or the split's own folder
    assert len(sequence.frames) == 5 and sequence.ground_truth.tolist() == [[1, 2, 30, 40]]


def test_vot_tags_may_be_short_missing_or_called_labels(tmp_path):
    video = video_of("VOT2016", tmp_path)
    folder = video.truth.parent
    (folder / "camera_motion.label").write_text("1\n1\n0\n0\n1\n")
    (folder / "occlusion.tag").write_text("0\n1\n")
    (folder / "size_change.tag").write_text("")
    ours = opened("VOT2016", tmp_path)
    same_as_got10k(ours, VOT(str(tmp_path), version=2016, anno_type="default", download=False))
    tags = ours["bag"].annotation.tags
    assert set(tags) == set(VOT_TAGS) and all(len(values) == 5 for values in tags.values())
    carried = {tag: values.tolist() for tag, values in tags.items() if values.any()}
    assert carried == {"camera_motion": [1, 1, 0, 0, 1], "occlusion": [0, 1, 0, 0, 0]}


@pytest.mark.parametrize("pattern", ["color/%08d.jpg", "color/", "color"])
def test_vot_images_lie_where_the_sequence_file_says(tmp_path, pattern):
    """In a workspace of the VOT toolkit, whose sequences have a folder of their own."""
    video = video_of("VOT2018", tmp_path / "sequences")
    (video.images / "depth.jpg").parent.rename(video.truth.parent / "pictures")
    text = (
        f"name=bag\nchannels.color={pattern.replace('color', 'pictures')}\nchannels.ir=ir/%08d.jpg\nfps=30\n"
    )
    (video.truth.parent / "sequence").write_text(text)
    sequence = opened("VOT2018", tmp_path)["bag"]
    assert numbers(sequence) == [1, 2, 3, 4, 5] and "/bag/pictures/" in sequence.frames[0]


def test_vot_truth_may_be_boxes_but_nothing_else(tmp_path):
    video = video_of("VOT2019", tmp_path)
    boxes(video.truth, 5)
    annotation = opened("VOT2019", tmp_path)["bag"].annotation
    assert annotation.polygon is None and annotation.bbox[1].tolist() == [2, 2, 30, 40]
    video.truth.write_text("1,2,3,4,5,6\n" * 5)
    with pytest.raises(UserError, match=r"groundtruth\.txt: 6 columns, 8 for polygons or 4 for boxes"):
        _ = opened("VOT2019", tmp_path)["bag"].annotation


def test_an_empty_list_of_a_tag_in_pysots_json_means_never(tmp_path):
    entry = {"img_names": ["bag/1.jpg"] * 2, "gt_rect": [[1, 2, 3, 2, 3, 5, 1, 5]] * 2, "occlusion": [0, 1]}
    (tmp_path / "VOT2018.json").write_text(json.dumps({"bag": {**entry, "camera_motion": []}}))
    tags = opened("VOT2018", tmp_path)["bag"].annotation.tags
    assert {tag: values.tolist() for tag, values in tags.items()} == {
        tag: [0, 1] if tag == "occlusion" else [0, 0] for tag in VOT_TAGS
    }
    (tmp_path / "VOT2018.json").write_text(json.dumps({"bag": {**entry, "size_change": [1]}}))
    with pytest.raises(UserError, match="1 values in 'size_change' for 2 boxes"):
        _ = opened("VOT2018", tmp_path)["bag"].annotation


def test_every_published_annotation_file_is_read(shared):
    """All sequences of all JSON files of the reference data; absence is NaN only where the benchmark means it."""
    bench = shared("metrics", "bench")
    files = sorted((bench / "seq_files").glob("*.json"))
    assert files
    for path in files:
        benchmark = opened(path.stem, bench / "data" / path.stem, bench / "seq_files")
        for sequence in benchmark:
            assert len(sequence.frames) == len(sequence.ground_truth) > 1
            absent = np.isnan(sequence.ground_truth).any(axis=1)
            assert benchmark.layout.nan_is_absent or not absent.any()
