"""The DiMP family's trackers and ATOM: built from checkpoints, and what holds of every answer."""

from __future__ import annotations

import contextlib
import functools

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks._plain_online import PlainATOM, PlainDiMP
from config.defaults import get_defaults
from config.errors import UserError
from ltr.models.registry import build_network
from pysot_toolkit.trackers import atom, dimp
from pysot_toolkit.trackers.base import TRACKERS, build_tracker, twin
from pysot_toolkit.trackers.online.localize import Flag
from pysot_toolkit.trackers.online.parameters import overridden
from tests.ops.test_optimization import Waits

CPU = torch.device("cpu")
NETWORK = {
    **{name: "atom_resnet18" for name in atom.PARAMETERS},
    **{n: k for n, (k, _) in dimp.PARAMETERS.items()},
}
SMALL = {"sample_size": 96, "memory_size": 40, "initial_iterations": 12, "refine_random_boxes": 3}
STILL = {**SMALL, "refine_random_boxes": 0, "refine_step": (0.0, 0.0)}  # the classifier decides alone
FOUND = {"locate_not_found": -1e9, "locate_distractor": 1e9, "locate_hard_negative": 1e9}
ONE_EACH = ("atom", "dimp50", "prdimp50", "super_dimp_simple")


@functools.cache
def network(name: str):
    torch.manual_seed(0)
    args = {"backbone": "ltr_tiny"}
    if NETWORK[name] != "atom_resnet18":
        args |= {"out_feature_dim": 32, "frozen_backbone_layers": ()}
    return build_network(NETWORK[name], args)


def tracker(name: str, **changes):
    kind = TRACKERS.get(name)
    return kind(network(name), CPU, overridden(kind.defaults, {**SMALL, **changes}))


def smooth(rng, *size):
    noise = cv2.GaussianBlur(rng.integers(0, 256, (*size, 3), np.uint8), (9, 9), 3)
    return cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)


@functools.cache
def video() -> tuple[np.ndarray, np.ndarray]:
    """Six frames in which a patch of noise moves over other noise, and its boxes."""
    rng = np.random.default_rng(0)
    background, target = smooth(rng, 160, 220), smooth(rng, 40, 48)
    frames, boxes = np.repeat(background[None], 6, 0), []
    for number, frame in enumerate(frames):
        x, y = 70 + 5 * number, 60 + 3 * number
        frame[y : y + 40, x : x + 48] = target
        boxes.append([x, y, 48, 40])
    return frames, np.array(boxes, np.float64)


def run(found, frames=None, bbox=None):
    frames = video()[0] if frames is None else frames
    found.initialize(frames[0], video()[1][0] if bbox is None else np.array(bbox))
    return [found.track(frame) for frame in frames[1:]]


def same(first, second) -> bool:
    return all(np.array_equal(a.bbox, b.bbox) and a.score == b.score for a, b in zip(first, second))


@pytest.mark.parametrize("name", sorted(NETWORK))
def test_every_parameter_set_answers(name):
    found = tracker(name)
    assert found.name == name
    for answer in run(found, video()[0][:4]):
        assert answer.bbox.dtype == np.float64 and np.isfinite(answer.bbox).all()
        assert 0 <= answer.score <= 1 and answer.lost == (
            found.parameters.locate.not_found > 0 and answer.score < 0.5
        )


@pytest.mark.parametrize("name", ["atom", "atom_vot", "super_dimp_simple"])
def test_what_is_learned_from_one_frame_finds_the_target_in_the_next(name):
    found = tracker(
        name, **{**STILL, **FOUND, "border": "replicate", "sample_size": 160, "search_factor": 4.0}
    )
    last = run(found)[-1]
    first, box = video()[1][[0, -1]]
    cell = 16 * found.scale  # of the score map, px of the image
    assert np.abs(last.bbox - box).max() < cell < np.abs(first - box).max()


@pytest.mark.parametrize("name", ONE_EACH)
def test_the_seed_decides_and_nothing_else(name):
    found = tracker(name, **FOUND)
    torch.manual_seed(1)
    first = run(found)
    run(found, video()[0][::-1], (20.0, 30.0, 60.0, 50.0))
    torch.manual_seed(2)
    assert same(first, run(found)) and same(first, run(tracker(name, **FOUND)))
    assert not same(first, run(tracker(name, **FOUND, seed=1)))


@pytest.mark.parametrize("name", ONE_EACH)
def test_tracking_leaves_the_network_as_it_was(name):
    given_network = network(name).train()
    before = {key: value.clone() for key, value in given_network.state_dict().items()}
    run(tracker(name, precision="bfloat16"))
    assert any(p.requires_grad for p in given_network.parameters()) and given_network.training
    assert all(torch.equal(value, before[key]) for key, value in given_network.state_dict().items())


@pytest.mark.parametrize("name", ONE_EACH)
def test_bfloat16_answers_nearly_the_same(name):
    exact, rounded = (run(tracker(name, **STILL, **FOUND, precision=p))[0] for p in ("float32", "bfloat16"))
    assert np.abs(exact.bbox - rounded.bbox).max() < 2 and abs(exact.score - rounded.score) < 0.05


@pytest.mark.parametrize("name", ONE_EACH)
def test_a_lost_target_stays_where_it_was_and_nothing_is_learned(name):
    found = tracker(name, locate_not_found=1e9)
    answers = run(found)
    assert all(answer.lost and np.allclose(answer.bbox, video()[1][0]) for answer in answers)
    assert found.memory.weights.stored == found.memory.weights.initial


@pytest.mark.parametrize(
    ("changes", "flag", "stored", "learned"),
    [
        ({"update_interval": 2}, Flag.NORMAL, 5, [2, 2]),
        ({"locate_hard_sample": 1e9}, Flag.HARD_NEGATIVE, 5, [1] * 5),
        ({"locate_uncertain": 1e9, "update_interval": 1}, Flag.UNCERTAIN, 0, []),
    ],
)
def test_what_is_learned_when(changes, flag, stored, learned):
    found = tracker("dimp50", **FOUND, **changes)
    calls: list[int] = []
    found.learn = calls.append
    run(found)
    assert found.flag == flag and calls == learned
    assert found.memory.weights.stored - found.memory.weights.initial == stored


@pytest.mark.parametrize("name", ONE_EACH)
def test_learning_never_waits_for_the_device(name):
    found = tracker(name, **FOUND)
    run(found, video()[0][:2])
    before = found.filter.clone()
    with Waits(), torch.no_grad():
        found.learn(3)
    assert not torch.equal(found.filter, before)


@pytest.mark.parametrize("name", ["atom", "dimp50"])
def test_boxes_follow_the_resolution_of_the_video(name):
    frames = video()[0]
    large = [cv2.resize(frame, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR) for frame in frames]
    plain, mixed = (
        run(tracker(name, **STILL, **FOUND), [*frames[:3], *rest]) for rest in (frames[3:], large[3:])
    )
    assert same(plain[:2], mixed[:2])
    assert np.abs(plain[2].bbox * 2 - mixed[2].bbox).max() < 16  # px of an image twice as large: half a cell


@settings(max_examples=20, deadline=None)
@example((0.0, 0.0, 1.0, 10.0), [(2, 2), (2, 2)], "atom")
@given(
    st.tuples(st.floats(-40, 80), st.floats(-40, 80), st.floats(1, 200), st.floats(1, 200)),
    st.lists(st.tuples(st.integers(2, 90), st.integers(2, 90)), min_size=2, max_size=4),
    st.sampled_from(["atom", "dimp50", "super_dimp"]),
)
def test_answers_are_boxes_near_the_image(start, sizes, name):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    (height, width), (x, y, w, h) = sizes[0], start
    few = {"initial_iterations": 6, "augment_rotations": (), "augment_blurs": (), "sample_size": 64}
    found = tracker(name, **FOUND, **few)
    if x + w <= 0 or y + h <= 0 or x >= width or y >= height:
        with pytest.raises(UserError, match="outside the image"):
            found.initialize(frames[0], np.array(start))
        return
    for answer, frame in zip(run(found, frames, start), frames[1:]):
        limit = 2 * max(frame.shape)
        assert (answer.bbox[2:] >= 1 - 1e-9).all() and (answer.bbox[2:] <= limit + 1e-9).all()
        assert (np.abs(answer.bbox[:2]) <= 2 * limit).all()


@pytest.mark.parametrize(
    "box", [(1, 2, 0, 5), (1, 2, 3, -1), (float("nan"), 2, 3, 4), (500, 2, 30, 40), (-50, 2, 30, 40)]
)
def test_no_box_in_the_image_is_an_error(box):
    with pytest.raises(UserError, match="initial box"):
        run(tracker("dimp50"), bbox=box)


def test_a_diverged_network_is_an_error():
    found = tracker("dimp50")
    for parameter in found.network.classifier.feature_extractor.parameters():
        parameter.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        run(found)


def checkpoint(path, name, **entries):
    args = {"backbone": "ltr_tiny"}
    if NETWORK[name] != "atom_resnet18":
        args |= {"out_feature_dim": 32, "frozen_backbone_layers": []}
    content = {
        "format": 1, "epoch": 3, "net_type": "DiMPnet", "net": network(name).state_dict(),
        "constructor": {"name": NETWORK[name], "args": args},
        "settings": {"data": {"search_size": 96, "search_factor": 4.0}}, **entries,
    }  # fmt: skip
    torch.save(content, path)
    return path


@pytest.mark.parametrize("name", ONE_EACH)
def test_our_checkpoints_bring_network_and_sizes(tmp_path, name):
    options = get_defaults()
    options.override(["tracker.memory_size", "40", "tracker.augment_rotations", "[5]", "tracker.seed", "3"])
    found = build_tracker(name, checkpoint(tmp_path / "net.pth.tar", name), options, CPU)
    p = found.parameters
    assert (p.sample_size, p.search_factor, p.memory_size, p.seed) == (96, 4.0, 40, 3)
    assert p.augment.rotations == (5,) and p.learning_rate == found.defaults.learning_rate
    kept = tracker(name, search_factor=4.0, seed=3, augment_rotations=(5,), initial_iterations=p.initial_iterations,
                   refine_random_boxes=p.refine.random_boxes)  # fmt: skip
    assert same(run(found), run(kept))


@pytest.mark.parametrize("name", ["dimp18", "prdimp18", "atom"])
@pytest.mark.parametrize("named", [True, False])
def test_published_checkpoints_bring_the_published_network(tmp_path, name, named):
    weights = build_network(NETWORK[name]).state_dict()
    constructor = {
        "fun_name": NETWORK[name],
        "fun_module": "ltr.models",
        "args": [],
        "kwds": {"backbone_pretrained": True},
    }
    torch.save({"net": weights, "constructor": constructor if named else None}, tmp_path / "net.pth")
    found = build_tracker(name, tmp_path / "net.pth", get_defaults(), CPU)
    assert found.parameters == found.defaults


def test_wrong_input_is_one_clear_line(tmp_path):
    path = checkpoint(tmp_path / "a.pth.tar", "dimp50")

    def message(arch, file, *pairs) -> str:
        options = get_defaults()
        options.override(list(pairs))
        with pytest.raises(UserError) as error:
            build_tracker(arch, file, options, CPU)
        return str(error.value)

    assert "did you mean 'dimp50'" in message("dimp5", path)
    assert "did you mean 'refine_iterations'" in message("dimp50", path, "tracker.refine_iteration", "3")
    assert "must be at least 1" in message("dimp50", path, "tracker.refine_iterations", "0")
    assert "between 0 and 1" in message("dimp50", path, "tracker.learning_rate", "1.5")
    assert "memory_size" in message("dimp50", path, "tracker.memory_size", "many")
    assert "did you mean 'inside_major'" in message("dimp50", path, "tracker.border", "insidemajor")
    assert "did you mean 'bfloat16'" in message("dimp50", path, "tracker.precision", "bfloat")
    assert "holds a DiMPnet, which the tracker atom cannot run" in message("atom", path)
    other = checkpoint(tmp_path / "b.pth.tar", "atom")
    assert "holds a ATOMnet, which the tracker dimp18 cannot run" in message("dimp18", other)
    damaged = checkpoint(
        tmp_path / "c.pth.tar", "dimp50", net={"feature_extractor.conv.weight": torch.zeros(3)}
    )
    assert "another network than DiMPnet" in message("dimp50", damaged)


@pytest.mark.parametrize("name", ["atom", "dimp50"])
def test_the_published_formulation_gives_the_same_boxes(name):
    """What the benchmark of tracking measures against is the same tracker, and an update gives the same filter."""
    found = tracker(name, **FOUND, update_interval=2)
    plain = (PlainATOM if name == "atom" else PlainDiMP)(network(name), CPU, found.parameters)
    for ours, theirs in zip(run(found), run(plain)):
        assert np.abs(ours.bbox - theirs.bbox).max() < 0.05 and abs(ours.score - theirs.score) < 1e-3
    plain.memory, plain.filter = found.memory, found.filter.clone()
    before = found.filter
    found.learn(3)
    plain.learn(3)
    assert (found.filter - plain.filter).norm() < 1e-3 * (found.filter - before).norm()


@pytest.mark.parametrize("name", ONE_EACH)
def test_only_the_move_changes_a_tracker(name):
    """Of twins neither: nothing that the answers depend on, also where the video changes its resolution."""
    frames = video()[0]
    frames = [*frames[:3], *(cv2.resize(frame, None, fx=1.5, fy=2) for frame in frames[3:])]
    expected = run(tracker(name, **FOUND), frames)
    found, other = (twin(tracker(name, **FOUND)) for _ in range(2))
    found.initialize(frames[0], video()[1][0])
    other.initialize(frames[0], np.array([20.0, 30.0, 60.0, 50.0]))
    answers = []
    for frame in frames[1:]:
        for image in (*frames, frame):
            crops = [each.crop(image) for each in (other, found)]
            other.locate([other, found], crops)
        answers.append(found.move(found.locate([found], crops[1:])[0], frame.shape[1], frame.shape[0]))
    assert same(answers, expected) and found.frame == len(frames)


@pytest.mark.parametrize("name", [*ONE_EACH, "prdimp50_vot18"])
def test_a_frame_waits_for_the_device_twice(monkeypatch, name):
    """Without values, as on the meta device, the host can ask for none but those of the copies it makes; and several
    targets share a pass of the backbone and the copies of their score maps."""
    kind = TRACKERS.get(name)
    found = kind(
        network(name),
        torch.device("meta"),
        overridden(kind.defaults, {**SMALL, **FOUND, "update_interval": 1}),
    )
    copies: list[tuple[int, ...]] = []

    def cpu(self: torch.Tensor) -> torch.Tensor:
        copies.append(tuple(self.shape))
        return torch.zeros(self.shape)

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # meta has none
    images: list[tuple[int, ...]] = []
    extract = found.network.extract_backbone
    monkeypatch.setattr(
        found.network, "extract_backbone", lambda pixels: (images.append(pixels.shape), extract(pixels))[1]
    )
    twins = [found, twin(found)]
    for each in twins:
        each.initialize(video()[0][0], video()[1][0])
    assert not copies
    found.track(video()[0][1])
    maps, answers = copies[:-1], copies[-1]
    assert len(maps) == 1 + (name == "prdimp50_vot18")
    assert answers == (1 + found.parameters.refine.random_boxes, 5)
    assert all(count == 1 and rows == columns for count, rows, columns in maps)
    assert found.memory.weights.stored == found.memory.weights.initial + 1

    copies.clear()
    images.clear()
    for each, one in zip(twins, found.locate(twins, [each.crop(video()[0][1]) for each in twins])):
        each.move(one, 220, 160)
    assert images == [(2, 3, 96, 96)]
    assert copies == [(2, *sides) for _, *sides in maps] + [answers] * 2
