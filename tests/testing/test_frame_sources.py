"""Frames ahead of the tracker: none lost of a file, none old of a camera."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from pysot_toolkit.testing import frame_sources
from pysot_toolkit.testing.frame_sources import Prefetch, Source


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def counted(made: list[int], total: int, after=lambda number: None):
    for number in range(total):
        made.append(number)
        yield np.full((2, 2, 3), number % 256, np.uint8)
        after(number)


def test_frames_of_a_file_are_decoded_ahead_and_none_is_lost():
    made: list[int] = []
    source = Source("video", "clip", 25.0, 0, counted(made, 50))
    with Prefetch(source) as frames:
        for expected in range(20):
            wait_for(lambda enough=expected + 4: len(made) >= enough)  # while nobody asks for them
            assert len(made) <= expected + frame_sources._AHEAD + 1
            frame = frames.take(lambda: False)
            assert frame.number == expected and frame.image[0, 0, 0] == expected
        assert frames.take(lambda: True) is None
    assert len(made) < 30 and not frames._thread.is_alive()  # left early: decoding ends


def test_of_a_camera_the_newest_frame_is_tracked():
    made: list[int] = []
    go = threading.Event()
    source = Source(
        "camera", "camera 0", 25.0, 0, counted(made, 40, lambda n: go.wait() if n == 30 else None)
    )
    with Prefetch(source) as frames:
        wait_for(lambda: made[-1:] == [30])
        wait_for(lambda: frames._ready and frames._ready[-1].number == 30)
        assert frames.take(lambda: False).number == 30
        assert frames.take(lambda: True) is None  # nothing is there, and it is to stop
        go.set()
        last = 30
        while (frame := frames.take(lambda: False)) is not None:
            assert frame.number > last
            last = frame.number
        assert last == 39


def test_an_error_of_the_decoder_is_not_taken_for_the_end(monkeypatch):
    def broken():
        yield np.zeros((2, 2, 3), np.uint8)
        raise MemoryError("no room for a frame")

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with Prefetch(Source("video", "clip", 25.0, 0, broken())) as frames:
        assert frames.take(lambda: False).number == 0
        with pytest.raises(MemoryError):
            frames.take(lambda: False)
