"""The server of verbs, and what runs that nothing disturbed leave behind."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.file_faults import FileFault
from tests.faults.place import Place, ok
from tests.faults.verbs import Server


@pytest.fixture(scope="session")
def server() -> Server:
    return Server()


@dataclass(frozen=True)
class Reference:
    """A verb that nothing disturbed: what it left, and how long it took."""

    left: dict
    operations: int  # on files
    seconds: float  # of CPU time


@pytest.fixture(scope="session")
def undisturbed(server, shared, tmp_path_factory) -> Place:
    """A place that was trained, tested and evaluated."""
    place = Place(tmp_path_factory.mktemp("undisturbed") / "place", shared("sequences"), server)
    ok(place.train().end())
    return place


def measure(place: Place, verb) -> tuple[int, float]:
    """Operations on files and CPU seconds of a verb that is called with a ``FileFault``."""
    count = place.folder / "operations"
    running = verb(FileFault(str(place.var), count=str(count)))
    seconds = running.watch()
    ok(running.end())
    return int(count.read_text()), seconds


@pytest.fixture(scope="session")
def training(undisturbed) -> Reference:
    """The training; the key frames are there already, as in every case."""
    shutil.rmtree(undisturbed.var)
    undisturbed.var.mkdir()
    operations, seconds = measure(undisturbed, undisturbed.train)
    return Reference(undisturbed.trained(), operations, seconds)


@pytest.fixture(scope="session")
def checkpoint(undisturbed, training) -> Path:
    """What is tested: the teacher of the last epoch."""
    [path] = undisturbed.checkpoints.glob("*_ep0003_t.pth.tar")
    return path


@pytest.fixture(scope="session")
def testing(undisturbed, checkpoint) -> Reference:
    operations, seconds = measure(undisturbed, lambda fault: undisturbed.test(checkpoint, fault))
    return Reference(undisturbed.tested(), operations, seconds)


@pytest.fixture(scope="session")
def evaluation(undisturbed, testing) -> Reference:
    operations, seconds = measure(undisturbed, undisturbed.evaluate)
    return Reference(undisturbed.evaluated(), operations, seconds)


@pytest.fixture
def place(undisturbed, server, shared, tmp_path) -> Place:
    """A folder of its own, with the key frames of the undisturbed one."""
    place = Place(tmp_path / "place", shared("sequences"), server)
    place.settings["paths.sampling_results"] = undisturbed.settings["paths.sampling_results"]
    return place
