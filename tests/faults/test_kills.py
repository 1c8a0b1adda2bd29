"""SIGKILL at any moment: after a restart all ends as if nothing had happened.

A seed decides how often and when: at the n-th operation on a file, inside the writes of checkpoints, states and
journals too, or after some CPU time.
"""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable

import pytest

from tests.faults.conftest import Reference
from tests.faults.file_faults import FileFault
from tests.faults.place import Place, differences, ok
from tests.faults.verbs import Verb

pytestmark = pytest.mark.faults

SEEDS = [*range(50), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(50, 200))]


def kill(start: Callable[[FileFault | None], Verb], place: Place, whole: Reference, seed: int) -> int:
    """Start a verb and kill it, once to three times; how often it died of that."""
    rng, died = random.Random(seed), 0
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.6:
            verb = start(FileFault(str(place.var), rng.randint(1, whole.operations)))
        else:
            verb = start(None)
            verb.signal_after(rng.uniform(0, whole.seconds), signal.SIGKILL)
        code = verb.end().code
        assert code in (0, -signal.SIGKILL)
        died += code != 0
    return died


@pytest.mark.parametrize("seed", SEEDS)
def test_training(place, training, seed):
    kill(place.train, place, training, seed)
    ok(place.train().end())
    assert differences(training.left, place.trained()) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_testing(place, testing, checkpoint, seed):
    def start(fault: FileFault | None) -> Verb:
        return place.test(checkpoint, fault)

    kill(start, place, testing, seed)
    ok(start(None).end())
    assert differences(testing.left, place.tested()) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_evaluation(place, undisturbed, evaluation, seed):
    shutil.copytree(undisturbed.var / "results", place.var / "results")
    kill(place.evaluate, place, evaluation, seed)
    ok(place.evaluate().end())
    assert differences(evaluation.left, place.evaluated()) == []
