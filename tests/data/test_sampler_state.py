"""The sampler state against an obvious model, foreign files, and across processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import UserError
from ltr.data.rounding import round_decimal
from ltr.data.sampler_state import RECORD, MergeStats, SamplerState
from ltr.data.state_file import SLOT, StateFile
from tests.data.state_model import FRAMES, NAMES, SORTED, as_records, content, entries, merge_slowly, model_of

coordinate = st.one_of(
    st.integers(-30, 9000).map(lambda n: n / 20),  # ties of the rounding to 0.1 among them
    st.floats(-1e4, 1e4, allow_nan=False),
)
box = st.tuples(coordinate, coordinate, coordinate, coordinate)
confidence = st.sampled_from([0.85, 0.86, 0.9, 0.90004, 0.99, 1.0])
label = st.lists(st.integers(0, FRAMES - 1), max_size=4, unique=True)
labels = st.lists(label, min_size=len(NAMES), max_size=len(NAMES))
record = st.tuples(st.integers(0, len(NAMES) - 1), st.integers(0, FRAMES - 1), box, confidence)
epochs = st.lists(st.lists(record, max_size=40), max_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("state")


@settings(max_examples=120, deadline=None)
@given(labels, epochs, st.randoms(use_true_random=False))
def test_merging_does_what_one_by_one_does(folder, frames, collected, random):
    state, model = SamplerState.create(folder / "m.bin", entries(frames)), model_of(frames)
    reader = SamplerState.open(folder / "m.bin")
    assert state.sequences == SORTED and content(state) == model
    for epoch in collected:
        records = as_records(epoch)
        random.shuffle(order := list(range(len(records))))
        stats = state.merge(records[order])  # any order in memory: the field decides
        assert stats.inserted == merge_slowly(model, frames, epoch)
        assert sum(stats) == len(epoch)
    reader.refresh()
    assert content(reader) == model
    assert state.recorded_frames() == len(model)
    assert state.recorded_frames() == len(model)
    assert state.generation == len(collected)


@settings(max_examples=60, deadline=None)
@given(labels, epochs)
def test_epochs_merged_at_once_or_one_after_the_other(folder, frames, collected):
    stepwise, at_once = (SamplerState.create(folder / name, entries(frames)) for name in ("s.bin", "o.bin"))
    for epoch in collected:
        stepwise.merge(as_records(epoch))
    parts = [as_records(epoch, 1000 * i) for i, epoch in enumerate(collected)]
    at_once.merge(np.concatenate([np.zeros(0, RECORD), *reversed(parts)]))
    assert content(stepwise) == content(at_once)


@settings(max_examples=60, deadline=None)
@given(labels, epochs)
def test_json_there_and_back(folder, frames, collected):
    state = SamplerState.create(folder / "j.bin", entries(frames))
    for epoch in collected:
        state.merge(as_records(epoch))
    state.write_json(folder / "first.json")
    again = SamplerState.from_json(folder / "first.json", folder / "k.bin")
    assert content(again) == content(state)
    assert again.fingerprint() == state.fingerprint()
    again.write_json(folder / "second.json")
    first = (folder / "first.json").read_bytes()
    assert (folder / "second.json").read_bytes() == first

    published = json.loads(first)
    (folder / "indented.json").write_text(json.dumps(published, indent=4, sort_keys=True))
    again = SamplerState.from_json(folder / "indented.json", folder / "k.bin")
    again.write_json(folder / "third.json")
    assert (folder / "third.json").read_bytes() == first
    assert list(published) == sorted(published)
    path = published["LaSOT_b-2"][1]
    row = SORTED.index(("LaSOT_b-2", 1))
    assert path["key_frame_ids"] == sorted(frames[1])
    assert path["relay_frame_ids"] == state.recorded(row)[0].tolist()
    assert path["bboxes"] == state.recorded(row)[1].tolist()


def test_many_epochs_of_growth(tmp_path):
    """Rows outgrow their slots again and again, at different times."""
    frames = [[0], [0], [0], [0], [0]]
    state, model = SamplerState.create(tmp_path / "g.bin", entries(frames)), model_of(frames)
    reader = SamplerState.open(tmp_path / "g.bin")
    rng = np.random.default_rng(0)
    for epoch in range(60):
        rows = rng.integers(0, 1 + epoch % len(NAMES), 50)
        collected = [(int(r), int(rng.integers(2000)), (1.0, 2.0, 3.0, float(epoch)), 0.9) for r in rows]
        state.merge(as_records(collected))
        merge_slowly(model, frames, collected)
        reader.refresh()
        assert content(reader) == model
    room = StateFile(tmp_path / "g.bin").header["used"][0]
    assert room <= 4 * len(model) + 16 * len(NAMES)


@settings(max_examples=300, deadline=None)
@given(st.one_of(coordinate, st.integers(-100000, 100000).map(lambda n: n / 100)), st.sampled_from([1, 4]))
def test_rounding_is_pythons(value, digits):
    assert round_decimal(np.array([value]), digits)[0] == round(value, digits)


def test_records_that_do_not_fit_change_nothing(tmp_path):
    state = SamplerState.create(tmp_path / "s.bin", entries([[1]] * 5))
    before = content(state)
    good = (0, 5, (1.0, 2.0, 3.0, 4.0), 0.9)
    for bad in (
        (len(NAMES), 5, good[2], 0.9),
        (-1, 5, good[2], 0.9),
        (0, -1, good[2], 0.9),
        (0, 6, (1.0, np.nan, 3.0, 4.0), 0.9),
        (0, 6, good[2], np.nan),
        (0, 6, good[2], 1.5),
    ):
        with pytest.raises(ValueError, match="does not fit"):
            state.merge(as_records([good, bad]))
    assert content(state) == before
    with pytest.raises(ValueError, match="opened for reading"):
        SamplerState.open(tmp_path / "s.bin").merge(as_records([good]))


@pytest.mark.parametrize(
    "entry",
    [
        ("a", 0, [1, 1], [[0, 0, 1, 1]] * 2),
        ("a", 0, [-1], [[0, 0, 1, 1]]),
        ("a", 0, [1], [[0, 0, np.nan, 1]]),
        ("a", 0, [1, 2], [[0, 0, 1, 1]]),
    ],
)
def test_bad_labels_are_one_clear_line(tmp_path, entry):
    with pytest.raises(UserError, match="a: trajectory 0"):
        SamplerState.create(tmp_path / "s.bin", [entry])
    assert not list(tmp_path.iterdir())


def test_a_state_without_rows(tmp_path):
    state = SamplerState.create(tmp_path / "s.bin", [])
    assert state.merge(np.zeros(0, RECORD)) == MergeStats(0, 0, 0)
    state.write_json(tmp_path / "s.json")
    assert len(SamplerState.from_json(tmp_path / "s.json", tmp_path / "t.bin")) == 0


def path_of(**changes):
    path = {
        "key_frame_ids": [2],
        "relay_frame_ids": [1, 2],
        "bboxes": [[1, 2, 3, 4]] * 2,
        "confidence": [0.9, 1.0],
    }
    return path | changes


def test_a_label_keeps_its_box_whatever_its_confidence(tmp_path):
    """Confidence 1 protects labels by itself; a file may hold less."""
    (tmp_path / "low.json").write_text(json.dumps({"s": [path_of(confidence=[0.5, 0.5])]}))
    state = SamplerState.from_json(tmp_path / "low.json", tmp_path / "s.bin")
    records = as_records([(0, f, (9.0, 9.0, 9.0, 9.0), 0.99) for f in (1, 2)])
    assert state.merge(records) == MergeStats(0, 1, 1)
    frames, boxes, confidences = state.recorded(0)
    assert frames.tolist() == [1, 2]
    assert boxes.tolist() == [[9, 9, 9, 9], [1, 2, 3, 4]]
    assert confidences.tolist() == [np.float32(0.99), 0.5]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2]",
        '{"s": [',
        '{"s": {}}',
        '{"s": [[]]}',
        '{"\\ud800": []}',
        '{\n"s":[{"bboxes":[[1',
        '{\n"s":[],\n"s":[]\n}\n',
        json.dumps({"s": [path_of(relay_frame_ids=[2, 1])]}),
        json.dumps({"s": [path_of(relay_frame_ids=[1.0, 2.5])]}),
        json.dumps({"s": [path_of(relay_frame_ids=[-1, 2])]}),
        json.dumps({"s": [path_of(relay_frame_ids=[1, 2**40], key_frame_ids=[1])]}),
        json.dumps({"s": [path_of(key_frame_ids=[3])]}),
        json.dumps({"s": [path_of(key_frame_ids=None)]}),
        json.dumps({"s": [path_of(bboxes=[[1, 2, 3, 4]])]}),
        json.dumps({"s": [path_of(bboxes=[[1, 2, 3, 4], [1, 2, 3]])]}),
        json.dumps({"s": [path_of(bboxes=[[1, 2, 3, float("nan")]] * 2)]}),
        json.dumps({"s": [path_of(bboxes=[["1", "2", "3", "4"]] * 2)]}),
        json.dumps({"s": [path_of(confidence=[0.9])]}),
        json.dumps({"s": [path_of(confidence=[0.9, 7])]}),
        json.dumps({"LaSOT_a": {"bboxes": [], "confidence": [], "path_ids": [], "relay_frame_ids": []}}),
    ],
)
def test_foreign_json_is_one_clear_line(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(UserError, match="bad.json"):
        SamplerState.from_json(path, tmp_path / "s.bin")
    assert not (tmp_path / "s.bin").exists()
    with pytest.raises(UserError, match="missing.json"):
        SamplerState.from_json(tmp_path / "missing.json", tmp_path / "s.bin")


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_damaged_json_loads_whole_or_not_at_all(folder, data):
    state = SamplerState.create(folder / "d.bin", entries([[1, 5], [2], [3], [], [9]]))
    state.write_json(folder / "d.json")
    text = (folder / "d.json").read_bytes()
    cut = data.draw(st.integers(0, len(text) - 2))  # without its last line break it is whole
    (folder / "d.json").write_bytes(text[:cut])
    with pytest.raises(UserError):
        SamplerState.from_json(folder / "d.json", folder / "e.bin")


def test_labels_have_a_fingerprint(tmp_path):
    def of(path, value):
        return SamplerState.create(tmp_path / path, value).fingerprint()

    base = entries([[1, 5], [2], [3], [4], [9]])
    first = of("a.bin", base)
    assert of("b.bin", base[::-1]) == first
    assert of("c.bin", base[1:]) != first
    assert of("d.bin", [(*base[0][:2], [1, 6], base[0][3]), *base[1:]]) != first
    assert of("e.bin", [(*base[0][:3], [(0, 0, 1, 1)] * 2), *base[1:]]) != first


# Workers


def _work(state, asked, answers):
    for _ in iter(asked.get, None):
        state.refresh()
        answers.put((os.getpid(), state.sequences, content(state)))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_sees_merges_without_being_sent_them(tmp_path, method):
    frames = [[1, 30]] * 5
    state, model = SamplerState.create(tmp_path / "s.bin", entries(frames)), model_of(frames)
    assert len(pickle.dumps(state)) < 300
    context = multiprocessing.get_context(method)
    asked, answers = context.Queue(), context.Queue()
    worker = context.Process(target=_work, args=(SamplerState.open(tmp_path / "s.bin"), asked, answers))
    worker.start()
    try:
        for epoch in range(3):
            collected = [(r, f, (f, 2.0, 3.0, 4.0), 0.9) for r in range(5) for f in range(epoch, 40, 3)]
            state.merge(as_records(collected))
            merge_slowly(model, frames, collected)
            asked.put(epoch)
            pid, sequences, found = answers.get(timeout=60)
            assert pid != os.getpid() and sequences == SORTED
            assert found == model
    finally:
        asked.put(None)
        worker.join(60)


def test_what_is_read_is_a_view_that_cannot_be_written(tmp_path):
    SamplerState.create(tmp_path / "s.bin", entries([[1, 30]] * 5))
    reader = SamplerState.open(tmp_path / "s.bin")
    frames, boxes, confidences = reader.recorded(0)
    for array in (frames, boxes, confidences, reader.key_frames(0), reader.key_boxes(0)):
        assert array.base is not None
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert SLOT.itemsize == 40
