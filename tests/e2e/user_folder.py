"""A user's folder, in which the tests train, test and evaluate through the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]

# A TransT that one core trains in seconds.
NETWORK = {
    "network.args.backbone": "tiny",
    "network.args.hidden_dim": "16",
    "network.args.nheads": "2",
    "network.args.dim_feedforward": "32",
    "network.args.featurefusion_layers": "1",
    "network.pretrained": "false",
    "data.search_size": "64",
    "data.template_size": "32",
}
# How it is trained; everything else is the variant's own.
TINY = {
    **NETWORK,
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
FEW_ITERATIONS = [
    "--set",
    "tracker.refine_iterations",
    "1",
    "--set",
    "tracker.initial_iterations",
    "2",
]  # DiMP's trackers


class UserFolder:
    """A user's folder, ``local.py``, ``var`` and key frames of its own, in which one variant is trained."""

    def __init__(
        self, folder: Path, sequences: Path, module: str = "spot", variant: str = "spot_transt_003"
    ) -> None:
        self.folder, self.module, self.variant = folder, module, variant
        folder.mkdir(exist_ok=True)
        (folder / "local.py").write_text(
            "class EnvironmentSettings:\n    def __init__(self):\n"
            f"        self.workspace_dir = {str(folder / 'var')!r}\n"
            f"        self.train_dataset_dirs = {{n: {str(sequences)!r} + '/' + n for n in ('LaSOT', 'GOT-10k', 'TrackingNet')}}\n"
            f"        self.test_dataset_dirs = {{n: {str(sequences)!r} + '/' + n for n in ('OTB100', 'VOT2018', 'LaSOT')}}\n"
        )
        self.var = folder / "var"
        self.checkpoints = self.var / "checkpoints/ltr" / module / variant
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

    def train(self) -> str:
        """Train to the end; returns what was printed."""
        return self.ok("scripts/run_training.py", self.module, self.variant)

    def train_until(self, ready: Callable[[], bool], delay: float = 0.05) -> None:
        """Start the training and SIGKILL it and its workers ``delay`` seconds after ``ready()``."""
        process = subprocess.Popen(
            self.command("scripts/run_training.py", self.module, self.variant),
            env=self.env,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while not ready() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(delay)
        running = process.poll() is None
        if running:
            os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        assert ready() and running, errors.decode()[-3000:]

    def saved(self, epoch: int) -> bool:
        """Whether the checkpoint of ``epoch`` is complete."""
        return any(self.checkpoints.glob(f"*_ep{epoch:04d}.json"))

    def train_in_processes(self, count: int) -> None:
        """Train to the end in several processes on the CPU."""
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
        command = self.command("scripts/run_training.py", self.module, self.variant, "--device", "cpu")
        done = subprocess.run(
            [sys.executable, *launch, *command[1:]], env=self.env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]

    def log(self) -> list[dict]:
        """The lines of the training's log, one per epoch."""
        return [json.loads(line) for line in (self.checkpoints / "train.jsonl").read_text().splitlines()]

    def state(self) -> Path:
        """The sampler state that a run has left."""
        return self.var / "records" / f"sampler_state_{self.variant}.json"

    def outcome(self) -> dict[str, object]:
        """What must be the same whether or not the run was killed on its way."""
        found: dict[str, object] = {"log": (self.checkpoints / "train.jsonl").read_bytes()}
        for path in sorted((self.var / "records").glob("sampler_state_*.json")):
            found[path.name] = path.read_bytes()
        for path in sorted(self.checkpoints.glob("*_[st].pth.tar")):
            net = torch.load(path, weights_only=True)["net"]
            found[path.name] = {name: value.numpy().tobytes() for name, value in net.items()}
        return found

    def one_key(self, *options: str, arch: str, dataset: str, epoch: int, part: str) -> str:
        """Test and evaluate one epoch's teacher ("t") or student ("s"); returns what was printed."""
        epochs = ("--interval", "1", "--start_epoch", str(epoch), "--end_epoch", str(epoch))
        names = ("--module", self.module, "--variant", self.variant, "--arch", arch, "--dataset", dataset)
        return self.ok(
            "scripts/onekey.py",
            "--test",
            "--eval",
            *names,
            *epochs,
            "--ts_tag",
            part,
            "--device",
            "cpu",
            *options,
        )

    def check_otb(self, out: str, epoch: int, part: str) -> None:
        """OTB100 has been tested and evaluated: a box for every frame, and a row in the table."""
        name = f"{self.variant}_ep{epoch:04d}_{part}"
        files = (self.var / "results/OTB100" / name).glob("*.txt")
        lines = {path.stem: len(path.read_text().splitlines()) for path in files}
        assert lines == {"Crossing": 120, "David": 471, "DragonBaby": 113}
        assert re.search(rf"^{name} +(\* )?0\.\d+", out, re.MULTILINE), out  # the best is marked

    def check_resets(self, out: str, epoch: int, part: str) -> None:
        """VOT2018 has been tested with resets and evaluated: started again after each failure, which are counted."""
        name = f"{self.variant}_ep{epoch:04d}_{part}"
        lines = (self.var / "results/VOT2018" / name / "baseline/bag/bag_001.txt").read_text().splitlines()
        starts, failures = ([i for i, line in enumerate(lines) if line == code] for code in ("1", "2"))
        assert len(lines) == 196 and failures  # networks of these tests are too small not to lose the bag
        assert starts == [0, *(i + 5 for i in failures if i + 5 < len(lines))]
        row = (
            rf"^{name} +0\.\d+ +0\.\d+ +\d+\.\d+ +{len(failures)}\.0 "  # EAO, accuracy, per 100 frames, lost
        )
        assert "protocol pysot-vot2018" in out and re.search(row, out, re.MULTILINE), out
