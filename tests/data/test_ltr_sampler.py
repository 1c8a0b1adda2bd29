"""Which train and test frames are drawn: against definitions, counts and probabilities."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import UserError
from ltr.data.sampler_ltr import TrackingSequences, causal_frames, interval_frames
from ltr.dataset.base import Annotation

RNG = np.random.default_rng


@given(
    st.sets(st.integers(0, 400), min_size=9, max_size=80),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 60),
    st.integers(0, 2**32),
)
def test_frames_keep_the_rules_of_their_mode(seen, train, test, gap, seed):
    visible = np.array(sorted(seen))
    first, then = causal_frames(visible, train, test, gap, RNG(seed))
    assert (len(first), len(then)) == (train, test) and set(first) | set(then) <= seen
    base = first[0]
    for side, frames in (
        (visible[visible > base] - base, then - base),
        (base - visible[visible < base], base - first[1:]),
    ):
        if len(frames):
            reach = gap if side.min() <= gap else gap + 5 * math.ceil((side.min() - gap) / 5)
            assert (frames >= 1).all() and (frames <= reach).all()
    first, then = interval_frames(visible, train, test, gap, RNG(seed))
    assert (len(first), len(then)) == (train, test) and set(first) | set(then) <= seen
    assert (np.abs(np.concatenate([first, then]) - first[0]) <= gap).all()


def test_every_frame_in_reach_is_drawn_equally_often():
    visible, rng = np.array([0, 3, 4, 9, 10, 30]), RNG(6)
    drawn = [causal_frames(visible, 2, 1, 6, rng) for _ in range(30_000)]
    bases = Counter(int(first[0]) for first, _ in drawn)
    assert sorted(bases) == [3, 4, 9, 10] and max(bases.values()) < 1.05 * min(bases.values())
    after = Counter(int(then[0]) for first, then in drawn if first[0] == 4)
    assert sorted(after) == [9, 10] and max(after.values()) < 1.1 * min(after.values())
    before = Counter(int(first[1]) for first, _ in drawn if first[0] == 10)
    assert sorted(before) == [4, 9]
    assert {int(then[0]) for first, then in drawn if first[0] == 10} == {30}  # only reached by a wider gap


class Videos:
    """A data set of videos of which every third frame does not show the target."""

    split = "train"

    def __init__(self, name, lengths):
        self.name, self.lengths = name, lengths

    def __len__(self):
        return len(self.lengths)

    def num_frames(self, i):
        return self.lengths[i]

    def frame_path(self, i, frame):
        assert 0 <= frame < self.lengths[i]
        return f"{self.name}/{i}/{frame}"

    def annotation(self, i):
        frame = np.arange(self.lengths[i])
        bbox = np.stack([frame, frame, 10.0 + 0 * frame, 5.0 + 0 * frame], 1)
        bbox[frame % 7 == 1, 2] = 0
        return Annotation(bbox, frame % 3 != 1)


def test_data_sets_are_drawn_by_weight_and_samples_only_by_their_index():
    datasets = [Videos("long", [50] * 3 + [19, 30]), Videos("images", [1, 1])]
    options = {"train_frames": 3, "test_frames": 2, "max_gap": 10}
    sequences = TrackingSequences(datasets, 5, weights=[3, 1], **options)
    drawn = {index: sequences.draw(2, index) for index in range(2000)}
    videos = Counter(frames.train[0].path.rpartition("/")[0] for frames in drawn.values())
    long = sum(count for video, count in videos.items() if video.startswith("long"))
    assert abs(long / 2000 - 0.75) < 0.03 and "long/3" not in videos and len(videos) == 6
    for frames in drawn.values():
        assert (len(frames.train), len(frames.test)) == (3, 2)
        paths = [frame.path for part in frames for frame in part]
        if paths[0].startswith("images"):
            assert len(set(paths)) == 1
            continue
        times = [int(path.rpartition("/")[2]) for path in paths]
        assert len({path.rpartition("/")[0] for path in paths}) == 1 and max(times[:3]) < min(times[3:])
        for time, frame in zip(times, [*frames.train, *frames.test]):
            assert time % 3 != 1 and frame.bbox.tolist() == [time, time, 10, 5]

    def paths(sequences, epoch, attempt=0):
        parts = (sequences.draw(epoch, index, attempt) for index in range(99, -1, -1))
        return [[frame.path for frame in (*part.train, *part.test)] for part in parts][::-1]

    first = paths(sequences, 2)
    assert first == [[frame.path for frame in (*drawn[i].train, *drawn[i].test)] for i in range(100)]
    assert first == paths(TrackingSequences(datasets, 5, weights=[3, 1], **options), 2)
    again = TrackingSequences(datasets, 6, weights=[3, 1], **options)
    for other in (paths(sequences, 3), paths(sequences, 2, attempt=1), paths(again, 2)):
        assert sum(a == b for a, b in zip(first, other)) < 25  # images are few


def test_what_cannot_be_drawn_is_named():
    with pytest.raises(UserError, match="long:train: 1000 videos drawn"):
        TrackingSequences([Videos("long", [19, 10])], 0, max_gap=5).draw(0, 0)
    for options, complaint in (
        ({"mode": "casual"}, "frame sampling 'casual'.*causal"),
        ({"weights": [1, 2]}, "of 1 data sets"),
        ({"weights": [0]}, "not all 0"),
        ({"max_gap": 0}, "must be at least 1"),
    ):
        with pytest.raises(UserError, match=complaint):
            TrackingSequences([Videos("long", [40])], 0, **{"max_gap": 5, **options})
