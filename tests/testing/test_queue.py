"""The queue in one process: order, resumption, failures, Ctrl-C."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from config.environment import load_settings
from config.errors import UserError
from pysot_toolkit.datasets.benchmarks import open_benchmark
from pysot_toolkit.testing.one_pass import Clip
from pysot_toolkit.testing.queue import Candidate, missing_tasks, report, run_queue
from tests.testing.fakes import Still


@pytest.fixture
def place(local, benchmark, tmp_path):
    """The var folder, and two checkpoints."""
    var = local(OTB100=benchmark)
    for name in ("a", "b"):
        (tmp_path / f"{name}.tar").write_text(name)
    return var


class Bench:
    """Runs the queue over the small benchmark and counts what the trackers were asked."""

    def __init__(self, tmp_path: Path, build=None) -> None:
        self.tmp_path, self.build = tmp_path, build
        self.started: list[tuple[str, int]] = []

    def run(self, *names: str, dataset="OTB100"):
        settings = load_settings(["device", "cpu"])

        def build(arch, checkpoint, settings, device):
            tracker = self.build(checkpoint) if self.build else Still()
            initialize = tracker.initialize

            def count(image, bbox):
                self.started.append(checkpoint.stem)
                initialize(image, bbox)

            tracker.initialize = count
            return tracker

        return run_queue(
            lambda: [Candidate(name, self.tmp_path / f"{name}.tar") for name in names],
            lambda: open_benchmark(dataset, settings),
            dataset,
            "still",
            settings,
            build=build,
        )


def test_longest_first_and_each_checkpoint_once(tmp_path):
    clips = [Clip(f"s{n}", ["x"] * n, np.ones(4)) for n in (3, 9, 5)]
    candidates = [Candidate("a", Path("a")), Candidate("b", Path("b"))]
    tasks, notices, present = missing_tasks(candidates, clips, tmp_path, "OTB100")
    assert [(t.candidate.tracker, len(t.sequence.frames)) for t in tasks] == [
        *(("a", n) for n in (9, 5, 3)),
        *(("b", n) for n in (9, 5, 3)),
    ]
    assert notices == [] and present == 0


def test_what_is_there_is_not_done_again_and_what_is_broken_is(place, tmp_path, capsys):
    bench = Bench(tmp_path)
    outcome = bench.run("a", "b")
    assert (outcome.finished, outcome.present, outcome.exit_code) == (6, 0, 0)
    files = {path: path.read_bytes() for path in sorted(place.rglob("*.txt"))}
    assert len(files) == 6 and not list(place.rglob("*.tmp"))
    broken = place / "results" / "OTB100" / "b" / "Long.txt"
    broken.write_bytes(files[broken][:-20])
    (place / "results" / "OTB100" / "a" / "Short.txt").unlink()
    bench.started.clear()
    outcome = bench.run("a", "b")
    assert sorted(bench.started) == ["a", "b"] and (outcome.finished, outcome.present) == (2, 4)
    assert {path: path.read_bytes() for path in files} == files
    err = capsys.readouterr().err
    assert str(broken) in err and "Short" not in err and len(err.splitlines()) == 1


def test_a_failing_sequence_and_checkpoint_lose_nothing_else(place, benchmark, tmp_path, capsys):
    (benchmark / "Middle" / "groundtruth_rect.txt").write_text("10,12,20,16\n" * 5)  # 9 images
    (benchmark / "Short" / "img" / "0001.jpg").write_bytes(b"no image")

    def build(checkpoint):
        if checkpoint.stem == "b":
            raise UserError("b.tar: is truncated")
        return Still()

    outcome = Bench(tmp_path, build).run("a", "b")
    assert outcome.finished == 1 and outcome.exit_code == 2
    assert {(failure.tracker, failure.what) for failure in outcome.failures} == {
        ("OTB100", "Middle"),
        ("a", "Short"),
        ("b", "all its missing sequences"),
    }
    assert not (place / "results" / "OTB100" / "b").exists()
    assert report(outcome, "OTB100", load_settings()) == 2
    err = capsys.readouterr().err
    assert "Middle" in err and "0001.jpg" in err and "b.tar" in err and "3 failed" in err


def test_an_inner_error_of_one_sequence_gives_exit_code_1(place, tmp_path):
    class Weak(Still):
        def initialize(self, image, bbox):
            super().initialize(image, bbox)
            self.left = 5

        def track(self, image):
            self.left -= 1
            if not self.left:
                raise RuntimeError("out of memory")
            return super().track(image)

    outcome = Bench(tmp_path, lambda _: Weak()).run("a")
    assert outcome.finished == 1 and outcome.exit_code == 1
    assert {(f.what, f.reason) for f in outcome.failures} == {
        ("Long", "RuntimeError: out of memory"),
        ("Middle", "RuntimeError: out of memory"),
    }


def test_one_mistake_is_one_error(place, tmp_path):
    def build(checkpoint):
        raise UserError("a.tar: is truncated; copy it again")

    outcome = Bench(tmp_path, build).run("a")
    with pytest.raises(UserError, match="truncated"):
        report(outcome, "OTB100", load_settings())
    assert not place.exists()


def test_ctrl_c_keeps_what_is_finished(place, tmp_path):
    class Interrupted(Still):
        def initialize(self, image, bbox):
            super().initialize(image, bbox)
            seen.append(1)

        def track(self, image):
            if len(seen) == 2:
                raise KeyboardInterrupt
            return super().track(image)

    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        Bench(tmp_path, lambda _: Interrupted()).run("a")
    folder = place / "results" / "OTB100" / "a"
    assert sorted(path.name for path in folder.iterdir()) == ["Long.txt", "checkpoint.json"]
    outcome = Bench(tmp_path).run("a")
    assert (outcome.finished, outcome.present) == (2, 1)


def test_other_weights_under_the_same_name_are_refused(place, tmp_path):
    Bench(tmp_path).run("a")
    (tmp_path / "a.tar").write_text("trained again")
    with pytest.raises(UserError, match="another checkpoint"):
        Bench(tmp_path).run("a")


def test_unreadable_frames_are_counted_and_named(place, benchmark, tmp_path, capsys):
    bad = benchmark / "Long" / "img" / "0007.jpg"
    bad.write_bytes(bad.read_bytes()[:200])
    outcome = Bench(tmp_path).run("a")
    assert outcome.finished == 3 and report(outcome, "OTB100", load_settings()) == 0
    out, err = capsys.readouterr()
    assert str(bad) in err and "1 unreadable frames" in out


def test_a_full_disk_leaves_no_half_result(place, tmp_path, monkeypatch):
    import os

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    outcome = Bench(tmp_path).run("a")
    assert outcome.exit_code == 2 and "No space left" in outcome.failures[0].reason
    assert [path for path in place.rglob("*") if path.is_file()] == []
