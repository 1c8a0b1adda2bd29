"""The whole chain on real video, through the command line: sample, train, kill, resume, test, evaluate."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ltr.data.sampler_state import SamplerState

ROOT = Path(__file__).resolve().parents[2]

# A TransT that one core trains in seconds; everything else is the variant's own.
TINY = {
    "network.args.backbone": "tiny",
    "network.args.hidden_dim": "16",
    "network.args.nheads": "2",
    "network.args.dim_feedforward": "32",
    "network.args.featurefusion_layers": "1",
    "network.pretrained": "false",
    "data.search_size": "64",
    "data.template_size": "32",
    "data.workers": "1",
    "train.epochs": "4",
    "train.burn_in_epochs": "2",
    "train.iterations": "6",
    "train.batch_size_sup": "2",
    "train.batch_size_unsup": "6",
    "train.save_interval": "1",
    "sparse.confidence_threshold": "0.05",
    "optim.lr": "1e-3",
    "threads": "1",
}
DATASETS = "LaSOT:train,GOT-10k:vottrain,TrackingNet:0"


class UserFolder:
    """A user's folder: ``local.py``, ``var`` and key frames of its own."""

    def __init__(self, folder: Path, sequences: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "local.py").write_text(
            "class EnvironmentSettings:\n    def __init__(self):\n"
            f"        self.workspace_dir = {str(folder / 'var')!r}\n"
            f"        self.train_dataset_dirs = {{n: {str(sequences)!r} + '/' + n for n in ('LaSOT', 'GOT-10k', 'TrackingNet')}}\n"
            f"        self.test_dataset_dirs = {{n: {str(sequences)!r} + '/' + n for n in ('OTB100', 'LaSOT')}}\n"
        )
        self.var = folder / "var"
        self.checkpoints = self.var / "checkpoints/ltr/spot/spot_transt_003"
        self.settings = {
            **TINY,
            "paths.sampling_results": str(folder / "key_frames"),
            "data.datasets": DATASETS,
        }
        self.env = {
            **os.environ,
            "SPOT_LOCAL": str(folder / "local.py"),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }

    def command(self, script: str, *options: str, settings: bool = True) -> list[str]:
        pairs = (
            [text for key, value in self.settings.items() for text in ("--set", key, value)]
            if settings
            else []
        )
        return [sys.executable, str(ROOT / script), *options, *pairs]

    def run(
        self, script: str, *options: str, settings: bool = True, cwd: Path | None = None
    ) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(script, *options, settings=settings),
            env=self.env,
            cwd=cwd or self.folder,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def ok(self, *args, **options) -> str:
        done = self.run(*args, **options)
        assert done.returncode == 0, f"{done.args}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def outcome(self) -> dict[str, object]:
        """What must be the same whether or not the run was killed on its way."""
        found: dict[str, object] = {"log": (self.checkpoints / "train.jsonl").read_bytes()}
        for path in sorted((self.var / "records").glob("sampler_state_*.json")):
            found[path.name] = path.read_bytes()
        for path in sorted(self.checkpoints.glob("*_[st].pth.tar")):
            net = torch.load(path, weights_only=True)["net"]
            found[path.name] = {name: value.numpy().tobytes() for name, value in net.items()}
        return found


@pytest.fixture(scope="module")
def undisturbed(shared, tmp_path_factory) -> UserFolder:
    """A run that nothing disturbed."""
    place = UserFolder(tmp_path_factory.mktemp("undisturbed"), shared("sequences"))
    sampler = "sampling/vanilla_sampling/key_frame_sampling.py"
    for dataset, split in (("LaSOT", "train"), ("GOT-10k", "vottrain"), ("TrackingNet", "0")):
        place.ok(
            sampler,
            "--dataset",
            dataset,
            "--split",
            split,
            "--num",
            "3",
            cwd=ROOT / "sampling/vanilla_sampling",
        )
    place.ok("scripts/run_training.py", "spot", "spot_transt_003")
    return place


def test_training_explores_and_leaves_what_it_should(undisturbed):
    state = json.loads((undisturbed.var / "records/sampler_state_spot_transt_003.json").read_text())
    paths = [path for trajectories in state.values() for path in trajectories]
    assert sum(len(p["relay_frame_ids"]) - len(p["key_frame_ids"]) for p in paths) > 10
    assert all(p["relay_frame_ids"] == sorted(set(p["relay_frame_ids"])) for p in paths)
    log = [json.loads(line) for line in (undisturbed.checkpoints / "train.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in log] == ["burn-in"] * 2 + ["sparse"] * 2
    assert log[-1]["explored"] > log[0]["explored"] and 0 < log[-1]["acceptance"] <= 1
    assert {p.name for p in undisturbed.checkpoints.glob("*_t.pth.tar")} == {
        "TransT_ep0003_t.pth.tar",
        "TransT_ep0004_t.pth.tar",
    }
    assert (undisturbed.checkpoints / "inputs/ep0003.png").stat().st_size > 1000


def kill_when(place: UserFolder, ready, delay: float) -> None:
    """Start the training and SIGKILL it and its workers ``delay`` seconds after ``ready()``."""
    process = subprocess.Popen(
        place.command("scripts/run_training.py", "spot", "spot_transt_003"),
        env=place.env,
        cwd=place.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(delay)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.faults
def test_a_killed_run_ends_as_if_nothing_had_happened(undisturbed, shared, tmp_path):
    place = UserFolder(tmp_path / "killed", shared("sequences"))
    place.settings["paths.sampling_results"] = undisturbed.settings["paths.sampling_results"]
    kill_when(place, lambda: place.checkpoints.is_dir(), 0.3)  # in the first epochs
    kill_when(place, lambda: (place.checkpoints / "TransT_ep0003.json").exists(), 0.05)  # in the sparse stage
    place.ok("scripts/run_training.py", "spot", "spot_transt_003")
    expected, found = undisturbed.outcome(), place.outcome()
    assert expected.keys() == found.keys()
    for name in expected:
        assert found[name] == expected[name], name


@pytest.mark.faults
def test_what_was_located_since_the_checkpoint_is_on_disk(undisturbed, shared, tmp_path):
    place = UserFolder(tmp_path / "place", shared("sequences"))
    place.settings |= {
        "paths.sampling_results": undisturbed.settings["paths.sampling_results"],
        "train.epochs": "40",
        "train.save_interval": "3",
        "train.resume_interval": "3",
    }
    log = place.checkpoints / "train.jsonl"
    kill_when(
        place, lambda: log.exists() and len(log.read_bytes().splitlines()) >= 8, 0.0
    )  # two after a checkpoint
    records = place.var / "records"
    [snapshot] = [p for p in records.glob("sampler_state_*_0006.json")]
    recovered = SamplerState.recover(
        snapshot, records / "sampler_state_spot_transt_003.journal", tmp_path / "state.bin"
    )
    held = SamplerState.from_json(snapshot, tmp_path / "held.bin").recorded_frames()
    explored = [json.loads(line)["explored"] for line in log.read_text().splitlines()]
    frames = held / explored[5]
    assert recovered.recorded_frames() >= round(explored[7] * frames) > held


def test_two_processes_end_with_the_sampler_state_of_one(undisturbed, shared, tmp_path):
    states = []
    for ranks in (1, 2):
        place = UserFolder(tmp_path / str(ranks), shared("sequences"))
        place.settings |= {
            "paths.sampling_results": undisturbed.settings["paths.sampling_results"],
            "network.args.dropout": "0.0",  # each process draws its own
            "train.epochs": "3",
            "train.burn_in_epochs": "1",
        }
        command = place.command("scripts/run_training.py", "spot", "spot_transt_003", "--device", "cpu")
        if ranks > 1:
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
            command = [sys.executable, *launch, *command[1:]]
        done = subprocess.run(command, env=place.env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        states.append(json.loads((place.var / "records/sampler_state_spot_transt_003.json").read_text()))
    alone, together = states
    assert alone.keys() == together.keys()
    for key in alone:
        for one, two in zip(alone[key], together[key]):
            assert one["relay_frame_ids"] == two["relay_frame_ids"]
            # Sums over two halves round otherwise than over the whole.
            assert all(abs(a - b) <= 0.11 for m, n in zip(one["bboxes"], two["bboxes"]) for a, b in zip(m, n))


def test_a_run_is_not_continued_with_other_settings(undisturbed):
    before = undisturbed.outcome()
    undisturbed.settings["seed"] = "5"
    try:
        refused = undisturbed.run("scripts/run_training.py", "spot", "spot_transt_003")
    finally:
        del undisturbed.settings["seed"]
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "seed was 0, is 5" in refused.stderr and "--set variant NAME" in refused.stderr
    assert undisturbed.outcome() == before


def test_two_ranks_test_two_epochs_and_the_evaluation_names_every_figure(undisturbed):
    out = undisturbed.ok(
        "scripts/onekey.py", "--test", "--eval", "--module", "spot", "--arch", "transt", "--variant", "spot_transt_003",
        "--start_epoch", "3", "--end_epoch", "4", "--interval", "1", "--dataset", "OTB100", "--threads", "2", "--ts_tag", "t",
        "--device", "cpu",
    )  # fmt: skip
    for epoch in (3, 4):
        folder = undisturbed.var / f"results/OTB100/spot_transt_003_ep{epoch:04d}_t"
        lines = {path.stem: len(path.read_text().splitlines()) for path in folder.glob("*.txt")}
        assert lines == {"Crossing": 120, "David": 471, "DragonBaby": 113}
        assert re.search(rf"spot_transt_003_ep{epoch:04d}_t.*0\.\d+", out)
    assert "pysot-ope" in out
    reports = list((undisturbed.var / "reports").rglob("*"))
    assert {".json", ".csv", ".png"} <= {path.suffix for path in reports}
