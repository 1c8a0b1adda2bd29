"""Sparse DiMP through the command line on real video: both stages, sampler state, kill, resume, test, evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ltr.data.sampler_state import SamplerState
from tests.e2e.user_folder import DATASETS, FEW_ITERATIONS, UserFolder

VARIANT = "spot_dimp50_003"
BURN_IN, EPOCHS = 2, 4

# A DiMP that one core trains in seconds; everything else is the variant's own.
TINY = {
    "network.args.backbone": "ltr_tiny",
    "network.args.out_feature_dim": "16",
    "network.args.iou_dim": "16",
    "network.args.optim_iter": "2",
    "network.pretrained": "false",
    "data.search_size": "64",
    "data.workers": "1",
    "data.datasets": DATASETS,
    "train.epochs": str(EPOCHS),
    "train.burn_in_epochs": str(BURN_IN),
    "train.iterations": "6",
    "train.batch_size_sup": "2",
    "train.batch_size_unsup": "6",
    "train.save_interval": "1",
    "sparse.confidence_threshold": "0.3",
    "threads": "1",
}


class DiMPFolder(UserFolder):
    """A user's folder; key frames lie in ``common``, which several folders share."""

    def __init__(self, folder: Path, sequences: Path, common: Path) -> None:
        super().__init__(folder, sequences, "spot", VARIANT)
        self.settings = {**TINY, "paths.sampling_results": str(common / "key_frames")}


@pytest.fixture(scope="module")
def common(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("common")


@pytest.fixture(scope="module")
def from_training_to_table(shared, common, tmp_path_factory) -> tuple[DiMPFolder, str]:
    """A run that nothing disturbed, tested and evaluated with the same command, and what it printed."""
    place = DiMPFolder(tmp_path_factory.mktemp("undisturbed"), shared("sequences"), common)
    out = place.one_key("--train", *FEW_ITERATIONS, arch="dimp", dataset="OTB100", epoch=EPOCHS, part="t")
    return place, out


@pytest.fixture(scope="module")
def trained(from_training_to_table) -> DiMPFolder:
    return from_training_to_table[0]


def test_one_key_trains_tests_and_evaluates(from_training_to_table):
    place, out = from_training_to_table
    place.check_otb(out, EPOCHS, "t")


def test_one_key_runs_vot_with_resets(trained):
    out = trained.one_key("--train", *FEW_ITERATIONS, arch="dimp", dataset="VOT2018", epoch=EPOCHS, part="t")
    assert "trained already" in out
    trained.check_resets(out, EPOCHS, "t")


def test_both_stages_train_and_explore(trained):
    log = trained.log()
    assert [line["stage"] for line in log] == ["burn-in"] * BURN_IN + ["sparse"] * (EPOCHS - BURN_IN)
    terms = {"loss_iou", "loss_test_clf", "loss_test_init_clf", "loss_test_iter_clf"}
    assert terms <= log[0].keys() and {f"pseudo_{term}" for term in terms} <= log[-1].keys()
    assert 0 < log[-1]["acceptance"] <= 1 and log[-1]["explored"] > log[0]["explored"]
    assert (trained.checkpoints / "inputs" / f"ep{EPOCHS:04d}.png").stat().st_size > 1000
    teachers = {path.name for path in trained.checkpoints.glob("*_t.pth.tar")}
    assert teachers == {f"DiMPnet_ep{epoch:04d}_t.pth.tar" for epoch in range(BURN_IN + 1, EPOCHS + 1)}


def test_the_sampler_state_is_in_the_published_format(trained, tmp_path):
    state = json.loads(trained.state().read_text())
    paths = [path for trajectories in state.values() for path in trajectories]
    for path in paths:
        assert path.keys() == {"key_frame_ids", "relay_frame_ids", "bboxes", "confidence"}
        assert path["relay_frame_ids"] == sorted(set(path["relay_frame_ids"]))
        assert set(path["key_frame_ids"]) <= set(path["relay_frame_ids"])
        assert len(path["relay_frame_ids"]) == len(path["bboxes"]) == len(path["confidence"])
    located = [
        (bbox, confidence)
        for path in paths
        for frame, bbox, confidence in zip(path["relay_frame_ids"], path["bboxes"], path["confidence"])
        if frame not in path["key_frame_ids"]
    ]
    assert len(located) > 5
    assert all(float(TINY["sparse.confidence_threshold"]) - 1e-3 <= c <= 1 for _, c in located)
    assert all(bbox[2] > 0 and bbox[3] > 0 for bbox, _ in located)
    SamplerState.from_json(trained.state(), tmp_path / "state.bin").write_json(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == trained.state().read_bytes()


@pytest.mark.faults
def test_a_run_killed_in_both_stages_ends_as_if_nothing_had_happened(trained, shared, common, tmp_path):
    place = DiMPFolder(tmp_path / "killed", shared("sequences"), common)
    for epoch in (BURN_IN - 1, BURN_IN + 1):
        place.train_until(lambda epoch=epoch: place.saved(epoch))
    place.train()
    expected, found = trained.outcome(), place.outcome()
    assert expected.keys() == found.keys()
    for name in expected:
        assert found[name] == expected[name], name


def test_two_processes_train_one_network_on_the_same_samples(trained, shared, common, tmp_path):
    place = DiMPFolder(tmp_path, shared("sequences"), common)
    place.train_in_processes(2)
    assert json.loads(place.state().read_text()).keys() == json.loads(trained.state().read_text()).keys()
    alone, together = trained.log(), place.log()
    assert [line["stage"] for line in alone] == [line["stage"] for line in together]
    # The IoU network normalises over a process's share of the batch; the classifier sees each sequence alone.
    assert together[0]["loss_test_clf"] == pytest.approx(alone[0]["loss_test_clf"], rel=0.05)
    assert together[-1]["explored"] > together[0]["explored"]
