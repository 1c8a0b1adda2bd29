"""The TransT tracker: built from checkpoints, and what holds of every answer."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from config.defaults import get_defaults
from config.errors import UserError
from ltr.models.registry import build_network
from pysot_toolkit.trackers.base import build_tracker, twin
from pysot_toolkit.trackers.transt import TransTTracker

ARGS = {"backbone": "tiny", "hidden_dim": 16, "nheads": 2, "dim_feedforward": 32, "featurefusion_layers": 1}
CPU = torch.device("cpu")
SIZES = {"template_size": 32, "search_size": 64}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network("transt", ARGS)


@pytest.fixture
def video():
    return np.random.default_rng(0).integers(0, 256, (4, 90, 120, 3), np.uint8)


def checkpoint(path, network, **entries):
    settings = {"data": {**SIZES, "template_factor": 2.0, "search_factor": 3.0}}
    content = {
        "format": 1, "epoch": 3, "net_type": "TransT", "net": network.state_dict(),
        "constructor": {"name": "transt", "args": ARGS}, "settings": settings, **entries,
    }  # fmt: skip
    torch.save(content, path)
    return path


def run(tracker, video, bbox=(40.0, 30.0, 24.0, 20.0)):
    tracker.initialize(video[0], np.array(bbox))
    return [tracker.track(image) for image in video[1:]]


def test_sequences_do_not_disturb_each_other(network, video):
    tracker = TransTTracker(network, CPU, **SIZES)
    first = run(tracker, video)
    run(tracker, video[::-1], (2.0, 3.0, 60.0, 50.0))
    for a, b in zip(first, run(tracker, video)):
        assert np.array_equal(a.bbox, b.bbox) and a.score == b.score


def test_frames_are_one_pass_without_masks_and_one_copy_to_the_host(network, video, monkeypatch):
    """Without values, as on the meta device, the host can ask for none but those of the copies it makes."""
    images, attentions, copies = [], [], []
    attend = torch.nn.functional.scaled_dot_product_attention

    def attended(q, k, v, attn_mask=None, **options):
        attentions.append(attn_mask)
        return attend(q, k, v, attn_mask, **options)

    def cpu(self: torch.Tensor) -> torch.Tensor:
        copies.append((tuple(self.shape), self.is_inference()))
        return torch.zeros(self.shape)

    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # meta has none
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attended)
    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    tracker = TransTTracker(network, torch.device("meta"), **SIZES)
    tracker.network.backbone.register_forward_hook(lambda _, inputs, __: images.append(inputs[0].shape))
    twins = [twin(tracker) for _ in range(3)]
    for each in twins:
        each.initialize(video[0], np.array([40.0, 30.0, 24.0, 20.0]))
    assert not copies and images == [(1, 3, 32, 32)] * 3 and attentions == [None] * 3
    images.clear()
    attentions.clear()
    found = tracker.locate(twins, [each.crop(video[1]) for each in twins])
    assert found.shape == (3, 5) and copies == [((3, 5), True)]
    # one layer: the search crop on itself, both on each other; then the decoder
    assert images == [(3, 3, 64, 64)] and attentions == [None] * 4


def test_tracking_leaves_the_network_as_it_was(network, video):
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    run(TransTTracker(network, CPU, precision="bfloat16", **SIZES), video)
    assert network.training and all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_bfloat16_answers_nearly_the_same(network, video):
    exact, rounded = (
        run(TransTTracker(network, CPU, precision=p, **SIZES), video[:2]) for p in ("float32", "bfloat16")
    )
    assert np.abs(exact[0].bbox - rounded[0].bbox).max() < 2.0


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.floats(-50, 150), st.floats(-50, 120), st.floats(0.5, 300), st.floats(0.5, 300)),
    st.tuples(*[st.floats(0, 1)] * 4),
    st.integers(1, 400),
    st.integers(1, 400),
)
def test_answers_are_boxes_near_the_image(network, start, answer, width, height):
    tracker = TransTTracker(network, CPU, **SIZES)
    image = np.zeros((height, width, 3), np.uint8)
    x, y, w, h = start
    if x + w <= 0 or y + h <= 0 or x >= width or y >= height:
        with pytest.raises(UserError, match="outside the image"):
            tracker.initialize(image, np.array(start))
        return
    tracker.initialize(image, np.array(start))
    outputs = {"pred_logits": torch.zeros(1, 64, 2), "pred_boxes": torch.tensor(answer).expand(1, 64, 4)}
    found = tracker.move(tracker.choose(outputs)[0], width, height)
    x, y, w, h = found.bbox
    assert found.bbox.dtype == np.float64 and isinstance(found.score, float)
    assert 10 <= w <= max(width, 10) and 10 <= h <= max(height, 10)
    assert -1e-9 <= x + w / 2 <= width + 1e-9 and -1e-9 <= y + h / 2 <= height + 1e-9
    tracker.track(image)


@pytest.mark.parametrize(
    "box", [(1, 2, 0, 5), (1, 2, 3, -1), (float("nan"), 2, 3, 4), (1, 2, 3), (5000, 2, 3, 4)]
)
def test_no_box_in_the_image_is_an_error(network, video, box):
    with pytest.raises(UserError, match="initial box"):
        TransTTracker(network, CPU, **SIZES).initialize(video[0], np.array(box))


def test_a_diverged_network_is_an_error(network, video):
    tracker = TransTTracker(network, CPU, **SIZES)
    for parameter in tracker.network.parameters():
        parameter.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        run(tracker, video)


def test_our_checkpoints_bring_network_and_sizes(tmp_path, network, video):
    path = checkpoint(tmp_path / "TransT_ep0003_s.pth.tar", network)
    tracker = build_tracker("transt", path, get_defaults(), CPU)
    assert (tracker.template_size, tracker.search_size, tracker.search_factor) == (32, 64, 3.0)
    same = TransTTracker(network, CPU, search_factor=3.0, **SIZES)
    assert all(np.array_equal(a.bbox, b.bbox) for a, b in zip(run(tracker, video), run(same, video)))
    options = get_defaults()
    options.override(["tracker.window_penalty", "0.3", "tracker.search_factor", "2.5"])
    tracker = build_tracker("transt", path, options, CPU)
    assert (tracker.window_penalty, tracker.search_factor, tracker.search_size) == (0.3, 2.5, 64)


@pytest.mark.parametrize("iou_head", [True, False])
def test_published_checkpoints_bring_the_published_network(tmp_path, iou_head):
    published = build_network("transt", {"iou_head": iou_head})
    weights = published.state_dict()
    path = tmp_path / "transt.pth"
    torch.save({"net": weights, "net_type": "TransT", "constructor": None}, path)
    tracker = build_tracker("transt", path, get_defaults(), CPU)
    bias = published.bbox_embed.layers[-1].bias
    assert torch.equal(tracker.network.bbox_embed.layers[-1].bias, bias)
    assert tracker.network.iou_embed is None  # nothing asks for it
    assert (tracker.template_size, tracker.search_size) == (128, 256)


def test_wrong_input_is_one_clear_line(tmp_path, network):
    path = checkpoint(tmp_path / "a.pth.tar", network)

    def message(arch, file, *pairs) -> str:
        options = get_defaults()
        options.override(list(pairs))
        with pytest.raises(UserError) as error:
            build_tracker(arch, file, options, CPU)
        return str(error.value)

    assert "did you mean 'transt'" in message("tranzt", path)
    assert "did you mean 'window_penalty'" in message("transt", path, "tracker.window_penaltie", "0.3")
    assert "did you mean 'bfloat16'" in message("transt", path, "tracker.precision", "bfloat")
    other = checkpoint(tmp_path / "b.pth.tar", build_network("transt", {**ARGS, "hidden_dim": 32}))
    assert "other shapes" in message("transt", other) and "b.pth.tar" in message("transt", other)
    torch.save({"net": {"features.conv.weight": torch.zeros(3)}, "net_type": "Ocean"}, tmp_path / "Ocean.pth")
    assert "another network than TransT" in message("transt", tmp_path / "Ocean.pth")
