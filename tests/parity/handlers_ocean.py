"""Parity of Ocean: network and tracker."""

from __future__ import annotations

import torch

from ltr.models.layers.anchor_free import align_offsets, corners
from ltr.models.registry import build_network
from ltr.models.tracking.ocean import Ocean
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


HANDLERS = {
    "ocean_forward": ocean_forward,
    "ocean_original_forward": ocean_forward,
}
