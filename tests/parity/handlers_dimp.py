"""Parity of ATOM, DiMP, PrDiMP and SuperDiMP: networks, filter optimisation, layers, checkpoints."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from ltr.models.registry import build_network
from tests.parity.cases import Comparison, inputs_of


def comparison(case: dict, golden: dict, kit) -> Comparison:
    """A comparison by the outputs of LTR's cases, which name shape, step and tolerance in their own way."""
    outputs = []
    for entry in case["outputs"]:
        step = re.search(r"\[::(\d+)\]", entry.get("subsample", ""))
        rounding = entry.get("float32_error", 0.0)  # the cases suggest 20 times that
        rule = {"of_shape": entry["shape"], "suggested_tolerance": max(1e-4, 20 * rounding)}
        outputs.append({**entry, **rule, "subsample": step and {"step": int(step[1])}})
    return Comparison({**case, "outputs": outputs}, golden, kit)


def load_network(folder, kit) -> nn.Module:
    """The network of a case, built from its ``build``, with the weights of manifest and salt; evaluating."""
    manifest, case, _ = kit.load(folder)
    build = case["build"]
    network = build_network(build["constructor"])
    missing, unexpected = network.load_state_dict(kit.state_dict(manifest, case["salt"]), strict=False)
    buffers = {entry["name"] for entry in manifest["entries"] if entry["kind"] == "buffer"}
    assert not unexpected and set(missing) <= buffers
    return network.eval()


def tensors(case: dict, kit) -> dict[str, torch.Tensor]:
    """The inputs of a case by their short names, float32."""
    arrays = inputs_of({"inputs": [{**i, "name": i.get("name", i["key"])} for i in case["inputs"]]}, kit)
    keys = {i.get("name", i["key"]): i["key"] for i in case["inputs"]}
    return {keys[name]: torch.from_numpy(value).float() for name, value in arrays.items()}


class Gradients:
    """Checks the outputs ``grad_*`` that name a parameter."""

    def __init__(self, network: nn.Module, compare: Comparison) -> None:
        self.parameters, self.compare = dict(network.named_parameters()), compare

    def check(self, loss: torch.Tensor) -> None:
        """Compare the gradients of ``loss``."""
        names = [n.removeprefix("grad_") for n in self.compare.golden if n.startswith("grad_")]
        names = [name for name in names if name in self.parameters]
        assert names
        found = torch.autograd.grad(loss, [self.parameters[name] for name in names])
        for name, gradient in zip(names, found):
            self.compare.check(f"grad_{name}", gradient)


def check_modulation(network: Any, compare: Comparison, features, bbox: torch.Tensor) -> None:
    """Compare the modulation vectors of the IoU network."""
    for number, vector in enumerate(network.bb_regressor.get_modulation(features, bbox), 3):
        compare.check(f"modulation_{number}", vector)


def atom_network(folder, kit) -> None:
    """Backbone, both branches of the IoU network, loss and gradients."""
    _, case, golden = kit.load(folder)
    compare, given = comparison(case, golden, kit), tensors(case, kit)
    network: Any = load_network(folder, kit)
    network.set_trainable(())
    train, test = given["train_imgs"], given["test_imgs"]
    proposals = given["test_proposals"].requires_grad_()
    scores = network(train, test, given["train_bb"], proposals)["proposal_scores"]
    compare.check("iou_pred", scores)
    [to_boxes] = torch.autograd.grad(scores.sum(), proposals, retain_graph=True)
    compare.check("grad_boxes", to_boxes)
    loss = nn.functional.mse_loss(scores, given["proposal_iou"])
    compare.check("loss", loss)
    Gradients(network, compare).check(loss)

    with torch.inference_mode():
        features = network.extract_backbone(train[0])
        for layer, value in features.items():
            compare.check(f"backbone_{layer}", value)
        check_modulation(network, compare, network.iou_features(features), given["train_bb"][0])
        found = network.iou_features(network.extract_backbone(test.flatten(0, 1)))
        for number, value in enumerate(network.bb_regressor.get_iou_feat(found), 3):
            compare.check(f"iou_feat_{number}", value)
    compare.finish()


HANDLERS = {"atom_resnet18": atom_network}
