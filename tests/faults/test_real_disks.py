"""File systems that are really full or read-only, where the kernel lets these tests mount one (as root)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.place import Place, differences, ok
from tests.faults.test_no_space import lost, refused

pytestmark = pytest.mark.faults

PLENTY = 1 << 28


class Disk:
    """A small file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True)
        if mounted.returncode:
            pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")

    def allow(self, size: int = PLENTY, *options: str) -> None:
        """Change its size, bytes, and how it is mounted."""
        words = ",".join(["remount", f"size={size}", *(options or ["rw"])])
        subprocess.run(["mount", "-o", words, str(self.folder)], check=True)

    def used(self) -> int:
        """Bytes that are not free."""
        return shutil.disk_usage(self.folder).used

    def contents(self) -> dict[Path, bytes]:
        """What is on it."""
        return {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def disk(place: Place) -> Iterator[Disk]:
    """Under the whole of ``var/``."""
    shutil.rmtree(place.var)
    place.var.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount(8) here")
    disk = Disk(place.var)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk.folder)], check=True)


@pytest.fixture(scope="module")
def needed(undisturbed, training, testing, evaluation) -> int:
    """Bytes of all that the three verbs leave."""
    return sum(path.stat().st_size for path in undisturbed.var.rglob("*") if path.is_file())


@pytest.mark.parametrize("share", [0.02, 0.1, 0.25, 0.4, 0.6, 0.8])
def test_a_training_on_a_full_disk(place, disk, training, needed, share):
    disk.allow(max(int(share * needed), 1 << 14))
    ended = place.train().end()
    refused(ended, "No space left on device")
    disk.allow()
    ok(place.train().end())
    assert differences(training.left, place.trained()) == []


def test_a_test_and_an_evaluation_on_a_full_disk(place, disk, testing, evaluation, checkpoint):
    place.results.mkdir(parents=True)
    disk.allow(disk.used() + (1 << 13))
    ended = place.test(checkpoint).end()
    assert ended.code == 2 and "No space left on device" in ended.err and "Traceback" not in ended.err
    assert all(testing.left[name] == content for name, content in place.tested().items())
    disk.allow()
    ok(place.test(checkpoint).end())
    assert differences(testing.left, place.tested()) == []
    disk.allow(disk.used() + (1 << 12))
    refused(place.evaluate().end(), "No space left on device")
    disk.allow()
    ok(place.evaluate().end())
    assert differences(evaluation.left, place.evaluated()) == []


def test_a_disk_that_is_read_only(place, disk, training, testing, checkpoint):
    place.train(stop_at=(2, 1, 15)).end()
    before = disk.contents()
    disk.allow(PLENTY, "ro")
    refused(place.train().end(), "Read-only file system")
    for ended in (place.test(checkpoint).end(), place.evaluate().end()):
        assert ended.code == 2 and "Traceback" not in ended.err
    assert lost(before) == [] and disk.contents() == before
    disk.allow()
    ok(place.train().end())
    assert differences(training.left, place.trained()) == []
    ok(place.test(checkpoint).end())
    assert differences(testing.left, place.tested()) == []
