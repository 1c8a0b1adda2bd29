"""ImageNet weights: where they are looked for, and what happens without."""

from __future__ import annotations

import pytest
import torch
import torchvision

from config.defaults import get_defaults
from config.errors import UserError
from ltr.models.backbone.pretrained import load_pretrained
from ltr.models.backbone.resnet import ResNet50
from ltr.models.registry import build_network


@pytest.fixture
def setup(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(ResNet50, "imagenet", "http://127.0.0.1:9/resnet50-0676ba61.pth")
    settings = get_defaults()
    settings.paths.pretrain = str(tmp_path / "pretrain")
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "cache" / "hub" / "checkpoints").mkdir(parents=True)
    small = {"hidden_dim": 8, "nheads": 2, "dim_feedforward": 8, "featurefusion_layers": 1}
    return build_network("transt", small), settings, tmp_path


def classifier_file(path) -> dict[str, torch.Tensor]:
    """Such a file as torchvision's: names of the trunk without prefix, and later layers."""
    weights = {name: torch.full_like(value, 0.5) for name, value in ResNet50().body.state_dict().items()}
    torch.save({**weights, "layer4.0.conv1.weight": torch.zeros(2), "fc.weight": torch.zeros(3)}, path)
    return weights


@pytest.mark.parametrize(
    "place",
    [
        "pretrain/resnet50-0676ba61.pth",
        "pretrain/resnet50.pth",
        "cache/hub/checkpoints/resnet50-0676ba61.pth",
    ],
)
def test_local_files_are_found(setup, place, capsys):
    network, settings, folder = setup
    weights = classifier_file(folder / place)
    load_pretrained(network, settings)
    assert all(
        torch.equal(value, weights[name]) for name, value in network.backbone[0].body.state_dict().items()
    )
    assert str(folder / place) in capsys.readouterr().out


def test_without_weights_training_stops_unless_allowed(setup, capsys):
    network, settings, folder = setup
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_pretrained(network, settings)
    for word in (str(folder / "pretrain"), "download failed", "network.allow_random"):
        assert word in str(error.value)
    settings.network.allow_random = True
    load_pretrained(network, settings)
    assert "random weights" in capsys.readouterr().err
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_damaged_file_is_an_error_even_if_random_is_allowed(setup):
    network, settings, folder = setup
    path = folder / "pretrain" / "resnet50.pth"
    classifier_file(path)
    path.write_bytes(path.read_bytes()[:100_000])
    settings.network.allow_random = True
    with pytest.raises(UserError, match=r"resnet50\.pth.*truncated"):
        load_pretrained(network, settings)


def test_a_backbone_that_has_none_says_so(setup):
    _, settings, _ = setup
    network = build_network("transt", {"backbone": "tiny", "hidden_dim": 8, "nheads": 2})
    with pytest.raises(UserError, match="Tiny has no ImageNet weights.*network.pretrained False"):
        load_pretrained(network, settings)


def test_a_backbone_with_torchvisions_own_names_takes_torchvisions_file(setup):
    _, settings, tmp_path = setup
    theirs = torchvision.models.resnet18(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "pretrain" / "resnet18-f37072fd.pth")
    network = build_network("dimpnet18", {})
    load_pretrained(network, settings)
    own = network.feature_extractor.state_dict()
    shared = {name: value for name, value in theirs.state_dict().items() if name in own}
    assert len(shared) > 100 and all(torch.equal(own[name], value) for name, value in shared.items())
