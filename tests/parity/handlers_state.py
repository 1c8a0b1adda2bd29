"""Parity of the sampler state: merging, recording, and which frames are drawn.

The reference protects labelled frames by comparing a position in its list with frame numbers
(``case.json``, "Reference defect"). Here a plain model of one-by-one merging is run with the reference's test
and with the one that was meant; the first must give the reference's files, so the model is right, and the
second must give what ours gives, so that ours differs in the meant way and in no other.
"""

from __future__ import annotations

import copy
import json
import re
import tempfile
from bisect import bisect_right
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from ltr.actors.sparse import SparseActor
from ltr.data.crop import box_to_crop, box_to_image
from ltr.data.frame_choice import PROPAGATING, choose, coarse_box, frontier, neighbours
from ltr.data.sampler_state import RECORD, SamplerState

TOLERANCE = 1e-4


def spot_state(folder, kit):
    """Every part of the case."""
    _, case, golden = kit.load(folder)
    values = _Inputs(case["inputs"])
    with tempfile.TemporaryDirectory() as scratch:
        _merge(folder, Path(scratch))
        _initial(folder, values, Path(scratch))
    _record(folder, case, values["batch"]["values"], golden, kit)
    _neighbours(case, values, golden, kit)
    _frames(case, values["relay_frames"]["values"], golden, kit)


class _Inputs(dict):
    """The case's inputs by name, with or without a prefix."""

    def __init__(self, entries):
        super().__init__((entry["name"], entry) for entry in entries)

    def __missing__(self, name):
        return next(entry for known, entry in self.items() if known.endswith(name))


def _load(path):
    return json.loads(Path(path).read_text())


def _merge(folder, scratch):
    before, epoch, after = (_load(folder / f"{name}.json") for name in ("before", "epoch", "after"))
    assert _one_by_one(before, epoch, reference_defect=True) == after, "the model is not the reference"
    state = SamplerState.from_json(folder / "before.json", scratch / "state.bin")
    state.write_json(scratch / "same.json")
    assert _load(scratch / "same.json") == before

    state.merge(_records(state, epoch))
    state.write_json(scratch / "after.json")
    meant = _one_by_one(before, epoch, reference_defect=False)
    assert _load(scratch / "after.json") == meant

    differing = {
        (key, path, frame)
        for key, paths in after.items()
        for path, theirs in enumerate(paths)
        for frame in theirs["relay_frame_ids"]
        if _frame(theirs, frame) != _frame(meant[key][path], frame)
    }
    for key, path, frame in differing:
        theirs, ours = _frame(after[key][path], frame), _frame(meant[key][path], frame)
        if frame in before[key][path]["key_frame_ids"]:  # the reference overwrote a label
            assert ours == _frame(before[key][path], frame), (key, frame)
        else:  # the reference refused a better box since some position is a labelled frame's number
            assert ours[1] > theirs[1], (key, frame)


def _one_by_one(before, epoch, reference_defect):
    """The published update, as ``case.json`` words it; with the test that was meant unless ``reference_defect``."""
    state = copy.deepcopy(before)
    for key, found in epoch.items():
        fields = (found[name] for name in ("path_ids", "relay_frame_ids", "bboxes", "confidence"))
        for path_id, frame, box, confidence in zip(*fields):
            path, box = state[key][path_id], [round(x, 1) for x in box]
            frames, keys = path["relay_frame_ids"], path["key_frame_ids"]
            i = bisect_right(frames, frame)
            if i and frames[i - 1] == frame:
                protected = (i if reference_defect else frame) in keys
                if confidence > path["confidence"][i - 1] and not protected:
                    path["bboxes"][i - 1], path["confidence"][i - 1] = box, confidence
            else:
                frames.insert(i, frame)
                path["bboxes"].insert(i, box)
                path["confidence"].insert(i, confidence)
    return state


def _records(state, epoch):
    """The epoch's records with their order, shuffled: the order field alone decides."""
    rows = [
        (state.row(key, path), frame, tuple(box), confidence)
        for key, found in epoch.items()
        for path, frame, box, confidence in zip(
            found["path_ids"], found["relay_frame_ids"], found["bboxes"], found["confidence"]
        )
    ]
    records = np.array([(order, *row) for order, row in enumerate(rows)], RECORD)
    return np.random.default_rng(len(rows)).permutation(records)


def _frame(path, frame):
    at = path["relay_frame_ids"].index(frame)
    return path["bboxes"][at], path["confidence"][at]


def _initial(folder, values, scratch):
    """The state before training, from a sampling file and the annotation that the case describes."""
    formula = re.search(r"annotation of frame f = \(([^)]*)\)", values["sampling_results.json"]["meaning"])
    assert formula
    sampled = _load(folder / "sampling_results.json")
    entries = [
        (key, i, np.array(path["f_ids"]), [_box(formula[1], f) for f in path["f_ids"]])
        for key, paths in sampled["sparse_sample_result"].items()
        if key not in sampled["failure_seqs"]
        for i, path in enumerate(paths)
    ]
    SamplerState.create(scratch / "initial.bin", entries).write_json(scratch / "initial.json")
    assert _load(scratch / "initial.json") == _load(folder / "initial_state.json")


def _box(formula, frame):
    """Four numbers from a formula such as ``f, 2f, 10+f, 20-f/4``."""
    return [_number(term, frame) for term in formula.split(",")]


def _number(term, frame):
    """A sum of terms ``3``, ``f``, ``2f`` and ``f/4``."""
    total = 0.0
    for sign, factor, f, divisor in re.findall(r"([+-]?)([\d.]*)(f?)(?:/([\d.]+))?", term.replace(" ", "")):
        if factor or f:
            amount = float(factor or 1) * (frame if f else 1) / float(divisor or 1)
            total += -amount if sign == "-" else amount
    return total


def _record(folder, case, batch, golden, kit):
    """Boxes of a batch in the image and in the aug crop.

    Ours cuts a box at the image's border where the reference clamps x, y, w and h one by one, so only
    boxes inside the image agree, and their labels in the aug crop with them.
    """
    size = case["build"]["crop_size"]
    threshold = case["build"]["confidence_threshold"]
    arrays = {name: np.array(value, np.float64) for name, value in batch.items() if name != "keys"}
    boxes = box_to_image(arrays["best_bbox"], arrays["unlabeled_extract"], arrays["unlabeled_factor"], size)
    inside = (boxes[:, :2] >= 0).all(1)
    assert inside.any()
    label = box_to_crop(boxes, arrays["aug_extract"], arrays["aug_factor"], size)
    whole = (label[:, :2] >= 0).all(1) & (label[:, :2] + label[:, 2:] <= size).all(1) & inside
    assert kit.difference(label[whole], golden["batch_label"][whole]) <= TOLERANCE

    accepted = torch.tensor(arrays["best_conf"], dtype=torch.float32) >= threshold
    assert np.array_equal(accepted.numpy(), golden["batch_success"].astype(bool))
    records = _recorded_by_actor(boxes, arrays["best_conf"], accepted)
    keys = [key for key, yes in zip(batch["keys"], accepted.tolist()) if yes]
    expected, seen = _load(folder / "recorded.json"), {}
    for (key, path, frame), record, kept in zip(keys, records, inside[accepted.numpy()]):
        at = seen.setdefault(key, 0)
        seen[key] += 1
        theirs = {name: column[at] for name, column in expected[key].items()}
        assert (theirs["path_ids"], theirs["relay_frame_ids"]) == (path, frame)
        assert round(float(record["confidence"]), 4) == theirs["confidence"]
        if kept:
            assert kit.difference(record["bbox"], theirs["bboxes"]) <= TOLERANCE
    assert seen == {key: len(found["path_ids"]) for key, found in expected.items()}


def _recorded_by_actor(boxes, confidence, accepted):
    """What ``SparseActor.take_records`` hands to the journal."""
    count = len(boxes)
    table = np.column_stack([accepted.numpy(), np.arange(count), np.zeros((count, 2)), boxes, confidence])
    return SparseActor.take_records(SimpleNamespace(_found=[torch.from_numpy(table)]))  # type: ignore[arg-type]


def _neighbours(case, values, golden, kit):
    recorded = np.array(values["recorded_frames"]["values"], np.int32)
    formula = re.search(r"box of frame f is \(([^)]*)\)", values["recorded_frames"]["meaning"])
    assert formula
    boxes = np.array([_box(formula[1], int(f)) for f in recorded])
    limit = case["build"]["interpolation_limit"]
    targets = range(len(golden["nearest"]))
    near, far = recorded[np.array([neighbours(recorded, f) for f in targets]).T]
    assert np.array_equal(near, golden["nearest"])
    assert np.array_equal(far, golden["second_nearest"])
    coarse = [coarse_box(recorded, boxes, f, limit) for f in targets]
    assert kit.difference(coarse, golden["interpolated"]) <= TOLERANCE

    meaning = next(o["meaning"] for o in case["outputs"] if o["name"] == "nearest_single")
    only, *targets = (int(number) for number in re.findall(r"\d+", meaning))
    single = np.array([only], np.int32)
    pairs = np.array([[single[at] for at in neighbours(single, f)] for f in targets]).T
    assert np.array_equal(pairs, golden["nearest_single"])


def _frames(case, relay_frames, golden, kit):
    recorded = np.array(relay_frames, np.int32)
    for name, expected in golden.items():
        found = re.fullmatch(r"frontier_step(\d+)_radius(\d+)", name)
        if not found:
            continue
        step, radius = int(found[1]), int(found[2])
        probability = np.zeros(len(expected))
        frames = frontier(recorded, len(expected), radius, max(0, min(step // 2, step - 1)))
        probability[frames] = 1 / max(len(frames), 1)
        assert kit.difference(probability, expected) <= TOLERANCE, name

    meaning = next(o["meaning"] for o in case["outputs"] if o["name"] == "sampling_frequency")
    numbers = re.search(r"over (\d+) draws with propagating_step (\d+)", meaning)
    assert numbers
    theirs, step = int(numbers[1]), int(numbers[2])
    length, ours = golden["sampling_frequency"].shape[1], 20_000
    counts = np.zeros((2, length))
    for draws in np.random.default_rng(1).random((ours, 4)):
        choice = choose(draws, recorded, length, step)
        counts[0, choice.unlabeled] += 1
        counts[1, choice.relay] += 1
        assert choice.relay != choice.unlabeled or len(recorded) == 1
        assert (choice.mode == PROPAGATING) == (choice.unlabeled not in recorded)
    expected = golden["sampling_frequency"]
    error = np.sqrt(expected * (1 - expected) * (1 / ours + 1 / theirs))
    assert (np.abs(counts / ours - expected) <= 5 * error + 1e-9).all()


HANDLERS = {"spot_state": spot_state}
