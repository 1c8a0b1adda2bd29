"""Ocean through the command line on real video: weights, thaw, kill, resume, test, evaluate, TransT's sampler state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ltr.data.sampler_state import SamplerState
from ltr.models.registry import build_network
from tests.e2e.user_folder import DATASETS, UserFolder

VARIANT = "spot_ocean_003"
THAW, EPOCHS = 3, 4

# An Ocean that one core trains in seconds; everything else is the variant's own.
TINY = {
    "network.args.backbone": "ocean_tiny",
    "network.args.hidden_dim": "16",
    "network.args.towers": "1",
    "network.args.template_margin": "0",
    "data.search_size": "95",
    "data.template_size": "47",
    "data.workers": "1",
    "train.epochs": str(EPOCHS),
    "train.burn_in_epochs": "2",
    "train.iterations": "6",
    "train.batch_size_sup": "2",
    "train.batch_size_unsup": "6",
    "train.save_interval": "1",
    "optim.unfreeze_epoch": str(THAW),
    "sparse.confidence_threshold": "0.05",
    "threads": "1",
}


class OceanFolder(UserFolder):
    """A user's folder with a file of backbone weights; ``common`` holds what several folders share."""

    def __init__(self, folder: Path, sequences: Path, common: Path) -> None:
        super().__init__(folder, sequences, "spot", VARIANT)
        self.weights = common / "pretrain" / "imagenet_pretrain.model"
        self.shared = {
            "paths.sampling_results": str(common / "key_frames"),
            "data.datasets": DATASETS,
        }
        self.settings = {**TINY, **self.shared, "paths.pretrain": str(self.weights.parent)}
        if not self.weights.exists():
            self.weights.parent.mkdir()
            torch.manual_seed(0)
            body = build_network("ocean", {"backbone": "ocean_tiny"}).features.features.state_dict()
            net = {f"module.feature_extractor.{name}": value for name, value in body.items()}
            torch.save({"state_dict": net}, self.weights)

    def body(self, epoch: int, part: str = "s") -> dict[str, torch.Tensor]:
        """The backbone's tensors in a checkpoint, by the names of the file of weights."""
        path = self.checkpoints / f"Ocean_ep{epoch:04d}_{part}.pth.tar"
        net = torch.load(path, weights_only=True)["net"]
        prefix = "features.features."
        return {name.removeprefix(prefix): value for name, value in net.items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def common(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("common")


@pytest.fixture(scope="module")
def trained(shared, common, tmp_path_factory) -> tuple[OceanFolder, str]:
    """A run that nothing disturbed, from training to evaluation, and what it printed."""
    place = OceanFolder(tmp_path_factory.mktemp("undisturbed"), shared("sequences"), common)
    out = place.ok(
        "scripts/onekey.py", "--train", "--test", "--eval", "--module", "spot", "--arch", "ocean", "--variant", VARIANT,
        "--interval", "1", "--start_epoch", "3", "--end_epoch", "4", "--dataset", "OTB100", "--ts_tag", "t", "--device", "cpu",
    )  # fmt: skip
    return place, out


def test_one_key_trains_tests_and_evaluates(trained):
    place, out = trained
    for epoch in (3, 4):
        place.check_otb(out, epoch, "t")
    log = place.log()
    assert [line["stage"] for line in log] == ["burn-in"] * 2 + ["sparse"] * 2
    assert log[-1]["explored"] > log[0]["explored"] and 0 < log[-1]["acceptance"] <= 1
    assert {"loss_ce", "loss_bbox", "loss_align", "loss_iou_pred", "pseudo_loss_align"} <= log[-1].keys()
    assert "pseudo_loss_iou_pred" not in log[-1]
    assert all(line["lr"][0] == pytest.approx(10 * line["lr"][1]) for line in log)


def test_the_backbone_starts_from_the_file_and_thaws(trained):
    place, out = trained
    given = {
        name.removeprefix("module.feature_extractor."): value
        for name, value in torch.load(place.weights, weights_only=True)["state_dict"].items()
    }
    assert f"{len(given)} of {len(given)} ImageNet weights from {place.weights}" in out
    for epoch in range(1, EPOCHS + 1):
        moved = {name for name, value in place.body(epoch).items() if not torch.equal(value, given[name])}
        stages = {name.partition(".")[0] for name in moved}
        assert stages == (set() if epoch < THAW else {"layer1", "layer2", "layer3"}), epoch


@pytest.mark.faults
def test_a_run_killed_on_both_sides_of_the_thaw_ends_as_if_nothing_had_happened(
    trained, shared, common, tmp_path
):
    place = OceanFolder(tmp_path / "killed", shared("sequences"), common)
    for epoch in (THAW - 1, THAW):
        place.train_until(lambda epoch=epoch: place.saved(epoch))
    place.train()
    expected, found = trained[0].outcome(), place.outcome()
    assert expected.keys() == found.keys()
    for name in expected:
        assert found[name] == expected[name], name


def test_two_processes_train_through_the_thaw(trained, shared, common, tmp_path):
    place = OceanFolder(tmp_path, shared("sequences"), common)
    place.train_in_processes(2)
    assert json.loads(place.state().read_text()).keys() == json.loads(trained[0].state().read_text()).keys()
    frozen, thawed = place.body(THAW - 1), place.body(EPOCHS)
    assert torch.equal(frozen["conv1.weight"], thawed["conv1.weight"])
    assert not torch.equal(frozen["layer1.0.weight"], thawed["layer1.0.weight"])


def test_transt_and_ocean_read_each_others_sampler_state(trained, shared, common, tmp_path):
    ocean = trained[0].state()
    place = UserFolder(tmp_path / "transt", shared("sequences"))
    place.settings |= trained[0].shared | {"train.epochs": "2", "train.burn_in_epochs": "1"}
    place.train()
    transt = place.state()
    states = [SamplerState.from_json(path, tmp_path / f"{i}.bin") for i, path in enumerate((ocean, transt))]
    assert states[0].fingerprint() == states[1].fingerprint()
    for path, state in zip((ocean, transt), states):
        state.write_json(tmp_path / path.name)
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    mine, theirs = (json.loads(path.read_text()) for path in (ocean, transt))
    assert mine.keys() == theirs.keys()
    for key in mine:
        for one, two in zip(mine[key], theirs[key]):
            assert one.keys() == two.keys() and one["key_frame_ids"] == two["key_frame_ids"]
