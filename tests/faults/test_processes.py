"""Processes that a training depends on die: workers of its loader, and its own, together and one of many."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.faults.place import differences, ok
from tests.faults.verbs import Verb

pytestmark = pytest.mark.faults


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers(verb: Verb, count: int, besides: set[int]) -> list[int]:
    """The loader's workers, once there are so many other ones than ``besides``."""
    while verb.alive():
        found = [pid for pid in children(verb.pid) if pid not in besides]
        if len(found) == count:
            return found
        time.sleep(0.001)
    raise AssertionError(verb.end().err)


@pytest.mark.parametrize(
    "moment, which",
    [("device cpu", slice(0, 1)), ("epoch 1/3", slice(0, 2)), ("epoch 2/3", slice(1, 2))],
    ids=["at the beginning", "all", "within the sparse stage"],
)
def test_dead_workers_are_replaced(place, training, moment, which):
    place.settings |= {"data.workers": "2", "data.prefetch": "1"}
    verb = place.train()
    verb.says(moment)
    for pid in workers(verb, 2, set())[which]:
        os.kill(pid, signal.SIGKILL)
    ended = ok(verb.end())
    told = re.findall(
        r"^warning: a worker of the loader died \(process [\d, ]+\), killed.*; new ones go on$",
        ended.err,
        re.M,
    )
    assert len(told) == 1 and ended.err.count("\n") == 1
    assert differences(training.left, place.trained()) == []


def test_workers_that_die_again_and_again_stop_the_run(place, training):
    place.settings |= {"data.workers": "2", "data.prefetch": "1"}
    verb, dead = place.train(), set()
    verb.says("epoch 1/3")
    for _ in range(3):
        for pid in workers(verb, 2, dead):
            os.kill(pid, signal.SIGKILL)
            dead.add(pid)
    ended = verb.end()
    assert ended.code == 2 and "fewer data.workers or data.prefetch" in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err
    ok(place.train().end())
    assert differences(training.left, place.trained()) == []


def test_a_signal_to_the_whole_group_costs_nothing(place, training):
    """As a batch system sends it: to the workers too, which die of it."""
    place.settings |= {"data.workers": "2", "data.prefetch": "1"}
    verb = place.train()
    verb.says("epoch 1/3")
    os.killpg(verb.pid, signal.SIGTERM)
    ended = verb.end()
    assert ended.code == 143 and "the same command goes on there" in ended.out
    ok(place.train().end())
    assert differences(training.left, place.trained()) == []
