"""The TransT network: against the published formulation, and what training and inference rely on."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks._plain_transt import PlainTransT
from config.errors import UserError
from ltr.models.layers.fold import fold_batch_norms
from ltr.models.layers.position import _cached_codes, sine_positions
from ltr.models.registry import build_network

SMALL = {"backbone": "tiny", "hidden_dim": 32, "nheads": 4, "dim_feedforward": 64, "featurefusion_layers": 2}


def crops(batch: int = 2, template: int = 32, search: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(batch, 3, side, side, generator=generator) for side in (template, search))


@pytest.fixture
def small():
    torch.manual_seed(0)
    return build_network("transt", SMALL).eval()


@pytest.mark.parametrize("salt", ["another salt", "and one more"])
def test_agrees_with_the_published_formulation_for_other_weights(shared, kit, salt):
    manifest = json.loads(shared("parity", "transt_forward", "manifest.json").read_text())
    network = build_network("transt").eval()
    network.load_state_dict(kit.state_dict(manifest, salt))
    template, search = crops(2, 64, 128)
    with torch.inference_mode():
        expected = PlainTransT(network)(template, search)
        folded = fold_batch_norms(network).to(memory_format=torch.channels_last)(template, search)
    for name, value in expected.items():
        assert kit.difference(folded[name], value) <= 1e-5
        middle = value.mean(1, keepdim=True)
        assert kit.difference(folded[name] - middle, value - middle) <= 2e-3, name


def test_template_work_is_done_once(small):
    template, search = crops()
    with torch.inference_mode():
        memory = small.encode_template(template)
        both = small(template, search)
        for _ in range(2):
            again = small.track(search, memory)
            assert all(torch.equal(again[name], both[name]) for name in both)
        flipped = small.track(
            search.flip(0), type(memory)(*(part.flip(0) if len(part) > 1 else part for part in memory))
        )
    assert torch.allclose(flipped["pred_boxes"], both["pred_boxes"].flip(0), atol=1e-6)


def test_a_frame_uses_no_weight_that_only_the_template_needs(small):
    template, search = crops()
    layer = small.featurefusion_network.encoder.layers[0]
    dim = SMALL["hidden_dim"]
    with torch.inference_mode():
        memory = small.encode_template(template)
        before = small.track(search, memory)
    with torch.no_grad():
        for part in (layer.self_attn1, layer.norm11):
            for parameter in part.parameters():
                parameter.fill_(float("nan"))
        for name in ("weight", "bias"):
            getattr(layer.multihead_attn1, f"in_proj_{name}")[:dim] = float("nan")  # the template asks
            getattr(layer.multihead_attn2, f"in_proj_{name}")[dim:] = float("nan")  # the template is asked
    with torch.inference_mode():
        after = small.track(search, memory)
        assert small(template, search)["pred_boxes"].isnan().any()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_iou_head_teaches_nothing_but_itself(small):
    small(*crops())["pred_ious"].sum().backward()
    taught = {
        name.split(".")[0] for name, p in small.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert taught == {"iou_embed"}


def test_every_parameter_learns(small):
    outputs = small.train()(*crops())
    sum(value.square().sum() for value in outputs.values()).backward()
    assert not [name for name, p in small.named_parameters() if p.grad is None or not p.grad.any()]


def test_position_codes_of_inference_can_be_trained_with(small):
    _cached_codes.cache_clear()
    with torch.inference_mode():
        small(*crops())
    small(*crops())["pred_boxes"].sum().backward()
    assert sine_positions(8, 8, 32) is sine_positions(8, 8, 32)
    assert not sine_positions(8, 8, 32).is_inference()


def test_bfloat16_keeps_the_heads_in_float32(small):
    template, search = crops()
    with torch.inference_mode():
        exact = small(template, search)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = small(template, search)
    assert all(value.dtype == torch.float32 for value in rounded.values())
    assert (exact["pred_boxes"] - rounded["pred_boxes"]).abs().max() < 0.01


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"hiden_dim": 96}, ["hiden_dim", "did you mean 'hidden_dim'"]),
        ({"backbone": "resnet5"}, ["unknown backbone", "did you mean 'resnet50'"]),
        ({**SMALL, "nheads": 5}, ["32", "5 heads"]),
        ({**SMALL, "hidden_dim": 30, "nheads": 2}, ["30", "multiple of 4"]),
        ({**SMALL, "featurefusion_layers": 0}, ["at least one layer"]),
    ],
)
def test_wrong_arguments_are_one_clear_line(args, words):
    with pytest.raises(UserError) as error:
        build_network("transt", args)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("backbone", ["tiny", "conv5"])
def test_small_backbones_have_the_promised_shape(backbone):
    network = build_network("transt", {**SMALL, "backbone": backbone}).eval()
    with torch.inference_mode():
        outputs = network(*crops())
    assert outputs["pred_logits"].shape == (2, 64, 2)
    assert outputs["pred_boxes"].shape == (2, 64, 4)
    assert outputs["pred_ious"].shape == (2, 64, 1)
