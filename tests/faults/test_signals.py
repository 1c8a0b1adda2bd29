"""Ctrl-C and SIGTERM: what is being done is finished and saved, the exit code says which it was, nothing is lost."""

from __future__ import annotations

import random
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.faults.place import Place, differences, ok
from tests.faults.verbs import Ended, Verb

pytestmark = pytest.mark.faults

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
SEEDS = [*range(10), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(10, 100))]


def interrupt(verb: Verb, begun: str, seconds: float, number: int) -> Ended:
    """Send a signal some CPU time after a verb has said ``begun``."""
    used = verb.says(begun)
    verb.signal_after(used + seconds, number)
    ended = verb.end()
    assert "Traceback" not in ended.err
    return ended


def stepwise(place: Place) -> list[Path]:
    return list(place.checkpoints.glob("*_step*"))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_training_finishes_its_step_and_saves(place, training, seed):
    rng, within = random.Random(seed), 0
    for _ in range(rng.randint(1, 4)):
        number = rng.choice(list(CODES))
        ended = interrupt(place.train(), "device cpu", rng.uniform(0, 0.8 * training.seconds), number)
        if ended.code == 0:
            break
        assert ended.code == CODES[number]
        told = re.search(
            r"saved after epoch (\d+)(?: and (\d+) steps of the next)?; the same command", ended.out
        )
        if told is None:  # it was still opening its files, or the last epoch was saved
            said = ended.out.split("device cpu")[1]
            assert "epoch 3/3 sparse" in said or not re.search(r"epoch \d/3", said)
            continue
        within += told[2] is not None
        assert {path.name.split("_step")[0][-4:] for path in stepwise(place)} <= {f"{int(told[1]):04d}"}
        assert bool(stepwise(place)) == (told[2] is not None)
    ok(place.train().end())
    assert differences(training.left, place.trained()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_training_is_interrupted_in_each_of_its_steps(place, training, number):
    """One step per start, if that is how often it is told to stop."""
    for epoch in range(3):
        for step in range(3):
            verb = place.train(stop_at=(epoch + 1, step, number))
            ended = verb.end()
            assert ended.code == CODES[number], ended.err
            assert f"saved after epoch {epoch} and {step + 1} steps of the next" in ended.out
            assert len(stepwise(place)) == (3 if epoch == 0 else 4)
    ok(place.train().end())
    assert differences(training.left, place.trained()) == []


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_test_keeps_its_finished_sequences(place, testing, checkpoint, number, share):
    def start() -> Verb:
        return place.test(checkpoint)

    ended = interrupt(start(), "", share * testing.seconds, number)
    assert ended.code in (CODES[number], 0)
    kept = place.tested()
    assert all(testing.left[name] == content for name, content in kept.items())
    again = ok(start().end())
    sequences = len([name for name in kept if name.endswith(".txt")])
    assert f"{3 - sequences} sequences tracked" in again.out
    assert differences(testing.left, place.tested()) == []


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_an_evaluation_leaves_whole_files(place, undisturbed, evaluation, number, share):
    shutil.copytree(undisturbed.results, place.results)
    ended = interrupt(place.evaluate(), "", share * evaluation.seconds, number)
    assert ended.code in (CODES[number], 0)
    assert all(evaluation.left[name] == content for name, content in place.evaluated().items())
    ok(place.evaluate().end())
    assert differences(evaluation.left, place.evaluated()) == []
