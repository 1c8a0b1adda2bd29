"""Which frames are drawn: against definitions, counts and probabilities."""

from __future__ import annotations

import os
from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from config.errors import UserError
from ltr.data.frame_choice import PROPAGATING, REVIEWING, choose, coarse_box, frontier, neighbours
from ltr.data.sampler import AnnotatedPairs, LabelledPairs, SparseInstances
from ltr.data.sampler_state import RECORD, InterruptedMerge, SamplerState

recorded_frames = st.lists(st.integers(0, 60), min_size=1, max_size=20, unique=True).map(
    lambda frames: np.array(sorted(frames), np.int32)
)


class Annotation(NamedTuple):
    bbox: np.ndarray
    visible: np.ndarray


class FakeDataset:
    split = "train"

    def __init__(self, name, lengths):
        self.name = name
        self.keys = [f"{name}_{i}" for i in range(len(lengths))]
        self.lengths = lengths

    def __len__(self):
        return len(self.keys)

    def num_frames(self, i):
        return self.lengths[i]

    def frame_path(self, i, frame):
        assert 0 <= frame < self.lengths[i]
        return f"{self.keys[i]}/{frame}"

    def annotation(self, i):
        frame = np.arange(self.lengths[i])
        bbox = np.stack([frame, frame, 10.0 + frame * 0, 10.0 + frame * 0], 1).astype(float)
        bbox[frame % 5 == 1, 2] = 0
        bbox[frame % 5 == 2, 0] = np.nan
        return Annotation(bbox, frame % 5 != 3)


def where(frame_box):
    video, frame = frame_box.path.rsplit("/", 1)
    return video, int(frame)


def box_of(frame):
    return (float(frame), frame + 0.25, 20.0, 10.0)


def labelled(path, labels):
    """A state with labels {(key, trajectory): frames}."""
    return SamplerState.create(path, [(*name, f, [box_of(x) for x in f]) for name, f in labels.items()])


@pytest.fixture
def world(tmp_path):
    """Two data sets of very different size; a video without labels in each, one with two trajectories."""
    datasets = [FakeDataset("Big", [30] * 21), FakeDataset("Small", [30, 30])]
    labels = {(f"Big_{i}", 0): [3, 9, 20] for i in range(20)}
    labels[("Big_0", 1)] = [5]
    labels[("Small_1", 0)] = [0, 29]
    labels[("Small_0", 0)] = []
    return datasets, labelled(tmp_path / "state.bin", labels)


# Frames


@settings(max_examples=300, deadline=None)
@given(recorded_frames, st.integers(0, 15), st.integers(1, 6), st.integers(0, 5))
def test_frontier_is_its_definition(recorded, beyond, radius, inner):
    assume(inner < radius)
    length = int(recorded[-1]) + 1 + beyond
    distance = np.abs(np.arange(length)[:, None] - recorded).min(1)
    expected = np.flatnonzero((distance > inner) & (distance <= radius))
    assert np.array_equal(frontier(recorded, length, radius, inner), expected)


@settings(max_examples=300, deadline=None)
@given(recorded_frames, st.integers(0, 70), st.integers(0, 8))
def test_neighbours_and_coarse_box_are_their_definitions(recorded, frame, limit):
    near, far = (int(recorded[at]) for at in neighbours(recorded, frame))
    assert near == min(recorded.tolist(), key=lambda f: (abs(f - frame), -f))
    boxes = np.random.default_rng(0).uniform(0, 100, (len(recorded), 4))
    box = coarse_box(recorded, boxes, frame, limit)
    own = {int(f): b for f, b in zip(recorded, boxes)}
    if frame in own:
        assert np.array_equal(box, own[frame])
        assert far != near or len(recorded) == 1
    elif recorded[0] < frame < recorded[-1]:
        below = max(f for f in own if f < frame)
        above = min(f for f in own if f > frame)
        assert {near, far} == {below, above}
        if above - below <= limit:
            weight = (frame - below) / (above - below)
            assert np.allclose(box, own[below] * (1 - weight) + own[above] * weight)
        else:
            assert np.array_equal(box, own[near])
    else:
        assert near == far and np.array_equal(box, own[near])


@settings(max_examples=200, deadline=None)
@given(
    recorded_frames,
    st.integers(0, 15),
    st.integers(1, 6),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4),
)
def test_choices_keep_the_rules(recorded, beyond, step, draws):
    length = int(recorded[-1]) + 1 + beyond
    choice = choose(np.array(draws), recorded, length, step)
    known = set(recorded.tolist())
    assert choice.relay in known and 0 <= choice.unlabeled < length
    if choice.mode == PROPAGATING:
        assert choice.unlabeled not in known
        assert min(abs(choice.unlabeled - f) for f in known) <= step
    else:
        assert choice.unlabeled in known
        assert choice.relay != choice.unlabeled or len(known) == 1


def test_how_often_frames_are_chosen():
    recorded, length, count = np.array([0, 5, 6, 12, 29]), 30, 20_000
    draws = np.random.default_rng(2).random((count, 4))
    choices = [choose(d, recorded, length, 1) for d in draws]
    reviewing = [c for c in choices if c.mode == REVIEWING]
    assert abs(len(reviewing) / count - len(recorded) / length) < 0.015
    pairs = Counter((c.unlabeled, c.relay) for c in reviewing)
    assert len(pairs) == 20  # every pair of two different frames, equally often
    assert all(abs(n / len(reviewing) - 1 / 20) < 0.015 for n in pairs.values())
    border = Counter(c.unlabeled for c in choices if c.mode == PROPAGATING)
    assert sorted(border) == [1, 4, 7, 11, 13, 28]
    assert all(abs(n / border.total() - 1 / 6) < 0.02 for n in border.values())


# Samples


def test_labelled_pairs(world):
    datasets, state = world
    pairs = [LabelledPairs(datasets, state, seed=7).draw(1, i) for i in range(12_000)]
    videos = Counter(where(pair.template)[0] for pair in pairs)
    assert "Big_20" not in videos and "Small_0" not in videos and len(videos) == 21
    assert abs(videos["Small_1"] / len(pairs) - 0.5) < 0.02  # a data set counts as much as a larger one
    share = [videos[f"Big_{i}"] / len(pairs) for i in range(20)]
    assert all(abs(s - 0.5 / 20) < 0.01 for s in share)
    first = [pair for pair in pairs if where(pair.template)[0] == "Big_0"]
    second_trajectory = [pair for pair in first if where(pair.template)[1] == 5]
    assert 0.35 < len(second_trajectory) / len(first) < 0.65
    both = Counter(
        (where(p.template)[1], where(p.search)[1]) for p in pairs if where(p.template)[0] == "Small_1"
    )
    assert len(both) == 4 and all(abs(n / both.total() - 0.25) < 0.03 for n in both.values())
    for pair in pairs[:500]:
        for part in pair:
            assert tuple(part.bbox) == box_of(where(part)[1])
        assert where(pair.template)[0] == where(pair.search)[0]


def test_annotated_pairs_are_visible_and_near():
    datasets = [FakeDataset("Big", [30] * 5), FakeDataset("Small", [40])]
    for gap in (None, 6, 0):
        pairs = [AnnotatedPairs(datasets, 3, gap).draw(1, i) for i in range(3000)]
        frames = [(where(p.template)[1], where(p.search)[1]) for p in pairs]
        assert all(f % 5 in (0, 4) for pair in frames for f in pair)
        distance = max(abs(a - b) for a, b in frames)
        assert distance > 30 if gap is None else distance == (6 if gap else 0)
        share = sum(where(p.template)[0] == "Small_0" for p in pairs) / len(pairs)
        assert abs(share - 0.5) < 0.04
        assert all(p.search.bbox[0] == where(p.search)[1] for p in pairs)


def test_no_visible_frame_anywhere_ends_with_a_line():
    dataset = FakeDataset("Dark", [0, 0])
    with pytest.raises(UserError, match="Dark:train.*visible"):
        AnnotatedPairs([dataset], 0, None).draw(1, 0)


def test_sparse_instances(world):
    datasets, state = world
    known = {("Small_1", f) for f in (0, 29)} | {("Big_3", f) for f in (3, 9, 20)}
    records = [(i, state.row("Big_3"), f, (f, 1.0, 0.0, 0.0), 0.9) for i, f in enumerate((10, 13))]
    state.merge(np.array(records, RECORD))
    known |= {("Big_3", 10), ("Big_3", 13)}
    sampler = SparseInstances(datasets, state, 7, 1, 4)
    seen = Counter()
    for i in range(4000):
        instance = sampler.draw(1, i)
        video, frame = where(instance.unlabeled)
        key, _ = state.sequences[instance.row]
        assert frame == instance.frame and key == video == where(instance.key)[0] == where(instance.relay)[0]
        frames, boxes, _ = state.recorded(instance.row)
        keys = state.key_frames(instance.row).tolist()
        assert where(instance.key)[1] == min(keys, key=lambda k: (abs(k - frame), -k))
        assert where(instance.relay)[1] in frames
        assert (frame in frames) == (instance.mode == REVIEWING)
        expected = coarse_box(frames, boxes, frame, 4)
        assert tuple(instance.unlabeled.bbox[:2]) == tuple(expected[:2])
        assert all((part.bbox[2:] >= 1).all() for part in instance[:3])
        seen[video] += 1
    assert abs(seen["Small_1"] / 4000 - 0.5) < 0.03


def test_samples_depend_on_seed_epoch_index_and_attempt_alone(world):
    datasets, state = world
    sampler, again = (SparseInstances(datasets, state, 7, 1, 4) for _ in range(2))
    asked = [(epoch, index, attempt) for epoch in range(3) for index in range(40) for attempt in range(2)]
    one = [str(sampler.draw(*a)) for a in asked]
    assert [str(again.draw(*a)) for a in reversed(asked)] == one[::-1]
    assert len(set(one)) > 0.3 * len(one)
    other = SparseInstances(datasets, state, 8, 1, 4)
    assert [str(other.draw(*a)) for a in asked] != one
    for change in ((5, 0, 0), (0, 50, 0), (0, 0, 5)):
        elsewhere = [str(sampler.draw(*(np.array(a) + change).tolist())) for a in asked]
        same = sum(a == b for a, b in zip(one, elsewhere, strict=True))
        assert same < 0.2 * len(one)  # by chance
    pairs = LabelledPairs(datasets, state, 7)
    assert [str(pairs.draw(1, i)) for i in range(30)] != [str(pairs.draw(1, i, 1)) for i in range(30)]


def test_another_epoch_sees_what_was_merged(world):
    datasets, state = world
    reader = SparseInstances([datasets[1]], SamplerState.open(state._file.path), 7, 1, 4)
    before = {reader.draw(1, i).frame for i in range(200)}
    assert before == {0, 1, 28, 29}
    row = state.row("Small_1")
    state.merge(np.array([(i, row, i + 1, (1, 1, 5, 5), 0.9) for i in range(20)], RECORD))
    assert 21 in {reader.draw(2, i).frame for i in range(300)}
    state._file.begin()  # as a merge that never ends leaves it
    assert reader.draw(2, 0)
    with pytest.raises(InterruptedMerge):
        reader.draw(3, 0)


def test_labels_of_other_videos_are_refused(world, tmp_path):
    datasets, state = world
    short = FakeDataset("Big", [30] * 19 + [15, 30])
    for make in (lambda d: LabelledPairs(d, state, 0), lambda d: SparseInstances(d, state, 0, 1, 4)):
        with pytest.raises(UserError, match="frame 20 of Big_19"):
            make([short])
        with pytest.raises(UserError, match="Other:train: no video has key frames"):
            make([*datasets, FakeDataset("Other", [30])])
    with pytest.raises(UserError, match="propagating_step"):
        SparseInstances(datasets, state, 0, 0, 4)


def test_a_sampler_travels_to_another_process(world):
    import multiprocessing

    datasets, state = world
    sampler = SparseInstances(datasets, state, 7, 1, 4)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        there = pool.starmap(_draw, [(sampler, i) for i in range(20)])
    assert [text for _, text in there] == [str(sampler.draw(1, i)) for i in range(20)]
    assert all(pid != os.getpid() for pid, _ in there)


def _draw(sampler, index):
    return os.getpid(), str(sampler.draw(1, index))
