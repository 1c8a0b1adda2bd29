"""Processes that a training depends on die: workers of its loader, and its own, together and one of many."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.faults.place import Place, differences, ok
from tests.faults.verbs import ROOT, Verb, send

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
    send(signal.SIGKILL, *workers(verb, 2, set())[which])
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
        new = workers(verb, 2, dead)
        send(signal.SIGKILL, *new)
        dead.update(new)
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


# -- two processes that train together --------------------------------------------------------------


TOGETHER = {"train.batch_size_sup": "2", "train.batch_size_unsup": "4", "train.iterations": "22"}


def two_ranks(place: Place, stops: Mapping[int, tuple[int, int, int]] = MappingProxyType({})) -> list[Verb]:
    """Start, or go on with, a training of two processes, as ``torchrun`` does; ``stop_at`` of some of them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return [place.train(environment=common | rank, stop_at=stops.get(n)) for n, rank in enumerate(ranks)]


@pytest.fixture(scope="module")
def together(undisturbed, server, shared, tmp_path_factory) -> dict:
    """What two processes leave that nothing disturbed."""
    place = Place(tmp_path_factory.mktemp("together") / "place", shared("sequences"), server)
    place.settings |= TOGETHER | {"paths.sampling_results": undisturbed.settings["paths.sampling_results"]}
    said = [ok(rank.end()).out for rank in two_ranks(place)]
    for what in ("device cpu", "videos are in", "epoch"):  # one speaks; gloo may say that it is connected
        assert [what in out for out in said] == [True, False], said
    return place.trained()


@pytest.mark.parametrize(
    "told, epoch, step, saved",
    [
        ([0, 1], 3, 5, "epoch 2 and 21 steps of the next"),  # where they look at the device next
        ([0], 1, 0, "epoch 0 and 1 steps of the next"),
        ([1], 2, 5, "epoch 1 and 21 steps of the next"),
        ([1, 0], 2, 21, "epoch 2"),  # no look is left
    ],
)
def test_two_processes_agree_on_the_step_to_stop_at(place, together, told, epoch, step, saved):
    place.settings |= TOGETHER
    stop = (epoch, step, signal.SIGTERM)
    ended = [rank.end() for rank in two_ranks(place, {rank: stop for rank in told})]
    assert [one.code for one in ended] == [143 if rank in told else 0 for rank in range(2)], ended
    assert (f"saved after {saved}; the same" in ended[0].out) == (0 in told)
    first, second = two_ranks(place)
    assert f"going on after {saved} (" in ok(first.end()).out
    ok(second.end())
    assert differences(together, place.trained()) == []


@pytest.mark.parametrize("dead", [0, 1])
def test_a_dead_process_ends_the_others(place, together, dead):
    place.settings |= TOGETHER
    ranks = two_ranks(place, {dead: (2, 5, signal.SIGKILL)})
    ended = ranks[1 - dead].end(timeout=60)
    assert ended.code == 2 and "Traceback" not in ended.err, ended.err
    assert "another process of this training has ended" in ended.err.splitlines()[-1]
    for rank in two_ranks(place):
        ok(rank.end())
    assert differences(together, place.trained()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_under_torchrun(place, together, number):
    """A signal to the launcher is handed on; a killed process ends all."""
    place.settings |= TOGETHER
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *launch, str(ROOT / "scripts/run_training.py"), *place.training_words()]
    out = place.folder / "torchrun.out"
    for disturbed in (True, False):
        with out.open("w") as file:
            process = subprocess.Popen(
                command, env=os.environ | place.environment(), stdout=file, stderr=file
            )
        while disturbed and process.poll() is None and "epoch 2/3" not in out.read_text():
            time.sleep(0.01)
        if disturbed and number == signal.SIGKILL:
            send(number, children(process.pid)[1])
        elif disturbed:
            process.send_signal(number)
        code = process.wait(timeout=180)
        assert (code != 0) == disturbed, out.read_text()
        if disturbed and number != signal.SIGKILL:
            assert "saved after epoch 2 and" in out.read_text() and list(
                place.checkpoints.glob("*_ep0002_step*")
            )
    assert differences(together, place.trained()) == []
