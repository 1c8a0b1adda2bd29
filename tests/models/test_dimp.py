"""The networks of the DiMP family: backbones, freezing, and what training and inference rely on."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
import torchvision
from torch import nn

from config.errors import UserError
from ltr.models.backbone.registry import BACKBONES
from ltr.models.layers.fold import fold_batch_norms
from ltr.models.registry import build_network
from ltr.models.tracking.dimp import published_args

TINY = {"backbone": "ltr_tiny", "out_feature_dim": 16, "iou_dim": 8}
NAMES = ("dimpnet18", "dimpnet50", "klcedimpnet18", "klcedimpnet50", "dimpnet50_simple")


def tiny(name: str, **args) -> nn.Module:
    """A small network, away from where training starts, because zeros and ones hide mistakes."""
    torch.manual_seed(0)
    if name == "dimpnet50_simple":
        args = {"frozen_backbone_layers": [], **args}
    network = build_network(name, {**TINY, **args})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.rand_like(parameter) * parameter.abs().clamp(min=0.1)
    return network


def batch(size: int = 96, train: int = 3, test: int = 2, sequences: int = 2) -> dict[str, torch.Tensor]:
    """Images, boxes, proposals and labels of a few frames."""
    generator = torch.Generator().manual_seed(1)
    box = torch.tensor([30.0, 34.0, 36.0, 28.0])

    def around(*shape: int) -> torch.Tensor:
        return box + 8 * torch.rand(*shape, 4, generator=generator)

    side = size // 16 + 1
    return {
        "train_images": torch.randn(train, sequences, 3, size, size, generator=generator),
        "test_images": torch.randn(test, sequences, 3, size, size, generator=generator),
        "train_bbox": around(train, sequences),
        "test_proposals": around(test, sequences, 5),
        "train_label": torch.rand(train, sequences, side, side, generator=generator) ** 8,
    }


# -- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "reference"), [("ltr_resnet18", "resnet18"), ("ltr_resnet50", "resnet50")])
def test_backbones_are_torchvisions(name, reference):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, reference)().eval()
    ours = BACKBONES.get(name)().eval()
    ours.load_state_dict(theirs.state_dict())
    ran = []
    for layer in ("layer3", "layer4"):
        getattr(ours, layer).register_forward_hook(lambda *_, layer=layer: ran.append(layer))
    images = torch.randn(1, 3, 96, 64)
    with torch.inference_mode():
        found = ours.layers(images, ["layer3", "layer1"])
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
        expected = {"layer1": theirs.layer1(x)}
        expected["layer3"] = theirs.layer3(theirs.layer2(expected["layer1"]))
        assert ran == ["layer3"] and set(found) == set(expected)
        assert all(torch.allclose(found[layer], expected[layer], atol=1e-4) for layer in expected)
        assert torch.equal(ours(images), found["layer3"])
    assert found["layer3"].shape == (1, ours.channels, 96 // ours.stride, 64 // ours.stride)
    with pytest.raises(ValueError, match=r"no layer fc: there are layer1"):
        ours.layers(images, ["layer2", "fc"])


@pytest.mark.parametrize("name", ["ltr_tiny", "ltr_small"])
def test_small_backbones_have_the_promised_layers(name):
    backbone = BACKBONES.get(name)()
    found = backbone.layers(torch.randn(2, 3, 96, 64), ["layer2", "layer3"])
    for layer, stride in (("layer2", 8), ("layer3", 16)):
        assert found[layer].shape == (2, backbone.layer_channels[layer], 96 // stride, 64 // stride)


def test_frozen_stages_stay_as_they_are():
    network = build_network(
        "dimpnet18", {**TINY, "backbone": "ltr_resnet18", "frozen_backbone_layers": ["conv1", "layer1"]}
    )
    for trained in (network, copy.deepcopy(network)):
        before = {name: value.clone() for name, value in trained.state_dict().items()}
        outputs = trained.eval().train()(**batch(64))
        sum(value.square().sum() for value in outputs.values()).backward()
        changed = {n for n, value in trained.state_dict().items() if not torch.equal(value, before[n])}
        learning = {n for n, p in trained.named_parameters() if p.grad is not None}
        for names in (changed, learning):
            assert {n.split(".")[1] for n in names if n.startswith("feature_extractor.")} == {
                "layer2",
                "layer3",
            }
    network.set_trainable(("stem", "layer3"))
    body = network.feature_extractor.train()
    assert body.bn1.training and body.conv1.weight.requires_grad
    assert not body.layer2[0].bn1.training and not body.layer2[0].conv1.weight.requires_grad
    assert not body.fc.weight.requires_grad and not body.layer4[0].conv1.weight.requires_grad
    atom = build_network("atom_resnet18", {"iou_dim": 8}).train()
    assert not any(p.requires_grad for p in atom.backbone_parameters())
    assert not any(
        module.training for module in atom.feature_extractor.children() if list(module.parameters())
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("filter_size", [1, 4])
def test_outputs_have_the_promised_shapes_and_everything_learns(name, filter_size):
    network = tiny(name, filter_size=filter_size).train()
    given = batch()
    side = 6 + (filter_size + 1) % 2
    given["train_label"] = given["train_label"][..., :side, :side]
    outputs = network(**given)
    assert outputs["target_scores"].shape == (6, 2, 2, side, side)
    assert outputs["proposal_scores"].shape == (2, 2, 5)
    generator = torch.Generator().manual_seed(2)
    wanted = {name: torch.randn(value.shape, generator=generator) for name, value in outputs.items()}
    sum((outputs[name] * wanted[name]).sum() for name in outputs).backward()
    lazy = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # Batch norm takes off the mean of what comes before it, and with it a bias.
    assert not [
        n for n in lazy if not (n.startswith("bb_regressor") and n.endswith((".0.bias", "linear.bias")))
    ]


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_the_parts_that_trackers_call(name):
    network, given = tiny(name).eval(), batch()
    with torch.inference_mode():
        outputs = network(**given)
        train = network.extract_backbone(given["train_images"].flatten(0, 1))
        test = network.extract_backbone(given["test_images"][0])
        features = network.classification_features(train).unflatten(0, (3, 2))
        fitted = network.classifier.get_filter(features, given["train_bbox"], labels=given["train_label"])
        seen = network.classification_features(test)[None]
        scores = network.classifier.classify(fitted.filter, seen)
        reference = network.iou_features({layer: value[:2] for layer, value in train.items()})
        modulation = network.bb_regressor.get_modulation(reference, given["train_bbox"][0])
        found = network.bb_regressor.get_iou_feat(network.iou_features(test))
        boxes = network.bb_regressor.predict_iou(modulation, found, given["test_proposals"][0])
    assert torch.allclose(scores[0], outputs["target_scores"][-1, 0], atol=1e-5)
    assert torch.allclose(boxes, outputs["proposal_scores"][0], atol=1e-5)


def test_boxes_can_climb_and_their_gradient_is_right():
    network = tiny("dimpnet50").double().eval().requires_grad_(False)
    given = {name: value.double() for name, value in batch().items()}
    features = network.iou_features(network.extract_backbone(given["test_images"][0]))
    modulation = network.bb_regressor.get_modulation(features, given["train_bbox"][0])
    found = network.bb_regressor.get_iou_feat(features)
    proposals = given["test_proposals"][0].requires_grad_()

    def scores(boxes: torch.Tensor) -> torch.Tensor:
        return network.bb_regressor.predict_iou(modulation, found, boxes)

    assert torch.autograd.gradcheck(scores, (proposals,))
    before = scores(proposals)
    [uphill] = torch.autograd.grad(before.sum(), proposals)
    assert uphill.any() and (scores(proposals + 1e-4 * uphill) > before).all()


@pytest.mark.parametrize("name", ["atom_resnet18", *NAMES])
def test_networks_wait_for_no_device_and_name_none(name, monkeypatch):
    """On the device "meta" there are no numbers to wait for, and tensors of another device cannot join."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # which "meta" has not
    args = {"iou_dim": 8} if name == "atom_resnet18" else TINY | {"frozen_backbone_layers": []}
    network = build_network(name, {**args, "backbone": "ltr_tiny"}).to("meta").eval()
    given = {key: value.to("meta") for key, value in batch().items()}
    if name == "atom_resnet18":
        del given["train_label"]
    given["test_proposals"].requires_grad_()
    outputs = network(**given)
    sum(value.sum() for value in outputs.values()).backward()
    assert all(value.is_meta for value in outputs.values())
    assert given["test_proposals"].grad.is_meta


@pytest.mark.parametrize("name", NAMES)
def test_networks_compile_whole(name):
    network, given = tiny(name).eval(), batch(64)
    given["train_label"] = given["train_label"][..., :5, :5]
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    with torch.no_grad():
        plain, fast = network(**given), compiled(**given)
    assert all(torch.allclose(fast[key], plain[key], atol=1e-5) for key in plain)


def test_folded_and_rounded_networks_answer_the_same():
    torch.manual_seed(0)
    network = build_network("dimpnet18", {"out_feature_dim": 32, "iou_dim": 16}).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    given = batch(64)
    with torch.inference_mode():
        exact = network(**given)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(**given)
        folded = fold_batch_norms(network)(**given)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    for name, value in exact.items():
        scale = value.abs().max()
        assert (folded[name] - value).abs().max() < 1e-4 * scale
        assert rounded[name].dtype == torch.float32
        assert (rounded[name] - value).abs().max() < 0.1 * scale


# -- building -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("dimpnet50", {"optim_iterations": 5}, ["optim_iterations", "did you mean 'optim_iter'"]),
        ("dimpnet50", {"backbone": "tiny"}, ["backbone 'tiny'", "ltr_resnet50"]),
        ("dimpnet50", {**TINY, "filter_size": 0}, ["filter_size 0"]),
        ("dimpnet50", {**TINY, "num_dist_bins": 1}, ["num_dist_bins 1"]),
        ("dimpnet50", {**TINY, "score_act": "bentpar"}, ["bentpar", "act_param None"]),
        ("klcedimpnet50", {**TINY, "init_initializer": "ones"}, ["init_initializer 'ones'"]),
        ("dimpnet50", {**TINY, "frozen_backbone_layers": ["layer9"]}, ["layer9", "layer2"]),
        ("atom_resnet18", {"backbone": "ltr_tiny", "iou_dim": 7}, ["iou_dim 7"]),
    ],
)
def test_wrong_arguments_are_one_clear_line(name, args, words):
    with pytest.raises(UserError) as error:
        build_network(name, args)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


def test_published_arguments_are_translated_or_refused():
    published = {
        "filter_size": 4,
        "backbone_pretrained": True,
        "clf_feat_norm": True,
        "iou_input_dim": [256, 256],
    }
    assert published_args(published) == {"filter_size": 4}
    with pytest.raises(UserError, match=r"classification_layer='layer4'.*'layer3'"):
        published_args({"classification_layer": "layer4"})
