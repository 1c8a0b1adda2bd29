"""One pass over one sequence: the first box, unreadable frames, wrong answers."""

from __future__ import annotations

import numpy as np
import pytest

from config.errors import UserError
from pysot_toolkit.testing.one_pass import Clip
from pysot_toolkit.trackers.images import BadImage
from tests.testing.alone import run_alone
from tests.testing.fakes import Still


def clip(benchmark, name="Middle") -> Clip:
    frames = sorted(str(path) for path in (benchmark / name / "img").iterdir())
    return Clip(name, frames, np.array([10.0, 12.0, 20.0, 16.0]))


def test_the_first_box_is_the_given_one(benchmark):
    result = run_alone(Still(), clip(benchmark))
    assert result.bboxes.shape == (9, 4) and result.bboxes.dtype == np.float64
    assert result.bboxes[0].tolist() == [10, 12, 20, 16] and result.bboxes[8].tolist() == [18, 12, 20, 16]
    assert result.scores.tolist() == [1.0] + [0.5] * 8
    assert (result.seconds > 0).all() and result.unreadable == []


def test_an_unreadable_frame_keeps_the_last_box_and_is_named(benchmark):
    sequence = clip(benchmark)
    broken = sequence.frames[4]
    with open(broken, "r+b") as file:
        file.truncate(300)
    passed: list[int] = []
    result = run_alone(Still(), sequence, passed.append)
    assert result.bboxes[:, 0].tolist() == [10, 11, 12, 13, 13, 14, 15, 16, 17] and passed == list(
        range(1, 10)
    )
    assert result.scores[4] == 0 and len(result.unreadable) == 1 and broken in result.unreadable[0]


def test_without_a_first_frame_there_is_no_result(benchmark):
    sequence = clip(benchmark)
    open(sequence.frames[0], "wb").close()
    with pytest.raises(BadImage, match=r"0001\.jpg"):
        run_alone(Still(), sequence)


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, np.nan, 4], [1, 2, 0, 4], [1, 2, -3, 4]])
def test_a_wrong_first_box_is_the_users_error(benchmark, box):
    with pytest.raises(UserError, match="Middle"):
        run_alone(Still(), clip(benchmark)._replace(init_bbox=np.array(box, float)))


def test_a_tracker_that_answers_nonsense_fails_the_sequence(benchmark):
    class Lost(Still):
        def track(self, image):
            return np.array([1.0, np.nan, 3.0, 4.0]), 0.1

    with pytest.raises(ValueError, match="frame 2"):
        run_alone(Lost(), clip(benchmark))
