"""Training by torchrun: several machines, processes that die, and numbers of processes that change."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.user_folder import UserFolder
from tests.faults.verbs import send

SETTINGS = {
    "data.datasets": "LaSOT:train",
    "network.args.dropout": "0.0",  # each process draws its own
    "train.iterations": "4",
    "train.burn_in_epochs": "1",
}


def place(folder: Path, shared, **more: str) -> UserFolder:
    made = UserFolder(folder, shared("sequences"))
    made.settings |= SETTINGS | {name.replace("__", "."): value for name, value in more.items()}
    return made


def launch(where: UserFolder, *options: str) -> subprocess.Popen:
    """Training under torchrun with these options, or plainly without."""
    command = where.command("scripts/run_training.py", "spot", "spot_transt_003", "--device", "cpu")
    if options:
        command = [sys.executable, "-m", "torch.distributed.run", *options, *command[1:]]
    return subprocess.Popen(command, env=where.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> tuple[str, str]:
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err[-3000:]
    return out, err


def state(where: UserFolder) -> dict:
    return json.loads((where.var / "records/sampler_state_spot_transt_003.json").read_text())


def assert_same_state(one: dict, two: dict) -> None:
    assert one.keys() == two.keys()
    for key in one:
        for a, b in zip(one[key], two[key]):
            assert a["relay_frame_ids"] == b["relay_frame_ids"]
            # Sums over parts round otherwise than over the whole.
            assert all(abs(p - q) <= 0.11 for m, n in zip(a["bboxes"], b["bboxes"]) for p, q in zip(m, n))


@pytest.fixture(scope="module")
def alone(shared, tmp_path_factory) -> UserFolder:
    """A run of one process."""
    where = place(tmp_path_factory.mktemp("alone"), shared)
    finish(launch(where))
    return where


@pytest.mark.slow
def test_two_machines_end_with_the_sampler_state_of_one(alone, shared, tmp_path):
    """Two agents with a process each, that share a folder and have a working state each."""
    where = place(tmp_path, shared)
    meeting = ("--rdzv_backend", "c10d", "--rdzv_endpoint", f"localhost:{free_port()}", "--rdzv_id", "7")
    agents = [launch(where, "--nnodes", "2", "--nproc_per_node", "1", *meeting) for _ in range(2)]
    said = [finish(agent)[0] for agent in agents]
    assert sorted("epoch 4/4" in out for out in said) == [False, True]  # the first process alone speaks
    assert_same_state(state(alone), state(where))
    assert len(list((where.var / "cache/sampler_state").glob("*.bin"))) == 2
    assert {path.name for path in (where.var / "records").glob("*.journal*")} == {
        f"sampler_state_spot_transt_003.journal{rank}" for rank in ("", 1)
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_a_batch_that_does_not_divide_is_refused_in_one_line(shared, tmp_path):
    process = launch(place(tmp_path, shared), "--standalone", "--nproc_per_node", "3")
    _, err = process.communicate(timeout=200)
    assert process.returncode != 0
    lines = [
        line for line in err.splitlines() if "train.batch_size_sup 2 does not divide over 3 processes" in line
    ]
    assert len(lines) == 1 and not (tmp_path / "var/checkpoints").exists()


@pytest.mark.slow
@pytest.mark.faults
def test_killed_processes_are_started_again_and_end_as_if_nothing_had_happened(shared, tmp_path):
    two = ("--standalone", "--nproc_per_node", "2", "--max-restarts", "3")
    calm, hit = place(tmp_path / "calm", shared), place(tmp_path / "hit", shared)
    hit.settings["paths.sampling_results"] = calm.settings["paths.sampling_results"]
    finish(launch(calm, *two))
    agent = launch(hit, *two)
    for rank in (0, 1):
        await_epoch(hit, rank + 1, agent)
        time.sleep(0.3)
        pid = process_of(agent.pid, rank)
        assert pid is not None
        send(signal.SIGKILL, pid)
    finish(agent)
    expected, found = calm.outcome(), hit.outcome()
    assert expected.keys() == found.keys()
    for name in expected:
        assert found[name] == expected[name], name


@pytest.mark.slow
@pytest.mark.faults
def test_fewer_processes_go_on_with_the_same_samples(alone, shared, tmp_path):
    where = place(tmp_path, shared)
    agent = launch(where, "--standalone", "--nproc_per_node", "2")
    await_epoch(where, 2, agent)
    time.sleep(0.3)
    pids = [pid for rank in (0, 1) if (pid := process_of(agent.pid, rank))]
    assert len(pids) == 2
    send(signal.SIGKILL, *pids)
    agent.communicate(timeout=200)
    assert agent.returncode != 0  # without --max-restarts the run ends, within seconds
    out, _ = finish(launch(where))
    assert "going on after epoch" in out
    assert_same_state(state(alone), state(where))


@pytest.mark.slow
@pytest.mark.faults
def test_when_a_machine_is_lost_the_other_goes_on(alone, shared, tmp_path):
    """Agent and process of the machine that does not host the meeting place are gone at once."""
    where, port = place(tmp_path, shared), free_port()
    where.env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    options = ("--nnodes", "1:2", "--nproc_per_node", "1", "--max-restarts", "3", "--rdzv_backend", "c10d")
    options += (
        "--rdzv_endpoint",
        f"localhost:{port}",
        "--rdzv_id",
        "8",
        "--rdzv_conf",
        "last_call_timeout=5",
    )
    kept = launch(where, *options)
    limit = time.monotonic() + 100
    while not listening(port) and time.monotonic() < limit:
        time.sleep(0.1)
    lost = launch(where, *options)
    await_epoch(where, 2, kept)
    victims = [lost.pid, *(pid for rank in (0, 1) if (pid := process_of(lost.pid, rank)))]
    assert len(victims) == 2
    send(signal.SIGKILL, *victims)
    out, _ = finish(kept)
    lost.communicate()
    assert "device cpu, 1 process\n" in out and "going on after epoch" in out
    assert_same_state(state(alone), state(where))


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", port)) == 0


def await_epoch(where: UserFolder, epoch: int, process: subprocess.Popen) -> None:
    manifest, limit = where.checkpoints / f"TransT_ep{epoch:04d}.json", time.monotonic() + 300
    while not manifest.exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.02)
    assert manifest.exists()


def process_of(agent: int, rank: int) -> int | None:
    """The training process with this rank, a child of its agent."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            variables = (path / "environ").read_bytes().split(b"\0") if parent == agent else []
        except (OSError, IndexError):
            continue
        if f"RANK={rank}".encode() in variables:
            return int(path.name)
    return None
