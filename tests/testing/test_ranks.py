"""The queue under a real ``mpiexec``: same results as one process, failures, mistakes, Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from config.environment import load_settings
from config.errors import UserError
from pysot_toolkit.testing.launch import find_mpiexec, under_mpi
from pysot_toolkit.testing.ranks import check_gpus, parse_gpus

FAKES = Path(__file__).with_name("fakes.py")


def command(ranks: int, *words: str) -> list[str]:
    return under_mpi([sys.executable, str(FAKES), *words, "--device", "cpu"], ranks)


def start(ranks: int, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(ranks, *words), capture_output=True, text=True, timeout=120)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "one.tar"
    path.write_text("weights")
    return str(path)


@pytest.fixture(autouse=True)
def need_mpiexec():
    if find_mpiexec() is None:
        pytest.fail("no mpiexec beside this Python: pip install mpich mpi4py")


def test_two_ranks_give_the_files_of_one(local, shared_otb, checkpoint, tmp_path):
    var = local(OTB100=shared_otb)
    alone = start(1, "still", "OTB100", checkpoint)
    assert alone.returncode == 0, alone.stderr
    one = {path.name: path.read_bytes() for path in (var / "results/OTB100/one").iterdir()}
    assert len(one) == 4  # three sequences and the note of their origin
    shutil.rmtree(var)
    both = start(2, "still", "OTB100", checkpoint)
    assert both.returncode == 0, both.stderr
    assert "3 sequences tracked" in both.stdout
    two = {path.name: path.read_bytes() for path in (var / "results/OTB100/one").iterdir()}
    assert {n: d for n, d in one.items() if n.endswith("txt")} == {
        n: d for n, d in two.items() if n.endswith("txt")
    }
    assert "\x1b" not in both.stdout + both.stderr  # a pipe gets no colours


@pytest.mark.slow
def test_a_busy_rank_holds_up_no_other(local, benchmark, checkpoint):
    """Rank 0 follows one long sequence while rank 1 takes all the others."""
    local(OTB100=benchmark)
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from pysot_toolkit.testing.ranks import TAKEN, join_ranks\n"
        "with join_ranks() as ranks:\n"
        "    start = time.monotonic()\n"
        "    if ranks.rank == 0: time.sleep(3)\n"
        "    numbers = [ranks.add(TAKEN, 1) for _ in range(4)]\n"
        "    spent = time.monotonic() - start\n"
        "    values = ranks.gather([(ranks.rank, numbers, spent)], lambda: None)\n"
        "if ranks.rank == 0: print(values)\n"
    )
    root = str(FAKES.parents[2])
    done = subprocess.run(
        under_mpi([sys.executable, "-c", code, root], 2), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    (_, late, _), (_, early, spent) = eval(done.stdout)
    assert early == [0, 1, 2, 3] and late == [4, 5, 6, 7] and spent < 1


def test_a_failing_rank_loses_only_its_sequence(local, shared_otb, checkpoint):
    var = local(OTB100=shared_otb)
    done = start(2, "fails", "OTB100", checkpoint)
    assert done.returncode == 1
    assert "DragonBaby: RuntimeError: out of memory" in done.stderr and "1 failed" in done.stderr
    assert "Traceback" not in done.stderr and "BAD TERMINATION" not in done.stderr + done.stdout
    names = sorted(path.name for path in (var / "results/OTB100/one").glob("*.txt"))
    assert names == ["Crossing.txt", "David.txt"]


@pytest.mark.slow
def test_a_mistake_in_the_code_ends_all_ranks(local, shared_otb, checkpoint):
    local(OTB100=shared_otb)
    begin = time.monotonic()
    done = start(2, "bug", "OTB100", checkpoint)
    assert done.returncode != 0 and time.monotonic() - begin < 60
    assert "TypeError: a mistake in the tracker" in done.stderr


def test_a_users_error_is_one_line_from_all_ranks(local, tmp_path, checkpoint):
    var = local(OTB100=tmp_path / "absent")
    done = start(2, "still", "OTB100", checkpoint)
    assert done.returncode == 2 and not var.exists()
    assert len(done.stderr.splitlines()) == 1 and str(tmp_path / "absent") in done.stderr


@pytest.mark.slow
def test_ctrl_c_ends_the_ranks_and_keeps_whole_files(local, shared_otb, checkpoint):
    var = local(OTB100=shared_otb)
    child = subprocess.Popen(
        command(2, "slow", "OTB100", checkpoint), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    folder = var / "results/OTB100/one"
    limit = time.monotonic() + 60
    while not (folder / "Crossing.txt").exists() and time.monotonic() < limit:
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=30)
    assert child.returncode not in (0, None)
    assert (folder / "Crossing.txt").read_text().count("\n") == 120 and not (folder / "David.txt").exists()
    assert not os.path.exists(f"/proc/{child.pid}")


def test_gpu_lists():
    assert parse_gpus("0,2, 1") == [0, 2, 1] and parse_gpus("") == []
    for text in ("0,,1", "a", "0,0", "-1", "²"):
        with pytest.raises(UserError, match="--gpus"):
            parse_gpus(text)
    check_gpus([0, 7], load_settings(["device", "cpu"]))  # the same command works without GPUs
    with pytest.raises(UserError, match="contradict"):
        check_gpus([0, 1], load_settings(["device", "cuda:2"]))
