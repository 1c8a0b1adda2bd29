"""Backbone weights from a named file: prefixes, what does not fit, and what is missing."""

from __future__ import annotations

import pytest
import torch

from config.errors import UserError
from ltr.admin.train import variant_settings
from ltr.models.backbone.pretrained import load_pretrained
from ltr.models.registry import build_network

FILE = "imagenet_pretrain.model"


@pytest.fixture
def setup(tmp_path):
    """A small Ocean, the published settings, and a function that writes the file."""
    settings = variant_settings("spot", "spot_ocean_003", ["paths.pretrain", str(tmp_path)])
    network = build_network("ocean", {"backbone": "ocean_tiny", "hidden_dim": 8, "towers": 1})
    body = {
        name: torch.full_like(value, 0.5) for name, value in network.features.features.state_dict().items()
    }

    def write(prefix: str, **more: torch.Tensor) -> None:
        net = {f"{prefix}{name}": value for name, value in (body | more).items()}
        torch.save({"state_dict": net, "best_prec": 76.1}, tmp_path / FILE)

    return network, settings, body, write


def loaded(network, body) -> bool:
    return all(
        torch.equal(value, body[name]) for name, value in network.features.features.state_dict().items()
    )


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "feature_extractor.", "module.feature_extractor.features.", "features.features."],
)
def test_the_body_is_found_behind_every_prefix(setup, prefix, capsys):
    network, settings, body, write = setup
    rest = {name: value.clone() for name, value in network.neck.state_dict().items()}
    write(prefix, **{"fc.weight": torch.zeros(3, 2), "fc.bias": torch.zeros(3)})
    load_pretrained(network, settings)
    assert loaded(network, body)
    assert all(torch.equal(value, rest[name]) for name, value in network.neck.state_dict().items())
    told = capsys.readouterr()
    assert f"{len(body)} of {len(body)} ImageNet weights" in told.out
    assert "left out of the file: best_prec (1), fc (2)" in told.out and not told.err


def test_what_the_file_lacks_is_named_and_keeps_its_random_weights(setup, capsys):
    network, settings, body, write = setup
    kept = {name for name in body if name.startswith("layer3.")}
    before = {name: network.features.features.state_dict()[name].clone() for name in kept}
    for name in kept:
        del body[name]
    write("module.")
    load_pretrained(network, settings)
    assert f"lacks layer3 ({len(kept)}) of the backbone" in capsys.readouterr().err
    after = network.features.features.state_dict()
    assert all(torch.equal(after[name], before.get(name, body.get(name))) for name in after)


def test_another_networks_file_is_refused(setup):
    network, settings, body, write = setup
    body.clear()
    write("", **{"fc.weight": torch.zeros(3)})
    with pytest.raises(
        UserError, match=rf"{FILE}: holds no weights of.*conv1\.weight.*network\.pretrained_file"
    ):
        load_pretrained(network, settings)


def test_another_shape_is_refused(setup):
    network, settings, _, write = setup
    write("module.", **{"conv1.weight": torch.zeros(2, 3, 7, 7)})
    with pytest.raises(UserError, match=r"conv1\.weight is \[2, 3, 7, 7\], the network's \[32, 3, 7, 7\]"):
        load_pretrained(network, settings)


def test_without_the_file_training_stops_unless_allowed(setup, tmp_path, capsys):
    network, settings, body, _ = setup
    with pytest.raises(UserError, match=rf"{tmp_path}/{FILE} is missing.*network\.allow_random"):
        load_pretrained(network, settings)
    settings.network.allow_random = True
    load_pretrained(network, settings)
    assert "starting from random weights" in capsys.readouterr().err and not loaded(network, body)
