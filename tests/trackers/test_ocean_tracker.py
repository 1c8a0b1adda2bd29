"""The Ocean tracker: built from checkpoints of three kinds, and what holds of every answer."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from config.defaults import get_defaults
from config.errors import UserError
from ltr.data.augment import normalise
from ltr.models.registry import build_network
from pysot_toolkit.trackers.base import build_tracker, twin
from pysot_toolkit.trackers.ocean import OceanTracker

ARGS = {"backbone": "ocean_tiny", "hidden_dim": 16, "towers": 1, "template_margin": 1}
CPU = torch.device("cpu")
SIZES = {"template_size": 63, "search_size": 127}
MAP = 11  # cells a side at these sizes


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network("ocean", ARGS)


@pytest.fixture
def video():
    return np.random.default_rng(0).integers(0, 256, (4, 90, 120, 3), np.uint8)


def checkpoint(path, network, **entries):
    trained = {"data": {**SIZES, "template_factor": 2.5, "search_factor": 4.0}}
    content = {
        "format": 1, "epoch": 3, "net_type": "Ocean", "net": network.state_dict(),
        "constructor": {"name": "ocean", "args": ARGS}, "settings": trained, **entries,
    }  # fmt: skip
    torch.save(content, path)
    return path


def run(tracker, video, bbox=(40.0, 30.0, 24.0, 20.0)):
    tracker.initialize(video[0], np.array(bbox))
    return [tracker.track(image) for image in video[1:]]


def answers(w: float, h: float, row: int = MAP // 2, column: int = MAP // 2, logit: float = 6.0) -> dict:
    """Network outputs that say "here" in one cell, with a box of that size, search px, centred on every cell."""
    where = torch.full((1, 1, MAP, MAP), -8.0)
    where[..., row, column] = logit
    half = torch.tensor([w, h, w, h]).view(1, 4, 1, 1) / 2
    return {"pred_logits": where, "align_logits": where, "pred_boxes": half.expand(1, 4, MAP, MAP)}


def told(tracker, outputs: dict, width: int, height: int):
    """The tracker's answer, where the network says ``outputs``."""
    return tracker.move(tracker.choose(outputs, [tracker])[0], width, height)


def test_sequences_do_not_disturb_each_other(network, video):
    tracker = OceanTracker(network, CPU, **SIZES)
    first = run(tracker, video)
    run(tracker, video[::-1], (2.0, 3.0, 60.0, 50.0))
    for a, b in zip(first, run(tracker, video)):
        assert np.array_equal(a.bbox, b.bbox) and a.score == b.score


def test_frames_are_one_pass_and_one_copy_to_the_host(network, video, monkeypatch):
    """Without values, as on the meta device, the host can ask for none but those of the copies it makes."""
    images, copies = [], []

    def cpu(self: torch.Tensor) -> torch.Tensor:
        copies.append((tuple(self.shape), self.is_inference()))
        return torch.zeros(self.shape)

    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # meta has none
    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    tracker = OceanTracker(network, torch.device("meta"), **SIZES)
    tracker.network.features.register_forward_hook(lambda _, inputs, __: images.append(inputs[0].shape))
    twins = [twin(tracker) for _ in range(3)]
    for each in twins:
        each.initialize(video[0], np.array([40.0, 30.0, 24.0, 20.0]))
    assert not copies and images == [(1, 3, 63, 63)] * 3
    images.clear()
    found = tracker.locate(twins, [each.crop(video[1]) for each in twins])
    assert found.shape == (3, 7) and copies == [((3, 7), True)] and images == [(3, 3, 127, 127)]


def test_a_frame_uses_no_weight_that_only_the_template_needs(network, video):
    tracker = OceanTracker(network, CPU, **SIZES)
    tracker.initialize(video[0], np.array([40.0, 30.0, 24.0, 20.0]))
    crops = [tracker.crop(video[1])]
    before = tracker.locate([tracker], crops)
    connect = tracker.network.connect_model
    for name, parameter in connect.named_parameters():
        if "_k." in name or name.startswith(("cls_dw.", "reg_dw.")):
            parameter.fill_(float("nan"))
    assert np.array_equal(tracker.locate([tracker], crops), before)
    tracker.initialize(video[0], np.array([40.0, 30.0, 24.0, 20.0]))
    with pytest.raises(UserError, match="not finite"):
        tracker.track(video[1])


def test_tracking_leaves_the_network_as_it_was(network, video):
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    run(OceanTracker(network, CPU, precision="bfloat16", **SIZES), video)
    assert network.training and all(p.requires_grad for p in network.parameters())
    assert network.connect_model.iou_pred is not None
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_bfloat16_answers_nearly_the_same(network, video):
    exact, rounded = (
        run(OceanTracker(network, CPU, precision=p, window_influence=0.9, **SIZES), video[:2])
        for p in ("float32", "bfloat16")
    )
    assert np.abs(exact[0].bbox - rounded[0].bbox).max() < 0.5


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.floats(-50, 150), st.floats(-50, 120), st.floats(0.5, 300), st.floats(0.5, 300)),
    st.tuples(st.floats(0.01, 110), st.floats(0.01, 110), st.integers(0, MAP - 1), st.integers(0, MAP - 1)),
    st.integers(1, 400),
    st.integers(1, 400),
)
def test_answers_are_boxes_near_the_image(network, start, answer, width, height):
    tracker = OceanTracker(network, CPU, **SIZES)
    image = np.zeros((height, width, 3), np.uint8)
    x, y, w, h = start
    if x + w <= 0 or y + h <= 0 or x >= width or y >= height:
        with pytest.raises(UserError, match="outside the image"):
            tracker.initialize(image, np.array(start))
        return
    tracker.initialize(image, np.array(start))
    found = told(tracker, answers(*answer), width, height)
    x, y, w, h = found.bbox
    assert found.bbox.dtype == np.float64 and 0 <= found.score <= 1
    assert 10 <= w <= max(width, 10) and 10 <= h <= max(height, 10)
    assert -1e-9 <= x + w / 2 <= width + 1e-9 and -1e-9 <= y + h / 2 <= height + 1e-9
    tracker.track(image)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.floats(60, 80), st.floats(60, 80), st.floats(12, 60), st.floats(12, 60)),
    st.integers(-3, 3),
    st.integers(-3, 3),
    st.floats(0.7, 1.4),
)
def test_the_box_follows_the_answer_in_image_pixels(network, start, down, right, growth):
    """A target seen so many cells away moves so many px; its size moves by the square of the rate."""
    tracker = OceanTracker(network, CPU, window_influence=0.0, penalty_k=0.1, **SIZES)
    box = np.array(start)
    tracker.initialize(np.zeros((400, 400, 3), np.uint8), box)
    scale = 63 / np.sqrt((box[2] + box[2:].mean()) * (box[3] + box[2:].mean()))
    outputs = answers(*(box[2:] * scale * growth).tolist(), MAP // 2 + down, MAP // 2 + right)
    found = told(tracker, outputs, 400, 400)
    moved = found.bbox[:2] + found.bbox[2:] / 2 - box[:2] - box[2:] / 2
    assert np.allclose(moved, np.array([right, down]) * 8 / scale, atol=1e-3)
    assert found.score == pytest.approx(1 / (1 + np.exp(-6.0)), abs=1e-5)
    rate = found.score * 0.765 * np.exp(-0.1 * (max(growth, 1 / growth) - 1))
    assert np.allclose(found.bbox[2:] / box[2:], 1 + rate**2 * (growth - 1), atol=1e-4)


def test_penalty_and_window_choose_between_equals(network):
    box = np.array([100.0, 100.0, 30.0, 20.0])

    def chosen(outputs, **options) -> np.ndarray:
        tracker = OceanTracker(
            network, CPU, **{"window_influence": 0.0, "penalty_k": 0.0, **options}, **SIZES
        )
        tracker.initialize(np.zeros((400, 400, 3), np.uint8), box)
        return np.sign(np.rint(told(tracker, outputs, 400, 400).bbox[:2] - box[:2]))

    far, near = answers(30, 20, 2, 2), answers(30, 20, 4, 6, logit=5.0)
    both = {name: torch.maximum(far[name], near[name]) for name in far}
    assert chosen(both).tolist() == [-1, -1]
    assert chosen(both, window_influence=0.4).tolist() == [1, -1]
    scale = 63 / np.sqrt((30 + 25) * (20 + 25))
    both["pred_boxes"] = both["pred_boxes"].clone()
    both["pred_boxes"][..., 2, 2] = torch.tensor([50.0, 5.0, 50.0, 5.0])
    both["pred_boxes"][..., 4, 6] = torch.tensor([15.0, 10.0, 15.0, 10.0]) * scale
    assert chosen(both, penalty_k=0.1).tolist() == [1, -1]


@pytest.mark.parametrize(
    "box", [(1, 2, 0, 5), (1, 2, 3, -1), (float("nan"), 2, 3, 4), (1, 2, 3), (5000, 2, 3, 4)]
)
def test_no_box_in_the_image_is_an_error(network, video, box):
    with pytest.raises(UserError, match="initial box"):
        OceanTracker(network, CPU, **SIZES).initialize(video[0], np.array(box))


def test_a_diverged_network_is_an_error(network, video):
    tracker = OceanTracker(network, CPU, **SIZES)
    for parameter in tracker.network.parameters():
        parameter.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        run(tracker, video)


def test_small_targets_may_have_a_larger_search_crop(network, video):
    tracker = OceanTracker(network, CPU, small_target_search_size=143, **SIZES)
    sides = []
    for box in ((40.0, 30.0, 6.0, 7.0), (40.0, 30.0, 7.0, 7.0)):  # 0.4 % of the image are 43.2 px
        run(tracker, video[:2], box)
        tracker.bbox = np.array(box)
        sides.append(int(tracker.search_geometry().side) / float(tracker.template_geometry().side))
    assert sides == pytest.approx([143 / 63, 127 / 63], rel=0.05)
    run(tracker, video, (40.0, 30.0, 6.0, 7.0))


# -- checkpoints ----------------------------------------------------------------------------------


def test_our_checkpoints_bring_network_and_sizes(tmp_path, network, video):
    path = checkpoint(tmp_path / "Ocean_ep0003_s.pth.tar", network)
    tracker = build_tracker("ocean", path, get_defaults(), CPU)
    assert (tracker.template_size, tracker.search_size, tracker.template_factor) == (63, 127, 2.5)
    assert not tracker.raw_bgr
    same = OceanTracker(network, CPU, template_factor=2.5, **SIZES)
    assert all(np.array_equal(a.bbox, b.bbox) for a, b in zip(run(tracker, video), run(same, video)))
    options = get_defaults()
    options.override(["tracker.penalty_k", "0.3", "tracker.lr", "0.5"])
    tracker = build_tracker("ocean", path, options, CPU)
    assert (tracker.penalty_k, tracker.lr, tracker.search_size) == (0.3, 0.5, 127)


def test_checkpoints_of_spot_bring_the_published_network(tmp_path):
    """Their constructor names foreign classes and arguments, which count for nothing."""
    path = tmp_path / "Ocean_ep0350_t.pth.tar"
    weights = build_network("ocean").state_dict()
    torch.save({"net": weights, "net_type": "Ocean", "net_info": None, "constructor": None}, path)
    tracker = build_tracker("ocean", path, get_defaults(), CPU)
    sizes = (tracker.template_size, tracker.search_size, tracker.small_target_search_size)
    assert sizes == (127, 255, 255) and not tracker.raw_bgr
    assert tracker.network.connect_model.log_limit == 4.7
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    assert torch.equal(tracker._input(image[None]), normalise(torch.from_numpy(image)[None]))


@pytest.mark.parametrize("align", [True, False])
def test_checkpoints_of_trackit_bring_their_own_input(tmp_path, video, align):
    args = {"backbone": "ocean_resnet50_online" if align else "ocean_resnet50", "align": align}
    weights = build_network("ocean", {**args, "iou_head": False}).state_dict()
    weights["connect_model.bbox_pred.weight"].zero_()  # random ones say boxes beyond all numbers
    path = tmp_path / "OceanV.pth"
    torch.save({"state_dict": {f"module.{name}": value for name, value in weights.items()}}, path)
    options = get_defaults()
    options.override(["tracker.window_influence", "0.118"])
    tracker = build_tracker("ocean", path, options, CPU)
    assert (tracker.search_size, tracker.small_target_search_size) == (255, 271)
    assert (tracker.window_influence, tracker.lr) == (0.118, 0.765)
    network = tracker.network
    assert (network.align_head is not None) == align == ("layeronline" in network.features.stages)
    assert network.connect_model.log_limit is None
    image = video[0][:8, :8]
    crop = tracker._input(image[None])
    assert crop.dtype == torch.float32
    assert torch.equal(crop, torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float())
    found = run(tracker, video[:2], (40.0, 30.0, 5.0, 5.0))
    assert np.isfinite(found[0].bbox).all()


def test_wrong_input_is_one_clear_line(tmp_path, network):
    path = checkpoint(tmp_path / "a.pth.tar", network)

    def message(file, *pairs) -> str:
        options = get_defaults()
        options.override(list(pairs))
        with pytest.raises(UserError) as error:
            build_tracker("ocean", file, options, CPU)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "did you mean 'penalty_k'" in message(path, "tracker.penalty", "0.3")
    assert "did you mean 'bfloat16'" in message(path, "tracker.precision", "bfloat")
    other = checkpoint(tmp_path / "b.pth.tar", build_network("ocean", {**ARGS, "hidden_dim": 32}))
    assert "other shapes" in message(other) and "b.pth.tar" in message(other)
    args = {
        "backbone": "tiny",
        "hidden_dim": 16,
        "nheads": 2,
        "dim_feedforward": 32,
        "featurefusion_layers": 1,
    }
    transt = build_network("transt", args)
    recipe = {"name": "transt", "args": args}
    wrong = checkpoint(tmp_path / "c.pth.tar", transt, constructor=recipe)
    assert "holds network 'transt'" in message(wrong)
    torch.save({"net": transt.state_dict(), "net_type": "TransT"}, tmp_path / "d.pth.tar")
    assert "another network than Ocean" in message(tmp_path / "d.pth.tar")
