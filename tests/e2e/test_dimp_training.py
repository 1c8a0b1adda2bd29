"""Supervised training of the DiMP family through the command line, on real video, and the pages that describe it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from config.errors import UserError
from ltr.admin.train import train, variant_settings
from ltr.train_settings.common import save_untrained
from tests.e2e.user_folder import FEW_ITERATIONS, UserFolder

ROOT = Path(__file__).resolve().parents[2]

# What makes any variant small enough for one core; everything else is the variant's own.
TINY = {
    "network.args.backbone": "ltr_small",
    "network.args.iou_dim": "16",
    "network.args.out_feature_dim": "16",
    "network.pretrained": "false",
    "data.search_size": "64",
    "data.workers": "1",
    "data.datasets": "LaSOT:train,GOT-10k:vottrain",
    "sequences.weights": "1,2",
    "validation.datasets": "GOT-10k:official_val",
    "validation.interval": "2",
    "validation.iterations": "2",
    "train.epochs": "4",
    "train.iterations": "5",
    "train.batch_size_sup": "4",
    "train.save_interval": "1",
    "threads": "1",
}


class DimpFolder(UserFolder):
    """A user's folder for one variant."""

    def __init__(self, folder: Path, sequences: Path, variant: str = "dimp_demo", **settings: str) -> None:
        super().__init__(folder, sequences, "dimp", variant)
        self.settings = {**TINY, **settings}

    def net(self, epoch: int) -> dict[str, torch.Tensor]:
        return torch.load(self.checkpoints / f"DiMPnet_ep{epoch:04d}_s.pth.tar", weights_only=True)["net"]


@pytest.fixture(scope="module")
def undisturbed(shared, tmp_path_factory) -> DimpFolder:
    place = DimpFolder(tmp_path_factory.mktemp("undisturbed"), shared("sequences"))
    place.train()
    return place


def test_training_learns_and_looks_at_other_videos_every_second_epoch(undisturbed):
    log = undisturbed.log()
    assert log[-1]["loss"] < log[0]["loss"]
    for line in log:
        validated = {name.removeprefix("val_") for name in line if name.startswith("val_")}
        terms = {name for name in line if name.startswith("loss")}
        assert {"loss", "loss_iou", "loss_test_clf", "loss_test_init_clf", "loss_test_iter_clf"} == terms
        assert validated == (terms if line["epoch"] % 2 == 0 else set())
    assert log[3]["val_loss"] != log[1]["val_loss"]
    assert (undisturbed.checkpoints / "inputs/ep0004.png").stat().st_size > 1000


@pytest.mark.parametrize("dataset", ["OTB100", "VOT2018"])
def test_one_key_tests_and_evaluates_what_was_trained(undisturbed, dataset):
    out = undisturbed.one_key("--train", *FEW_ITERATIONS, arch="dimp50", dataset=dataset, epoch=4, part="s")
    assert "trained already" in out
    check = {"OTB100": undisturbed.check_otb, "VOT2018": undisturbed.check_resets}[dataset]
    check(out, 4, "s")


@pytest.mark.faults
def test_a_killed_run_ends_as_if_nothing_had_happened(undisturbed, shared, tmp_path):
    place = DimpFolder(tmp_path, shared("sequences"))
    place.train_until(lambda: place.saved(2))
    place.train()
    expected, found = undisturbed.outcome(), place.outcome()
    assert expected.keys() == found.keys()
    for name in expected:
        assert found[name] == expected[name], name


def test_neither_validation_nor_workers_change_what_is_learned(undisturbed, shared, tmp_path):
    place = DimpFolder(tmp_path, shared("sequences"), **{"validation.datasets": "[]", "data.workers": "0"})
    place.train()
    expected, found = undisturbed.net(4), place.net(4)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert [line["loss"] for line in place.log()] == [line["loss"] for line in undisturbed.log()]
    assert not any(name.startswith("val_") for line in place.log() for name in line)


def test_two_processes_learn_what_one_does(shared, tmp_path):
    # The regressor's batch norms see the share of one process; without its loss nothing else depends on it.
    settings = {"objective.iou": "0.0", "train.epochs": "1", "validation.interval": "1", "data.workers": "0"}
    one, two = (DimpFolder(tmp_path / name, shared("sequences"), **settings) for name in ("one", "two"))
    one.train()
    two.train_in_processes(2)
    [expected], [found] = one.log(), two.log()
    for name in ("loss", "loss_test_clf", "loss_test_init_clf", "val_loss", "val_loss_test_iter_clf"):
        assert found[name] == pytest.approx(expected[name], rel=1e-3), name


def test_super_dimp_trains_what_is_not_frozen(shared, tmp_path):
    frozen = {"network.args.frozen_backbone_layers": "layer2", "train.epochs": "1", "sequences.max_gap": "30"}
    place = DimpFolder(tmp_path, shared("sequences"), "super_dimp", **frozen)
    before = tmp_path / "before.pth.tar"
    settings = variant_settings("dimp", "super_dimp", [t for pair in place.settings.items() for t in pair])
    save_untrained(settings, before)
    place.train()
    start, end = torch.load(before, weights_only=True)["net"], place.net(1)
    still = {name for name, value in start.items() if torch.equal(value, end[name])}
    assert {name for name in start if name.startswith("feature_extractor.layer2.")} <= still
    assert not any(name.startswith("feature_extractor.layer3.") and "weight" in name for name in still)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"data.datasets": "LaSOT:train,COCO:train2017"}, "COCO"),
        ({"sequences.weights": "1,2,3"}, "weights.*2 data sets"),
        ({"train.batch_size_sup": "1"}, "train.batch_size_sup gives 1 sequence"),
        ({"sequences.crop": "insid"}, "insid.*inside"),
        ({"sequences.proposals.sigma": "1"}, "sequences.proposals.sigma.*sigmas"),
        ({"optim.drop_epoch": "0"}, "optim.drop_epoch 0: must be at least 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_named(wrong, message, shared, tmp_path, monkeypatch):
    place = DimpFolder(tmp_path, shared("sequences"), "dimp50", **wrong)
    monkeypatch.setenv("SPOT_LOCAL", place.env["SPOT_LOCAL"])
    with pytest.raises(UserError, match=message):
        train("dimp", "dimp50", [text for pair in place.settings.items() for text in pair])


def test_the_documented_trainings_run(shared, tmp_path):
    copy = tmp_path / "project"
    copy.mkdir()
    skip = shutil.ignore_patterns("__pycache__", "local.py", "*.json.tmp")
    for room in ("config", "ltr", "sampling", "scripts"):
        shutil.copytree(ROOT / room, copy / room, ignore=skip)
    page = (ROOT / "docs/own_training.md").read_text()
    files = re.findall(r"^`([\w/]+\.py)`\n\n```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert [Path(name).stem for name, _ in files] == ["dimp18_close", "two_sets"]
    place = DimpFolder(tmp_path / "user", shared("sequences"), **{"train.epochs": "1"})
    del place.settings["sequences.weights"]
    for name, code in files:
        assert not (copy / name).exists(), f"{name} is taken"
        (copy / name).write_text(code)
        weights = ["--set", "sequences.weights", "1,1"] if "close" in name else []
        words = place.command("scripts/run_training.py", "dimp", Path(name).stem)
        words[1] = str(copy / "scripts/run_training.py")
        env = {**place.env, "PYTHONPATH": str(copy)}
        done = subprocess.run(
            [*words, *weights], cwd=copy, env=env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        [log] = (place.var / "checkpoints/ltr/dimp" / Path(name).stem).glob("train.jsonl")
        assert json.loads(log.read_text())["skipped_steps"] == 0
