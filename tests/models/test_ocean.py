"""The Ocean network: geometry, freezing, decoding, and what training and inference rely on."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from config.errors import UserError
from ltr.models.layers.anchor_free import align_offsets, corners, feature_size, grid, map_size
from ltr.models.layers.fold import fold_batch_norms
from ltr.models.registry import build_network
from ltr.models.tracking.ocean import decode
from ltr.ops.deform_conv import DeformConv

SMALL = {"backbone": "ocean_tiny", "hidden_dim": 16, "towers": 2, "template_margin": 1}


def crops(batch: int = 2, template: int = 63, search: int = 127) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(batch, 3, side, side, generator=generator) for side in (template, search))


def disturb(network: nn.Module) -> nn.Module:
    """Batch norms, biases and weights of correlations away from where they start, so that they matter."""
    generator = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if value.ndim == 1:
            low = 0.5 if name.endswith(("weight", "running_var")) else -0.2
            value.copy_(torch.rand(len(value), generator=generator) * (1.0 if low > 0 else 0.4) + low)
    return network


@pytest.fixture
def small():
    torch.manual_seed(0)
    return disturb(build_network("ocean", SMALL)).eval()


# -- geometry -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "search", "margin"), [(63, 127, 1), (71, 135, 1), (79, 129, 2), (127, 255, 4)]
)
def test_maps_have_the_promised_size(template, search, margin):
    network = build_network("ocean", {**SMALL, "template_margin": margin}).eval()
    with torch.inference_mode():
        outputs = network(*crops(1, template, search))
    side = map_size(search, feature_size(template) - 2 * margin)
    channels = {"pred_logits": 1, "pred_boxes": 4, "align_logits": 1, "pred_ious": 1}
    assert {name: list(value.shape) for name, value in outputs.items()} == {
        name: [1, count, side, side] for name, count in channels.items()
    }


def test_cells_lie_where_the_backbone_looks():
    """The pixels that move a feature lie symmetrically about the centre that the grid gives its cell."""
    body = build_network("ocean").eval().features.features
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.abs_()  # nothing cancels, no ReLU blocks
    image = torch.rand(1, 3, 255, 255, requires_grad=True)
    features = body.shared(image)  # layer 3 keeps place and size, but sees the whole crop
    assert features.shape[2:] == (feature_size(255), feature_size(255))
    middle = features.shape[-1] // 2
    features[0, :, middle, middle + 1].sum().backward()
    touched = image.grad.abs().sum((0, 1)) > 0
    rows, columns = (touched.any(axis).nonzero()[:, 0] for axis in (1, 0))
    x, y = grid(features.shape[-1], 255)
    assert (columns[0] + columns[-1]) / 2 == x[middle + 1]
    assert (rows[0] + rows[-1]) / 2 == y[middle]


@pytest.mark.parametrize("search", [127, 135, 143])
def test_a_mirrored_pair_gives_mirrored_boxes(small, search):
    """With mirrored kernels too; this fails where padding, correlation or grid are off by part of a cell."""
    template, image = crops(2, 63, search)
    mirrored = copy.deepcopy(small)
    for module in mirrored.modules():
        if isinstance(module, (nn.Conv2d, DeformConv)):
            module.weight.data = module.weight.data.flip(-1)
    connect = mirrored.connect_model
    swap = [2, 1, 0, 3]
    for value in (connect.bbox_pred.weight, connect.bbox_pred.bias):
        value.data = value.data[swap]
    with torch.inference_mode():
        plain, other = small(template, image), mirrored(template.flip(-1), image.flip(-1))
    for name in ("pred_logits", "pred_ious"):
        assert torch.allclose(plain[name], other[name].flip(-1), rtol=1e-4, atol=1e-6)
    x1, y1, x2, y2 = corners(plain["pred_boxes"], search).unbind(1)
    boxes = torch.stack([search - 1 - x2, y1, search - 1 - x1, y2], 1).flip(-1)
    assert torch.allclose(boxes, corners(other["pred_boxes"], search), atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_alignment_spreads_the_kernel_over_the_box(seed, half):
    """Offset plus place in the kernel is the place in the box, cell by cell and point by point."""
    side, search = 2 * half + 1, 127
    rng = np.random.default_rng(seed)
    distances = rng.uniform(0.1, 100, (1, 4, side, side))
    offsets = align_offsets(torch.from_numpy(distances)).numpy().reshape(9, 2, side, side)
    x, y = (line.double().numpy() for line in grid(side, search))
    boxes = corners(torch.from_numpy(distances), search)[0].numpy()
    row, column = rng.integers(0, side, 2)
    x1, y1, x2, y2 = boxes[:, row, column]
    for point, (dy, dx) in enumerate((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)):
        # the box counts its last pixel, which makes it one larger and its middle half a pixel less
        at_x = (x1 + x2) / 2 - 0.5 + dx * (x2 - x1 + 1) / 2
        at_y = (y1 + y2) / 2 - 0.5 + dy * (y2 - y1 + 1) / 2
        found_y, found_x = offsets[point, :, row, column]
        assert found_x + dx == pytest.approx((at_x - x[column]) / 8, abs=1e-4)
        assert found_y + dy == pytest.approx((at_y - y[row]) / 8, abs=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
def test_boxes_of_a_diverged_network_have_finite_offsets(bad):
    assert align_offsets(torch.full((1, 4, 3, 3), bad)).isfinite().all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 1), st.booleans(), st.booleans(), st.floats(0, 1))
def test_decoding_takes_the_best_cell(seed, even, align, iou, penalty):
    side, search = 11 - even, 127 - 8 * even
    generator = torch.Generator().manual_seed(seed)
    outputs = {
        "pred_logits": torch.randn(3, 1, side, side, generator=generator),
        "pred_boxes": torch.rand(3, 4, side, side, generator=generator) * 40,
    }
    if align:
        outputs["align_logits"] = torch.randn(3, 1, side, side, generator=generator)
    if iou:
        outputs["pred_ious"] = torch.rand(3, 1, side, side, generator=generator)
    found = decode(outputs, penalty, search)
    arrays = {name: value.double().numpy() for name, value in outputs.items()}
    line = 8 * np.arange(side) + (search - 1 - 8 * (side - 1)) / 2
    for sample in range(3):
        score = 1 / (1 + np.exp(-arrays["pred_logits"][sample, 0]))
        if align:
            score = 0.94 * score + 0.06 / (1 + np.exp(-arrays["align_logits"][sample, 0]))
        window = penalty * np.outer(np.hanning(side), np.hanning(side)) + (1 - penalty) * score
        row, column = divmod(int(found.index[sample]), side)
        assert window[row, column] == pytest.approx(window.max(), abs=1e-6)
        assert float(found.score[sample]) == pytest.approx(window[row, column], abs=1e-5)
        confidence = arrays["pred_ious"][sample, 0] if iou else score
        assert float(found.confidence[sample]) == pytest.approx(confidence[row, column], abs=1e-5)
        left, top, right, bottom = arrays["pred_boxes"][sample, :, row, column]
        cx, cy = line[column] + (right - left) / 2, line[row] + (bottom - top) / 2
        expected = np.array([cx, cy, left + right, top + bottom]) / search
        assert np.allclose(found.bbox_cxcywh_norm[sample], expected, atol=1e-5)


# -- training -------------------------------------------------------------------------------------


def test_template_work_is_done_once(small):
    template, search = crops()
    with torch.inference_mode():
        memory = small.encode_template(template)
        both = small(template, search)
        for _ in range(2):
            again = small.track(search, memory)
            assert all(torch.equal(again[name], both[name]) for name in both)
        one = small.track(search, type(memory)(*(part[:1] for part in memory)))
    assert torch.allclose(one["pred_boxes"][0], both["pred_boxes"][0], atol=1e-6)
    assert not torch.allclose(one["pred_boxes"][1], both["pred_boxes"][1], atol=1e-3)


def test_the_iou_head_teaches_nothing_but_itself(small):
    small(*crops())["pred_ious"].sum().backward()
    taught = {
        name.split(".")[1] for name, p in small.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert taught == {"iou_pred_tower", "iou_pred"}


def test_every_parameter_learns(small):
    outputs = small.train()(*crops())
    sum(value.square().sum() for value in outputs.values()).backward()
    assert not [name for name, p in small.named_parameters() if p.grad is None or not p.grad.any()]


def test_frozen_stages_stay_as_they_are():
    torch.manual_seed(0)
    network = build_network("ocean", {**SMALL, "backbone": "ocean_resnet50"})
    network.set_trainable(["layer3"])
    twin = copy.deepcopy(network)
    for trained in (network, twin):
        before = {name: value.clone() for name, value in trained.state_dict().items()}
        trained.eval().train()
        outputs = trained(*crops())
        sum(value.square().sum() for value in outputs.values()).backward()
        changed = {
            name for name, value in trained.state_dict().items() if not torch.equal(value, before[name])
        }
        learning = {name for name, p in trained.named_parameters() if p.grad is not None}
        for names in (changed, learning):
            body = {name.split(".")[2] for name in names if name.startswith("features.features.")}
            assert body == {"layer3"}
        assert any(name.startswith("neck.") for name in changed)
    assert not [p for p in network.features.features.layer2.parameters() if p.requires_grad]

    network.set_trainable(["layer1", "layer2", "layer3"])
    network.train()(*crops())["pred_boxes"].sum().backward()
    body = network.features.features
    assert body.layer1[0].bn1.training and body.layer1[0].conv1.weight.grad is not None
    assert not body.bn1.training and body.conv1.weight.grad is None
    network.set_trainable([])
    assert not [p for p in network.backbone_parameters() if p.requires_grad]
    assert network.training and not body.layer1[0].bn1.training
    network.eval()
    network.set_trainable(network.features.stages)
    assert all(p.requires_grad for p in network.parameters())
    assert not any(module.training for module in network.modules())
    with pytest.raises(ValueError, match=r"no stage layer4.*layer3"):
        network.set_trainable(["layer3", "layer4"])


# -- inference ------------------------------------------------------------------------------------


def test_folded_and_rounded_networks_answer_the_same(small):
    with torch.inference_mode():
        exact = small(*crops())
        with torch.autocast("cpu", torch.bfloat16):
            rounded = small(*crops())
        folded = fold_batch_norms(small)(*crops())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in small.modules())
    for name, value in exact.items():
        assert torch.allclose(folded[name], value, rtol=1e-4, atol=1e-5)
        assert rounded[name].dtype == torch.float32
    assert (exact["pred_boxes"].log() - rounded["pred_boxes"].log()).abs().max() < 0.05


def test_distances_are_limited_only_where_asked(small):
    unlimited = build_network("ocean", {**SMALL, "log_limit": None}).eval()
    unlimited.load_state_dict(small.state_dict())
    for network in (small, unlimited):
        network.connect_model.bias.data.fill_(6.0)
    with torch.inference_mode():
        limited, free = small(*crops())["pred_boxes"], unlimited(*crops())["pred_boxes"]
    assert limited.max().item() == pytest.approx(np.exp(4.7), rel=1e-6)
    assert free.min() > np.exp(4.7)


def test_the_online_branch_is_beside_the_network():
    torch.manual_seed(0)
    network = build_network("ocean", {**SMALL, "backbone": "ocean_resnet50_online"}).eval()
    plain = build_network("ocean", {**SMALL, "backbone": "ocean_resnet50"}).eval()
    own = {name: value for name, value in network.state_dict().items() if ".layeronline." not in name}
    plain.load_state_dict(own)
    _, search = crops(1)
    with torch.inference_mode():
        assert torch.equal(network.features(search), plain.features(search))
        assert network.features.online_features(search).shape == (1, 1024, 7, 7)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"hiden_dim": 96}, ["hiden_dim", "did you mean 'hidden_dim'"]),
        ({"backbone": "tiny"}, ["backbone 'tiny'", "take 'ocean_resnet50'"]),
        ({**SMALL, "towers": 0}, ["towers 0"]),
        ({**SMALL, "template_margin": -1}, ["template_margin -1"]),
    ],
)
def test_wrong_arguments_are_one_clear_line(args, words):
    with pytest.raises(UserError) as error:
        build_network("ocean", args)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


def test_crops_that_do_not_fit_are_named(small):
    template, search = crops(1, 63, 63)
    with pytest.raises(ValueError, match=r"\[1, 3, 63, 63\].* has -1 cells.*margin of 4"):
        build_network("ocean", {**SMALL, "template_margin": 4})(template, search)
    with pytest.raises(ValueError, match=r"search crop \[1, 3, 39, 39\] has fewer cells"):
        small(template, search[..., :39, :39])
