"""COCO in its genuine layout, as one-frame videos."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest

from config.errors import UserError
from ltr.dataset.base import open_dataset

OBJECTS = [  # annotation id, image id, box, crowd
    (908800889, 558840, [199.84, 200.46, 77.71, 70.88], 0),
    (151091, 558840, [10.5, 20.25, 30.0, 12.5], 0),
    (900100259571, 200365, [234.22, 317.11, 149.39, 38.55], 1),
    (1768, 289343, [473.07, 395.93, 38.65, 28.67], 0),
    (1773, 289343, [204.01, 235.08, 0.0, 4.0], 0),
    (1780, 61471, [272.1, 200.23, 151.97, 279.77], 0),
]
NAMES = {number: f"COCO_train2014_{number:012d}.jpg" for number in (558840, 200365, 289343, 61471)}


def make(root, split="train2014", folder="images/train2014", missing=()):
    """The files of COCO: images are empty, the annotation has the fields of the genuine one."""
    images = root / folder
    images.mkdir(parents=True)
    for number, name in NAMES.items():
        if number not in missing:
            (images / name).touch()
    content = {
        "info": {"year": 2014},
        "licenses": [{"id": 1}],
        "images": [
            {"id": number, "file_name": name, "width": 640, "height": 480, "license": 1}
            for number, name in NAMES.items()
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "bbox": bbox,
                "iscrowd": crowd,
                "area": 1.0,
                "category_id": 18,
                "segmentation": {"counts": [1], "size": [480, 640]} if crowd else [[1.0] * 6],
            }
            for number, image, bbox, crowd in OBJECTS
        ],
        "categories": [{"id": 18, "name": "dog", "supercategory": "animal"}],
    }
    (root / "annotations").mkdir(exist_ok=True)
    path = root / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(content))
    return path


def opened(root, tmp_path, split="train2014"):
    return open_dataset("COCO", split, root, tmp_path / "cache")


@pytest.mark.parametrize("folder", ["images/train2014", "train2014"])
def test_objects_are_videos_of_one_frame(tmp_path, folder):
    root = tmp_path / "coco"
    make(root, folder=folder)
    for dataset in (opened(root, tmp_path), opened(root, tmp_path)):  # parsed, and from the cache
        dataset = pickle.loads(pickle.dumps(dataset))
        assert dataset.keys == [f"COCO_train2014_{number}" for number in (908800889, 151091, 1768, 1780)]
        assert len(dataset) == dataset.listed == 4
        kept = [item for item in OBJECTS if not item[3] and item[2][2]]
        for i, (_, image, bbox, _) in enumerate(kept):
            assert dataset.num_frames(i) == 1
            assert dataset.frame_path(i, 0) == str(root / folder / NAMES[image])
            assert os.path.isfile(dataset.frame_path(i, 0))
            annotation = dataset.annotation(i)
            assert annotation.bbox.tolist() == [bbox] and annotation.visible.tolist() == [True]
            with pytest.raises(ValueError):
                annotation.bbox[0, 0] = 1
        with pytest.raises(IndexError):
            dataset.frame_path(0, 1)


def test_images_that_are_not_here_are_left_out(tmp_path):
    root = tmp_path / "coco"
    make(root, missing=(558840,))
    dataset = opened(root, tmp_path)
    assert dataset.keys == ["COCO_train2014_1768", "COCO_train2014_1780"] and dataset.listed == 4
    (root / "images/train2014" / NAMES[558840]).touch()
    assert len(opened(root, tmp_path)) == 4  # the cache keeps annotations, not what is in the folder


def test_a_changed_annotation_is_read_again(tmp_path):
    root = tmp_path / "coco"
    path = make(root)
    assert len(opened(root, tmp_path)) == 4
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = [1.0, 2.0, 3.0, 4.0]
    path.write_text(json.dumps(content))
    assert opened(root, tmp_path).annotation(0).bbox.tolist() == [[1, 2, 3, 4]]
    (cache,) = (tmp_path / "cache").glob("*.npz")
    for damage in (b"", cache.read_bytes()[:200], b"not an archive"):
        cache.write_bytes(damage)
        assert np.array_equal(opened(root, tmp_path).annotation(1).bbox, [OBJECTS[1][2]])


def test_what_is_wrong_is_named(tmp_path):
    root = tmp_path / "coco"
    with pytest.raises(UserError, match="unknown split 'train'"):
        opened(root, tmp_path, "train")
    with pytest.raises(UserError, match="images/train2014"):
        opened(root, tmp_path)
    path = make(root)
    for text, complaint in {
        "{": "is no JSON file",
        "[]": "no annotation of COCO's objects",
        '{"images": [], "annotations": [{"iscrowd": 0, "id": 1, "image_id": 5, "bbox": [1, 2, 3, 4]}]}': "KeyError: 5",
        '{"images": [], "annotations": []}': "holds no image with an object",
    }.items():
        path.write_text(text)
        with pytest.raises(UserError, match=complaint):
            opened(root, tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="instances_train2014.json"):
        opened(root, tmp_path)
