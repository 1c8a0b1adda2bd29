"""Parity of Ocean: network and tracker."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch

from ltr.data.augment import MEAN, STD, normalise
from ltr.data.crop import cut
from ltr.models.layers.anchor_free import align_offsets, corners
from ltr.models.registry import build_network
from ltr.models.tracking.ocean import Ocean
from pysot_toolkit.trackers.base import Prediction
from pysot_toolkit.trackers.ocean import OceanTracker
from tests.parity.cases import Comparison, inputs_of, one


def load_network(folder, kit) -> Ocean:
    """Ocean with the weights of a case's manifest and salt, in evaluation mode."""
    manifest, case, _ = kit.load(folder)
    names = {entry["name"] for entry in manifest["entries"]}
    args: dict = {"iou_head": any(name.startswith("connect_model.iou_pred.") for name in names)}
    if any(".layeronline." in name for name in names):
        args |= {"backbone": "ocean_resnet50_online", "log_limit": None}
    network = build_network("ocean", args)
    missing, unexpected = network.load_state_dict(kit.state_dict(manifest, case["salt"]), strict=False)
    buffers = {entry["name"] for entry in manifest["entries"] if entry["kind"] == "buffer"}
    assert not unexpected and set(missing) <= buffers
    assert isinstance(network, Ocean)
    return network.eval()


def ocean_forward(folder, kit) -> None:
    """Every stage of the network, from the backbone to the heads; the online branch where the case has it."""
    _, case, golden = kit.load(folder)
    compare, inputs = Comparison(case, golden, kit), inputs_of(case, kit)
    network = load_network(folder, kit)
    template = torch.from_numpy(one(inputs, "/template"))
    search = torch.from_numpy(one(inputs, "/search"))

    seen: dict[str, list] = {}

    def watch(name: str, module: torch.nn.Module) -> None:
        module.register_forward_hook(lambda _, __, output: seen.setdefault(name, []).append(output.clone()))

    connect = network.connect_model
    parts = {
        "backbone": network.features,
        "neck": network.neck,
        "cls_dw": connect.cls_dw,
        "reg_dw": connect.reg_dw,
    }
    for name, module in {**parts, "bbox_tower": connect.bbox_tower}.items():
        watch(name, module)
    assert network.align_head is not None
    watch("align_conv", network.align_head.rpn_conv)
    with torch.inference_mode():
        outputs = network(template, search)

    found = {
        **{f"backbone_{part}": value for part, value in zip(("template", "search"), seen["backbone"])},
        **{f"neck_{part}": value for part, value in zip(("template", "search"), seen["neck"])},
        "template_feature": seen["neck"][0],
        **{name: seen[name][0] for name in ("cls_dw", "reg_dw", "bbox_tower")},
        "align_conv": seen["align_conv"][0].relu(),
        "offsets": align_offsets(outputs["pred_boxes"]).flatten(2).transpose(1, 2),
        "bbox_pred_to_img": corners(outputs["pred_boxes"], search.shape[-1]),
        **outputs,
    }
    if "online_feature" in golden:
        with torch.inference_mode():
            found["online_feature"] = network.features.online_features(search)
    for name in golden:
        if name.endswith("_dev"):
            whole = found[name.removesuffix("_dev")].double()
            compare.check(name, whole - whole.mean((2, 3), keepdim=True))
        else:
            compare.check(name, found[name])
    compare.finish()


class Recorder(OceanTracker):
    """The tracker, remembering of every frame what the case asks for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: dict[str, list] = {}

    def move(self, found: np.ndarray, width: int, height: int) -> Prediction:
        """As ``OceanTracker.move``."""
        side = self.search_geometry().side
        prediction = super().move(found, width, height)
        for name, value in zip(("boxes", "best", "side"), (prediction.bbox, prediction.score, side)):
            self.seen.setdefault(name, []).append(value)
        return prediction


def ocean_tracker(folder, kit) -> None:
    """Crops, box update from given outputs, and tracking with the network."""
    _, case, golden = kit.load(folder)
    compare, inputs, build = Comparison(case, golden, kit), inputs_of(case, kit), case["build"]
    assert [list(MEAN), list(STD)] == [build["mean"], build["std"]]
    names = ("penalty_k", "window_influence", "lr", "ratio", "template_size", "search_size")
    factor = 1 + 2 * build["context"]
    tracker = Recorder(
        load_network(folder, kit),
        torch.device("cpu"),
        template_factor=factor,
        **{name: build[name] for name in names},
    )
    start = one(inputs, "init_box")

    still = _image(one(inputs, "/crop_image"))
    geometry = []
    for number, box in enumerate(one(inputs, "crop_boxes")):
        tracker.bbox = np.array(box, np.float64)
        places = {"template": tracker.template_geometry(), "search": tracker.search_geometry()}
        for part, place in places.items():
            pixels = cut(still, place, build[f"{part}_size"], still.mean((0, 1)))
            compare.check(f"crop{number}_{part}", pixels.transpose(2, 0, 1), levels=1)
        geometry.append([number for place in places.values() for number in place[:3]])
    compare.check("geometry", np.array(geometry))

    tracker.initialize(still, start)
    for number in range(sum("/post_cls" in name for name in inputs)):
        ends = {"pred_logits": "cls", "pred_boxes": "boxes", "align_logits": "align"}
        outputs = {name: torch.from_numpy(one(inputs, f"/post_{end}{number}")) for name, end in ends.items()}
        tracker.move(tracker.choose(outputs, [tracker])[0], still.shape[1], still.shape[0])
    for name, values in tracker.seen.items():
        compare.check(f"post_{name}", np.array(values))

    tracker.seen.clear()
    frames = [_image(one(inputs, f"/frame{n}")) for n in range(sum("/frame" in name for name in inputs))]
    tracker.initialize(frames[0], start)
    pad = cv2.mean(frames[0])[:3]
    template = cut(frames[0], tracker.template_geometry(), tracker.template_size, pad)
    compare.check("net_template", normalise(torch.from_numpy(template)[None])[0])
    for frame in frames[1:]:
        place = tracker.search_geometry()
        tracker.track(frame)
    for name, values in tracker.seen.items():
        compare.check(f"net_{name}", np.array(values))
    search = cut(frames[-1], place, tracker.search_size, pad)
    compare.check(f"net_search{len(frames) - 1}", normalise(torch.from_numpy(search)[None])[0])
    compare.finish()


def _image(array: np.ndarray) -> np.ndarray:
    """A generated array ``[3, H, W]`` as an image, as the case says."""
    return np.ascontiguousarray(array.astype(np.uint8).transpose(1, 2, 0))


HANDLERS = {
    "ocean_forward": ocean_forward,
    "ocean_original_forward": ocean_forward,
    "ocean_tracker": ocean_tracker,
}
