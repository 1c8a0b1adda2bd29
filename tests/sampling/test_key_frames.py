"""The sampling rule, its files, and the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.defaults import get_defaults
from config.errors import UserError
from ltr.dataset.base import open_dataset
from sampling.key_frames import ensure_key_frames, sample_key_frames, sample_video, sampling_file
from tests.conftest import ROOT

masks = st.lists(st.booleans(), min_size=1, max_size=120).map(np.array)


def middle(frames):
    return int(frames[len(frames) // 2])


def published_rule(visible, human, num):
    """The rule as the reference words it, frame by frame."""
    n, chosen = len(visible), set()
    for part in range(num):
        base = min(max(part * n // num + n // (2 * num), 0), n - 1)
        gap = max(1, n // (8 * num))
        while True:
            window = [f for f in range(max(0, base - gap), min(n, base + gap)) if visible[f]]
            if len(window) >= 2:
                break
            gap += max(1, n // (8 * num))
            if gap > n:
                return None
        frame = window[len(window) // 2]
        while not human[frame] and frame > 0:
            frame -= 1
        chosen.add(frame)
    return sorted(chosen)


@given(visible=masks, num=st.integers(1, 12), data=st.data())
def test_rule_equals_its_description(visible, num, data):
    human = np.array(data.draw(st.lists(st.booleans(), min_size=len(visible), max_size=len(visible))))
    assert sample_video(visible, human, num, middle) == published_rule(visible, human, num)


@given(visible=masks, num=st.integers(1, 12), seed=st.integers(0, 9))
def test_only_visible_frames_sorted_and_distinct(visible, num, seed):
    generator = np.random.default_rng(seed)
    frames = sample_video(visible, np.ones_like(visible), num, generator.choice)
    if visible.sum() < 2:
        assert frames is None
    elif frames is not None:
        assert visible[frames].all() and frames == sorted(set(frames)) and 1 <= len(frames) <= num


@given(length=st.integers(24, 400), num=st.integers(1, 3))
def test_one_frame_in_every_part_of_a_visible_video(length, num):
    visible = np.ones(length, dtype=bool)
    frames = sample_video(visible, visible, num, middle)
    assert [frame * num // length for frame in frames] == list(range(num))


@pytest.fixture
def settings(tmp_path, shared):
    settings = get_defaults()
    settings.paths.var = str(tmp_path / "var")
    settings.paths.sampling_results = str(tmp_path / "results")
    for name in ("LaSOT", "GOT-10k", "TrackingNet"):
        settings.paths.train[name] = str(shared("sequences", name))
    return settings


def opened(settings, name, split):
    return open_dataset(name, split, settings.paths.train[name], settings.paths.var)


def test_same_command_same_file_and_other_videos_do_not_matter(settings):
    train, everything = (sample_key_frames(opened(settings, "LaSOT", split), 3) for split in ("train", "all"))
    assert train == sample_key_frames(opened(settings, "LaSOT", "train"), 3)
    for key, entry in train["sparse_sample_result"].items():
        assert everything["sparse_sample_result"][key] == entry
    assert sample_key_frames(opened(settings, "LaSOT", "train"), 3, seed=1) != train


def test_trackingnet_takes_human_boxes_unless_told(settings):
    dataset = opened(settings, "TrackingNet", "0")
    walked = sample_key_frames(dataset, 3)["sparse_sample_result"]
    for i, key in enumerate(dataset.keys):
        human = dataset.human_labels(dataset.annotation(i))
        assert all(human[frame] or frame == 0 for frame in walked[key][0]["f_ids"])
    assert sample_key_frames(dataset, 3, use_all_anno=True)["sparse_sample_result"] != walked


def test_missing_file_is_sampled_once_with_a_notice(settings, capsys):
    dataset = opened(settings, "LaSOT", "train")
    key_frames = ensure_key_frames(dataset, settings)
    assert "is missing" in capsys.readouterr().out
    assert list(key_frames.sequences) == dataset.keys and key_frames.path.name == "LaSOT_train_kf_003.json"
    first = key_frames.path.read_bytes()
    again = ensure_key_frames(dataset, settings)
    assert not capsys.readouterr().out and again.path.read_bytes() == first
    entries = list(again.entries(dataset))
    assert [entry[0] for entry in entries] == dataset.keys
    for i, (_, number, f_ids, bboxes) in enumerate(entries):
        assert number == 0 and f_ids.dtype == np.int64
        np.testing.assert_array_equal(bboxes, dataset.annotation(i).bbox[f_ids])
    key_frames.path.unlink()
    settings.sampling.require_files = True
    with pytest.raises(UserError, match="LaSOT_train_kf_003.json: is missing"):
        ensure_key_frames(dataset, settings)
    assert not key_frames.path.exists()


def published(settings, name="LaSOT", split="train", num=3, **content):
    """A sampling file in the reference's own style, at the place where ``LaSOT:train`` looks."""
    path = sampling_file(settings, "LaSOT", "train", 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    fs_settings = {"name": "any", "dataset": name, "split": split, "mode": "key_frames", "num": num}
    value = {"fs_settings": fs_settings, "failure_seqs": [], "sparse_sample_result": {}} | content
    path.write_text(json.dumps(value, indent=4, sort_keys=True))
    return path


def test_published_file_with_failures_and_boxes(settings, capsys):
    result = {
        "LaSOT_person-3": [{"f_ids": [9, 4], "bboxes": [[1, 2, 3, 4], [5, 6, 7, 8]]}, {"f_ids": [0]}],
        "LaSOT_car-1": [{"f_ids": [0]}],
        "LaSOT_elsewhere-1": [{"f_ids": [0]}],
    }
    published(settings, sparse_sample_result=result, failure_seqs=["LaSOT_car-1"])
    key_frames = ensure_key_frames(opened(settings, "LaSOT", "train"), settings)
    assert list(key_frames.sequences) == ["LaSOT_person-3"] and key_frames.failure_seqs == ["LaSOT_car-1"]
    first, second = key_frames.sequences["LaSOT_person-3"]
    assert first.f_ids.tolist() == [4, 9] and first.bboxes.tolist() == [[5, 6, 7, 8], [1, 2, 3, 4]]
    assert second.bboxes is None
    assert "says nothing about 1 of 3 videos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"split": "test"}, "split 'test' instead of 'train'"),
        ({"name": "GOT-10k"}, "dataset 'GOT-10k' instead of 'LaSOT'"),
        ({"num": 5}, "num 5 instead of 3"),
        ({"fs_settings": None}, "'fs_settings' is missing"),
        ({"sparse_sample_result": []}, "'sparse_sample_result' is missing"),
        ({"sparse_sample_result": {"Other_1": [{"f_ids": [0]}]}}, "names no usable video"),
        ({"sparse_sample_result": {"LaSOT_car-1": [{"f_ids": [0, 220]}]}}, "car-1.*frame 220"),
        ({"sparse_sample_result": {"LaSOT_car-1": [{"f_ids": [0, 0]}]}}, "twice"),
        ({"sparse_sample_result": {"LaSOT_car-1": [{"f_ids": [-1]}]}}, "frame -1"),
        ({"sparse_sample_result": {"LaSOT_car-1": [{"f_ids": ["a"]}]}}, "whole number"),
        ({"sparse_sample_result": {"LaSOT_car-1": [{"f_ids": []}]}}, "at least one"),
        ({"sparse_sample_result": {"LaSOT_car-1": [{}]}}, "'f_ids' is missing"),
        ({"sparse_sample_result": {"LaSOT_car-1": []}}, "no trajectory"),
        ({"sparse_sample_result": {"LaSOT_car-1": 3}}, "car-1"),
        ({"sparse_sample_result": {"LaSOT_car-1": ["a"]}}, "car-1"),
        ({"sparse_sample_result": {"LaSOT_car-1": [{"f_ids": [0], "bboxes": [[1, 2, 3]]}]}}, "x,y,w,h"),
        ({"sparse_sample_result": {"LaSOT_car-1": [{"f_ids": [0], "bboxes": [[1, 2, 0, 3]]}]}}, "above 0"),
        ({"sparse_sample_result": {"LaSOT_car-1": [{"f_ids": [0], "bboxes": [[1, 2, "w", 3]]}]}}, "car-1"),
    ],
)
def test_wrong_file_is_one_error_that_names_it(settings, content, says):
    path = published(settings, **content)
    before = path.read_bytes()
    with pytest.raises(UserError, match=says) as error:
        ensure_key_frames(opened(settings, "LaSOT", "train"), settings)
    assert str(path) in str(error.value) and path.read_bytes() == before


def test_truncated_file(settings):
    path = published(settings)
    path.write_text(path.read_text()[:80])
    with pytest.raises(UserError, match="is not valid JSON"):
        ensure_key_frames(opened(settings, "LaSOT", "train"), settings)


def test_own_videos_need_the_json_or_ground_truth(settings, tmp_path, shared):
    root = tmp_path / "own"
    shutil.copytree(shared("sequences", "LaSOT") / "face/face-1/img", root / "me")
    dataset = open_dataset("Frames", "all", root, tmp_path)
    path = sampling_file(settings, "Frames", "all", 3)
    for require in (True, False):
        settings.sampling.require_files = require
        with pytest.raises(UserError, match=r"bboxes.*docs/own_videos\.md") as error:
            ensure_key_frames(dataset, settings)
        assert str(path) in str(error.value) and '"Frames_me"' in str(error.value)
    shutil.copy(shared("sequences", "LaSOT") / "face/face-1/groundtruth.txt", root / "me")
    assert list(ensure_key_frames(dataset, settings).sequences) == ["Frames_me"]


def test_a_label_without_size_is_left_out(settings, tmp_path, capsys):
    root = tmp_path / "net"
    (root / "TRAIN_0/frames/a").mkdir(parents=True)
    for frame in range(12):
        (root / f"TRAIN_0/frames/a/{frame}.jpg").touch()
    (root / "TRAIN_0/anno").mkdir()
    boxes = (
        ["0,0,0,0"] + ["1.5,2,3,4"] * 8 + ["1,2,3,4"] * 3
    )  # walking back from the first parts ends at frame 0
    (root / "TRAIN_0/anno/a.txt").write_text("\n".join(boxes))
    settings.paths.train["TrackingNet"] = str(root)
    dataset = opened(settings, "TrackingNet", "0")
    ((_, _, f_ids, bboxes),) = ensure_key_frames(dataset, settings).entries(dataset)
    assert f_ids.min() >= 9 and bboxes.tolist() == [[1, 2, 3, 4]] * len(f_ids)
    assert "1 key frames have a box without a size" in capsys.readouterr().err


@pytest.fixture
def command(tmp_path, shared):
    """Run the verb from inside its folder, as users do; returns code, stdout, stderr."""
    root = tmp_path / "TrackingNet"
    for number in range(4):
        shutil.copytree(shared("sequences", "TrackingNet", "TRAIN_0"), root / f"TRAIN_{number}")
    local = tmp_path / "local.py"
    paths = {"TrackingNet": str(root), "LaSOT": str(shared("sequences", "LaSOT"))}
    local.write_text(
        "class EnvironmentSettings:\n def __init__(self):\n"
        f"  self.workspace_dir = {str(tmp_path / 'var')!r}\n"
        f"  self.train_dataset_dirs = {paths!r}\n  self.test_dataset_dirs = {{}}\n"
    )

    def call(*options):
        done = subprocess.run(
            [
                sys.executable,
                "key_frame_sampling.py",
                *options,
                "--set",
                "paths.sampling_results",
                str(tmp_path),
            ],
            cwd=ROOT / "sampling" / "vanilla_sampling",
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"SPOT_LOCAL": str(local)},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout, done.stderr

    return call


def test_command_line_merges_sets(command, tmp_path):
    code, _, err = command("--dataset", "TrackingNet", "--split", "0,1,2,3", "--num", "3", "--merge")
    assert code == 0, err
    merged = tmp_path / "TrackingNet_0-3_kf_003.json"
    parts = [json.loads((tmp_path / f"TrackingNet_{n}_kf_003.json").read_text()) for n in range(4)]
    content = json.loads(merged.read_text())
    assert content["fs_settings"] | {"name": ""} == {
        "name": "", "dataset": "TrackingNet", "split": "0-3", "mode": "key_frames", "num": 3
    }  # fmt: skip
    joined = {key: entry for part in parts for key, entry in part["sparse_sample_result"].items()}
    assert content["sparse_sample_result"] == joined and len(joined) == 8
    merged_bytes = merged.read_bytes()
    merged.unlink()
    # One set per file, or all at once: the same draws, under the same name.
    code, out, err = command("--dataset", "TrackingNet", "--split", "0-3", "--num", "3", "--no_parse")
    assert code == 0 and merged.read_bytes() == merged_bytes, err
    merged.write_text(merged.read_text().replace('"num":3', '"num": 3'))
    code, out, _ = command("--dataset", "TrackingNet", "--split", "0-3", "--num", "3", "--no_parse")
    assert code == 0 and "kept" in out and merged.read_bytes() != merged_bytes
    command("--dataset", "TrackingNet", "--split", "0-3", "--num", "3", "--no_parse", "--overwrite")
    assert merged.read_bytes() == merged_bytes


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--dataset", "LaSO", "--split", "train"], "did you mean 'LaSOT'"),
        (["--dataset", "LaSOT", "--split", "trian"], "did you mean 'train'"),
        (["--dataset", "LaSOT", "--split", "train", "--num", "0"], "--num 0"),
        (["--dataset", "LaSOT", "--split", "train", "--mode", "any"], "--mode any"),
        (["--dataset", "LaSOT"], "--split"),
        (["--dataset", "TrackingNet", "--split", "11"], "TRAIN_11"),
        (["--dataset", "GOT-10k", "--split", "all"], "GOT-10k"),
    ],
)
def test_command_line_errors(command, tmp_path, options, says):
    code, out, err = command(*options)
    assert code == 2 and says in err and err.count("\n") == 1 and not out
    assert not list(tmp_path.glob("*_kf_*"))
