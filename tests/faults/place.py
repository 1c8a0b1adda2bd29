"""A user's folder with a tiny training, test and evaluation, and what must be the same however they were disturbed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import torch

from tests.e2e.user_folder import NETWORK
from tests.faults.file_faults import FileFault
from tests.faults.verbs import Ended, Job, Server, Verb

VARIANT = "spot_transt_003"
TRAINING = {
    **NETWORK,
    "data.workers": "0",
    "data.datasets": "LaSOT:train",
    "train.epochs": "3",
    "train.burn_in_epochs": "1",
    "train.iterations": "3",
    "train.batch_size_sup": "1",
    "train.batch_size_unsup": "3",
    "train.save_interval": "2",
    "train.resume_interval": "1",
    "train.tensorboard": "false",
    "train.image_interval": "2",
    "sparse.confidence_threshold": "0.05",
    "sparse.update_frequency": "2",
    "optim.lr": "1e-3",
    "threads": "1",
}
FRAMES = 12  # of each sequence of the benchmark: enough to be killed in


class Place:
    """A user's folder.

    Args:
        folder: is made.
        sequences: the real videos.
        server: starts the verbs.
        benchmark: its frames per sequence; 0: there is none.
    """

    def __init__(self, folder: Path, sequences: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        self.var = folder / "var"
        self.var.mkdir(parents=True)
        self.checkpoints = self.var / f"checkpoints/ltr/spot/{VARIANT}"
        self.results = self.var / "results/OTB100"
        self.reports = self.var / "reports"
        self.settings = TRAINING | {"paths.sampling_results": str(folder / "key_frames")}
        (folder / "local.py").write_text(
            "class EnvironmentSettings:\n    def __init__(self):\n"
            f"        self.workspace_dir = {str(self.var)!r}\n"
            f"        self.seq_files_dir = {str(folder)!r}\n"
            f"        self.train_dataset_dirs = {{'LaSOT': {str(sequences / 'LaSOT')!r}}}\n"
            f"        self.test_dataset_dirs = {{'OTB100': {str(sequences / 'OTB100')!r}}}\n"
        )
        whole = json.loads((sequences / "seq_files/OTB100.json").read_text())
        short = {"img_names", "gt_rect"}
        cut = {
            name: {key: value[:FRAMES] if key in short else value for key, value in video.items()}
            for name, video in whole.items()
        }
        (folder / "OTB100.json").write_text(json.dumps(cut))
        self._numbers = itertools.count()

    def environment(self) -> dict[str, str]:
        """What the verbs need to know of this place."""
        return {
            "SPOT_LOCAL": str(self.folder / "local.py"),
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        }

    def start(self, verb: str, *words: str, fault: FileFault | None = None, **wrong: Any) -> Verb:
        """Start a verb of ``scripts``; ``wrong`` is what ``Job`` takes, ``environment`` is added to this place's."""
        output = str(self.folder / f"output{next(self._numbers)}")
        environment = self.environment() | wrong.pop("environment", {})
        return self.server.start(Job(verb, words, environment, output, fault, **wrong))

    def training_words(self) -> list[str]:
        """The command line of the training."""
        pairs = itertools.chain.from_iterable(("--set", *pair) for pair in self.settings.items())
        return ["spot", VARIANT, *pairs]

    def train(self, fault: FileFault | None = None, **wrong: Any) -> Verb:
        """Start, or go on with, the training."""
        return self.start("run_training", *self.training_words(), fault=fault, **wrong)

    def test(self, checkpoint: Path, fault: FileFault | None = None, **wrong: Any) -> Verb:
        """Start, or go on with, the test of a checkpoint."""
        words = (
            "--dataset",
            "OTB100",
            "--resume",
            str(checkpoint),
            "--name",
            "tracker",
            "--set",
            "threads",
            "1",
        )
        return self.start("test", *words, fault=fault, **wrong)

    def evaluate(self, fault: FileFault | None = None, **wrong: Any) -> Verb:
        """Start the evaluation of all results."""
        return self.start("eval", "--dataset", "OTB100", fault=fault, **wrong)

    def trained(self) -> dict[str, object]:
        """What a training leaves: log, sampler states, weights, optimizer, and which files there are."""
        found: dict[str, object] = {"log": (self.checkpoints / "train.jsonl").read_bytes()}
        for folder in (self.checkpoints, self.var / "records"):
            found |= {
                f"file {path.relative_to(folder)}": True for path in folder.rglob("*") if path.is_file()
            }
        for path in sorted((self.var / "records").glob("*.json")):
            found[path.name] = path.read_bytes()
        for path in sorted(self.checkpoints.glob("*.pth.tar")):
            content = torch.load(path, weights_only=True)
            found[path.name] = {name: _bytes(content.get(name)) for name in ("net", "optimizer")}
        return found

    def tested(self) -> dict[str, bytes]:
        """The result files, by name."""
        return self._contents(self.results)

    def evaluated(self) -> dict[str, bytes]:
        """The reports, by name."""
        return self._contents(self.reports)

    def _contents(self, folder: Path) -> dict[str, bytes]:
        """The files below a folder by name, without this place's own; nobody reads what a killed process had begun."""
        files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        here = str(self.folder).encode()
        return {str(path.relative_to(folder)): path.read_bytes().replace(here, b"HERE") for path in files}


def _bytes(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: _bytes(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_bytes(item) for item in value]
    return value


def differences(expected: dict, found: dict) -> list[str]:
    """What is not the same, by name."""
    return [name for name in sorted(expected.keys() | found.keys()) if expected.get(name) != found.get(name)]


def ok(ended: Ended) -> Ended:
    """The end of a verb that must succeed."""
    assert ended.code == 0, f"{ended.code}\n{ended.out[-2000:]}\n{ended.err[-2000:]}"
    return ended
