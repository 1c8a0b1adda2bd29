"""Full disks and folders that cannot be written: one line, exit 2, and what was there before is still there."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path

import pytest

from tests.faults.conftest import Reference
from tests.faults.file_faults import FileFault
from tests.faults.place import Place, differences, ok
from tests.faults.verbs import Ended

pytestmark = pytest.mark.faults

ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)
SEEDS = [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 100))]


def refused(ended: Ended, words: str = "") -> None:
    """A verb that could not write says so in one line."""
    assert ended.code == 2, (ended.code, ended.err[-3000:])
    said = [line for line in ended.err.splitlines() if not line.startswith("warning: ")]
    assert len(said) == 1 and said[0].startswith("error: ") and words in said[0], ended.err


def fault_at(place: Place, whole: Reference, seed: int) -> tuple[FileFault, str]:
    """From some operation on, nothing can be written; what the message must say."""
    rng = random.Random(seed)
    number = rng.choice(ERRORS)
    return FileFault(str(place.var), rng.randint(1, whole.operations), number), errno_text(number)


def errno_text(number: int) -> str:
    return os.strerror(number)


def lost(before: dict[Path, bytes]) -> list[Path]:
    return [path for path, content in before.items() if not path.exists() or path.read_bytes() != content]


@pytest.mark.parametrize("seed", SEEDS)
def test_training(place, training, seed):
    fault, words = fault_at(place, training, seed)
    ended = place.train(fault).end()
    if ended.code:  # only removing was left to do
        refused(ended, words)
    ok(place.train().end())
    assert differences(training.left, place.trained()) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_testing(place, testing, checkpoint, seed):
    fault, words = fault_at(place, testing, seed)
    ended = place.test(checkpoint, fault).end()
    kept = place.tested()
    if kept != testing.left:
        assert "Traceback" not in ended.err and words in ended.err and ended.code == 2, (
            ended.code,
            ended.err,
        )
    assert all(testing.left[name] == content for name, content in kept.items())
    ok(place.test(checkpoint).end())
    assert differences(testing.left, place.tested()) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_evaluation(place, undisturbed, evaluation, seed):
    shutil.copytree(undisturbed.results, place.results)
    fault, words = fault_at(place, evaluation, seed)
    ended = place.evaluate(fault).end()
    if ended.code:
        refused(ended, words)
    else:  # only making the folder's entry durable was left to do
        assert differences(evaluation.left, place.evaluated()) == []
    assert all(evaluation.left[name] == content for name, content in place.evaluated().items())
    ok(place.evaluate().end())
    assert differences(evaluation.left, place.evaluated()) == []
