"""The queue under a real ``mpiexec``: same results as one process, failures, mistakes, Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from config.environment import load_settings
from config.errors import UserError
from pysot_toolkit.testing.handout import Handout, State
from pysot_toolkit.testing.launch import find_mpiexec, under_mpi
from pysot_toolkit.testing.ranks import check_gpus, parse_gpus
from tests.faults.verbs import send

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
    assert both.returncode == 0 and not both.stderr, both.stderr
    assert "3 sequences tracked" in both.stdout
    two = {path.name: path.read_bytes() for path in (var / "results/OTB100/one").iterdir()}
    assert {n: d for n, d in one.items() if n.endswith("txt")} == {
        n: d for n, d in two.items() if n.endswith("txt")
    }
    assert "\x1b" not in both.stdout + both.stderr  # a pipe gets no colours


@pytest.mark.faults
def test_a_queue_is_shared_by_processes_that_come_and_go(tmp_path):
    """Tasks go to whoever asks; those of a dead process come last, and are told apart."""
    folder = tmp_path / "run"
    first, second = Handout(folder, 0, 2), _Process(folder)
    first.agree(lambda: "plan")
    first.open(4)
    assert second.ask("agree") == "plan"
    assert first.take() == (0, 0) and second.ask("take") == [1, 0] and first.take() == (2, 0)
    first.settle(0, State.FINISHED)
    second.kill()
    assert first.take() == (3, 0) and first.take() == (1, 1) and first.take() is None
    first.settle(1, State.FAILED, {"why": "\n"})
    third = _Process(folder)
    assert third.ask("take") is None and third.ask("settled") == 2
    assert third.ask("speaks") is True
    third.kill()
    assert (first.finished(), first.notes()) == (1, [{"why": "\n"}])
    assert not first.speaks()
    fourth = _Process(folder)  # in the place of the third, which may not have come to its exit code
    assert fourth.ask("speaks") is True
    fourth.kill()
    Handout(tmp_path / "next", 0, 2)
    assert folder.exists()  # its run has not ended
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=f"{folder}: the processes cannot share their work here"):
        first.settle(2, State.FAILED, {"why": "no folder"})


class _Process:
    """The rank 1 of two, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        code = (
            "import json, sys\n"
            "from pathlib import Path\n"
            "from pysot_toolkit.testing.handout import Handout\n"
            "h = Handout(Path(sys.argv[1]), 1, 2)\n"
            "h.open(4)\n"
            "for line in sys.stdin:\n"
            "    name = line.strip()\n"
            "    value = h.agree(lambda: 'mine') if name == 'agree' else getattr(h, name)()\n"
            "    print(json.dumps(value), flush=True)\n"
        )
        self.child = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(FAKES.parents[2])},
        )

    def ask(self, method: str):
        self.child.stdin.write(method + "\n")
        self.child.stdin.flush()
        return json.loads(self.child.stdout.readline())

    def kill(self) -> None:
        self.child.kill()
        self.child.communicate()


def results(var: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (var / "results/OTB100/one").glob("*.txt")}


def start_slow(*words: str, ranks: int = 2) -> subprocess.Popen:
    return subprocess.Popen(
        command(ranks, "slow", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def await_tasks(var: Path, ranks: int, taken: int) -> None:
    """Until so many sequences of the one run in ``var`` are taken."""
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        queues = [path.read_bytes() for path in (var / "cache/testing").glob("*/queue")]
        if queues and queues[0][8 * ranks :: 2].count(1) >= taken:
            return
        time.sleep(0.02)


def working(rank: int, launcher: int) -> tuple[int, int]:
    """The process of a rank that ``mpiexec`` watches, and its child that does the work; 0 where there is none."""
    parents, ranks = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            variables = (path / "environ").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue
        if f"PMI_RANK={rank}".encode() in variables:
            ranks[int(path.name)] = parents[int(path.name)]
    for pid, parent in ranks.items():
        above = parent
        while above not in (0, launcher):
            above = parents.get(above, 0)
        if above and parent in ranks:
            return parent, pid
    return 0, 0


@pytest.mark.faults
@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_rank_costs_only_its_sequence(local, shared_otb, checkpoint, rank):
    var = local(OTB100=shared_otb)
    child = start_slow("OTB100", checkpoint)
    await_tasks(var, 2, taken=2)
    send(signal.SIGKILL, working(rank, child.pid)[1])
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    assert f"rank {rank} was killed (SIGKILL) and is started again" in err and "Traceback" not in err
    assert out.count("3 sequences tracked") == 1
    killed = results(var)
    shutil.rmtree(var)
    assert start(1, "still", "OTB100", checkpoint).returncode == 0
    assert killed == results(var) and len(killed) == 3


@pytest.mark.faults
def test_a_sequence_that_kills_its_ranks_is_named_and_the_others_are_done(local, shared_otb, checkpoint):
    var = local(OTB100=shared_otb)
    done = start(2, "kills", "OTB100", checkpoint)
    assert done.returncode == 1
    assert (
        "DragonBaby: 2 ranks were killed while they tracked it" in done.stderr and "1 failed" in done.stderr
    )
    assert sorted(results(var)) == ["Crossing.txt", "David.txt"]
    again = start(2, "kills", "OTB100", checkpoint)
    assert again.returncode == 1 and "0 sequences tracked, 2 were there" in again.stdout


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("seed", range(6))
def test_ranks_killed_at_random_moments_end_with_the_same_results(local, shared_otb, checkpoint, seed):
    rng = np.random.default_rng(seed)
    var = local(OTB100=shared_otb)
    child = start_slow("OTB100", checkpoint, ranks=3)
    if seed % 2:
        await_tasks(var, 3, taken=1)
    else:
        time.sleep(5)  # while they start
    for _ in range(3):
        time.sleep(rng.uniform(0, 2))
        workers = [pid for rank in range(3) if (pid := working(rank, child.pid)[1])]
        if workers:
            send(signal.SIGKILL, workers[rng.integers(len(workers))])
    out, err = child.communicate(timeout=180)
    assert (child.returncode == 0) == (len(results(var)) == 3), err
    if child.returncode:  # two ranks have died of the same sequence
        assert "were killed while they tracked it" in err
        done = start(2, "slow", "OTB100", checkpoint)
        assert done.returncode == 0, done.stderr
    else:
        assert out.count("sequences tracked") in (1, 2)  # again where its speaker was killed behind it
    found = results(var)
    shutil.rmtree(var)
    assert start(1, "still", "OTB100", checkpoint).returncode == 0
    assert found == results(var) and len(found) == 3


@pytest.mark.slow
@pytest.mark.faults
def test_where_mpiexec_ends_all_ranks_they_are_started_again(local, shared_otb, checkpoint):
    """Killed is the process that mpiexec itself watches: it ends the job."""
    var = local(OTB100=shared_otb)
    code = "import sys; from pysot_toolkit.testing.launch import run_ranks; sys.exit(run_ranks(sys.argv[1:]))"
    child = subprocess.Popen(
        [sys.executable, "-c", code, *command(2, "slow", "OTB100", checkpoint)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(FAKES.parents[2])},
    )
    await_tasks(var, 2, taken=2)
    watched, worker = working(1, child.pid)
    send(signal.SIGKILL, watched)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    assert "mpiexec ended all ranks" in err and out.count("sequences tracked") == 1
    assert len(results(var)) == 3 and not os.path.exists(f"/proc/{worker}")


@pytest.mark.faults
def test_processes_of_srun_share_the_queue_without_mpi(local, shared_otb, checkpoint):
    """As on two nodes: nothing but the folder is common, and one node is lost."""
    var = local(OTB100=shared_otb)
    alone = command(1, "slow", "OTB100", checkpoint)
    nodes = [
        subprocess.Popen(
            alone,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={
                **os.environ,
                **{"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"},
                "SLURM_PROCID": str(node),
            },
        )
        for node in range(2)
    ]
    await_tasks(var, 2, taken=2)
    nodes[0].kill()  # its child notices
    out, err = nodes[1].communicate(timeout=120)
    nodes[0].communicate(timeout=30)
    assert nodes[1].returncode == 0, err
    assert "3 sequences tracked" in out and len(results(var)) == 3


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
    assert done.returncode == 2 and not (var / "results").exists()
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
