"""A clock that is set back, files that may not grow, and folders that nobody can write."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest

from tests.faults.place import differences, ok
from tests.faults.test_no_space import refused

pytestmark = pytest.mark.faults

NEGATIVE = re.compile(r"(?<![\w.-])-\d")


def test_a_clock_set_back_changes_nothing(place, undisturbed, training, testing, evaluation, checkpoint):
    """By an hour at each look."""
    trained = ok(place.train(clock_jumps=3600).end())
    assert differences(training.left, place.trained()) == []
    tested = ok(place.test(place.checkpoints / checkpoint.name, clock_jumps=3600).end())
    evaluated = ok(place.evaluate(clock_jumps=3600).end())
    for ended in (trained, tested, evaluated):
        assert not NEGATIVE.search(ended.out) and ended.err == ""
    speeds = [json.loads(line) for line in (place.checkpoints / "speed.jsonl").read_text().splitlines()]
    assert len(speeds) == 3
    for speed in speeds:
        assert speed["samples_per_s"] > 0 and speed["seconds"] > 0 and 0 <= speed["waiting"] <= 1
    boxes = {name: content for name, content in testing.left.items() if name.endswith(".txt")}
    assert boxes.items() <= place.tested().items()
    assert differences(evaluation.left, place.evaluated()) == []


def test_a_training_that_was_saved_in_the_future_goes_on(place, training):
    place.train(stop_at=(2, 1, 15)).end()
    for path in place.var.rglob("*"):
        os.utime(path, (2**31, 2**31))
    ok(place.train().end())
    assert differences(training.left, place.trained()) == []


@pytest.mark.parametrize("size", [4000, 40000, 100000])
def test_files_that_may_not_grow(place, training, size):
    """The limit that ``ulimit -f`` sets, smaller than a sampler state, a picture, a checkpoint."""
    ended = place.train(file_size=size).end()
    refused(ended, "File too large")
    ok(place.train().end())
    assert differences(training.left, place.trained()) == []


@pytest.mark.parametrize("verb", ["training", "testing", "evaluation"])
def test_a_folder_that_nobody_can_write(place, undisturbed, evaluation, checkpoint, verb):
    """Not even root: the kernel makes no folders in /sys."""
    start = {
        "training": lambda: place.train(),
        "testing": lambda: place.test(checkpoint),
        "evaluation": lambda: place.evaluate(),
    }[verb]
    shutil.copytree(undisturbed.results, place.results)
    local = place.folder / "local.py"
    text = local.read_text()
    if verb == "evaluation":
        place.reports.symlink_to("/sys/kernel")
    else:
        local.write_text(text.replace(str(place.var), "/sys/kernel"))
    ended = start().end()
    if verb == "testing":  # each sequence is tried, and one line says what became of it
        assert ended.code == 2 and ended.err.count("cannot be written") == 3 and ended.err.count("\n") == 4
    else:
        refused(ended, "cannot be written")
