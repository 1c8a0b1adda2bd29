"""Parity of ATOM, DiMP, PrDiMP and SuperDiMP: networks, filter optimisation, layers, checkpoints."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from ltr.admin.checkpoint_reader import read_checkpoint
from ltr.models.layers.activation import BentIdentPar, LeakyReLUPar, mlu, softmax_reg
from ltr.models.layers.distance import radial_functions
from ltr.models.layers.filter import apply_filter, apply_transpose
from ltr.models.layers.normalization import InstanceL2Norm
from ltr.models.loss.kl import KLRegression, KLRegressionGrid
from ltr.models.loss.target import LBHinge
from ltr.models.registry import build_network
from ltr.models.tracking.dimp import published_args
from tests.parity.cases import Comparison, inputs_of

# What a case's build says beside the arguments of a constructor.
DESCRIPTIONS = {
    "mode",
    "backbone",
    "bb_regressor_layer",
    "classification features",
    "reference pooling",
    "test pooling",
}


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
    """The network of a case, built as its ``build`` says, with the weights of manifest and salt; evaluating."""
    manifest, case, _ = kit.load(folder)
    build = {key: value for key, value in case["build"].items() if key not in DESCRIPTIONS}
    network = build_network(build.pop("constructor"), published_args(build))
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


def label_maps(bboxes: torch.Tensor, image: int, rule: str) -> torch.Tensor:
    """Gaussian labels of boxes ``[F, S, 4]`` as a case's ``call`` describes them, ``[F, S, cells + 1, cells + 1]``."""
    found = re.search(r"sigma = ([\d.]+) \* (\d+) feature cells", rule)
    assert found
    cells = int(found[2])
    sigma = float(found[1]) * cells
    middle = (bboxes[..., :2] + bboxes[..., 2:] / 2 - image / 2) / image * cells + 0.5
    places = torch.arange(cells + 1) - (cells - 1) / 2
    across, down = (torch.exp(-0.5 * ((places - middle[..., axis, None]) / sigma) ** 2) for axis in (0, 1))
    return down[..., :, None] * across[..., None, :]


def training_loss(
    case: dict,
    compare: Comparison,
    given: dict[str, torch.Tensor],
    scores: torch.Tensor,
    proposals: torch.Tensor,
    label: torch.Tensor,
) -> torch.Tensor:
    """The loss that the case describes, with each of its terms compared; weights are read from its words."""
    words = next(entry["meaning"] for entry in case["outputs"] if entry["name"] == "loss")
    box, last, first = (float(number) for number in re.findall(r"([\d.]+) \* [A-Z]+\(", words)[:3])
    found = re.search(r"([\d.]+)/(\d)", words)
    assert found and int(found[2]) == len(scores) - 2
    between = float(found[1])

    classify: Any
    if "test_label_density" in compare.golden:
        density = label / label.sum((-2, -1), keepdim=True)
        compare.check("test_label_density", density)
        label, classify, names = density, KLRegressionGrid(), ("clf_ce", "clf_ce_init", "clf_ce_iter")
        plain = names
    else:
        found = re.search(r"(?:label <|threshold) ([\d.]+)", words)
        assert found
        classify = LBHinge(threshold=float(found[1]))
        names = ("target_clf", "test_init_clf", "test_iter_clf")
        plain = ("test_loss", "test_init_loss", "test_iter_loss")
    each = [classify(score, label) for score in scores]
    means = (each[-1], each[0], sum(each[1:-1]) / len(each[1:-1]))

    if "proposal_iou" in given:
        term = box * nn.functional.mse_loss(proposals, given["proposal_iou"])
        compare.check("stat_Loss_iou", term)
    else:
        divergence = KLRegression()(proposals, given["proposal_density"], given["gt_density"])
        term = box * divergence
        compare.check("stat_Loss_bb_ce", divergence)
        compare.check("stat_Loss_loss_bb_ce", term)
    total = term
    for weight, mean, name, bare in zip((last, first, between), means, names, plain):
        total = total + weight * mean
        compare.check(f"stat_Loss_{name}", weight * mean)
        compare.check(f"stat_ClfTrain_{bare}", mean)
    compare.check("stat_Loss_total", total)
    return total


def dimp_network(folder, kit) -> None:
    """Filter and scores after every iteration, box scores, training loss and its gradients."""
    _, case, golden = kit.load(folder)
    compare, given = comparison(case, golden, kit), tensors(case, kit)
    network: Any = load_network(folder, kit)
    network.set_trainable(("stem", "layer1", "layer2", "layer3"))
    train, test, train_bb = given["train_imgs"], given["test_imgs"], given["train_bb"]
    train_label = None
    if "train_label" in golden:
        train_label = label_maps(train_bb, train.shape[-1], case["call"])
        compare.check("train_label", train_label)

    outputs = network(train, test, train_bb, given["test_proposals"], train_label)
    scores, proposals = outputs["target_scores"], outputs["proposal_scores"]
    compare.check("bb_pred", proposals)
    for number, score in enumerate(scores):
        compare.check(f"scores_{number}", score)

    with torch.no_grad():
        features = network.extract_backbone(train.flatten(0, 1))
        classified = network.classification_features(features).unflatten(0, train.shape[:2])
        compare.check("clf_feat_train", classified)
        fitted = network.classifier.get_filter(classified, train_bb, labels=train_label)
        assert torch.equal(fitted.filter, fitted.filters[-1])
        for number, filter in enumerate(fitted.filters):
            compare.check(f"filter_{number}", filter)
        losses = fitted.losses.mean(1)
        if case["build"]["constructor"] == "dimpnet50_simple":  # there reported as a mean over all residuals
            losses = losses / (train_label[:, 0].numel() + fitted.filter[0].numel())
        compare.check("filter_losses", losses)
        first = {layer: value[: train.shape[1]] for layer, value in features.items()}
        check_modulation(network, compare, network.iou_features(first), train_bb[0])

    label = label_maps(given["test_bb"], test.shape[-1], case["call"])
    if "test_label" in golden:
        compare.check("test_label", label)
    loss = training_loss(case, compare, given, scores, proposals, label)
    compare.check("loss", loss)
    Gradients(network, compare).check(loss)
    compare.finish()


def number_in(compare: Comparison, output: str, before: str) -> float:
    """The number behind the words ``before`` in what a case says about an output."""
    found = re.search(rf"{before}\s*=?\s*\(?([\d.]*\d)", compare.outputs[output]["meaning"])
    assert found
    return float(found[1])


def layers(folder, kit) -> None:
    """Filters and their transposes, functions of the distance, activations, normalisation."""
    _, case, golden = kit.load(folder)
    compare, given = comparison(case, golden, kit), tensors(case, kit)
    features, filters = given["feat"], given["filters"]
    compare.check("apply4", apply_filter(features, given["filter4"]))
    compare.check("apply3", apply_filter(features, given["filter3"]))
    compare.check("apply_multi", apply_filter(features, filters))
    first = int(number_in(compare, "apply_dilated", "the first"))
    parts = (
        apply_filter(features, part, dilation)
        for dilation, part in ((1, filters[:, :first]), (2, filters[:, first:]))
    )
    compare.check("apply_dilated", torch.cat(list(parts), 2))
    compare.check("apply1", apply_filter(features[:1], given["filter1"]))
    compare.check("apply_multi1", apply_filter(features[:1], given["filters1"]))
    compare.check("transpose4", apply_transpose(features, given["act4"], (4, 4)))
    compare.check("transpose3", apply_transpose(features, given["act3"], (3, 3)))
    compare.check("transpose_multi", apply_transpose(features, given["act_multi"], (3, 3)))
    residual = apply_filter(features, given["filter4"]) - given["label"]
    compare.check("gradient", apply_transpose(features, residual, (4, 4)))

    _, bins, *size = compare.outputs["distance_map"]["shape"]
    spacing = number_in(compare, "distance_map", "spacing")
    maps = radial_functions(torch.eye(bins), spacing, given["centers"], (size[0], size[1]))
    compare.check("distance_map", maps.transpose(0, 1))

    x, a = given["x"], given["a"]
    bent = BentIdentPar(number_in(compare, "bent_par", "b"))
    for name, activation in (("leaky_relu_par", LeakyReLUPar()), ("bent_par", bent)):
        compare.check(name, activation.value(x, a))
        compare.check(f"{name}_deriv", activation.slope(x, a))
    compare.check("mlu", mlu(x, number_in(compare, "mlu", "MLU")))
    compare.check("softmax", softmax_reg(x, 1))
    compare.check("softmax_reg", softmax_reg(x, 1, number_in(compare, "softmax_reg", "reg")))
    for name, mean in (("l2norm", True), ("l2norm_sum", False)):
        compare.check(name, InstanceL2Norm(number_in(compare, name, r"x \*"), mean=mean)(given["y"]))
    compare.finish()


def legacy_checkpoint(folder, kit) -> None:
    """Everything of LTR's files, in each of their containers; nothing of the reference is importable."""
    _, case, golden = kit.load(folder)
    build = case["build"]
    names = build["constructor attributes"]
    for name, description in build["files"].items():
        compare = comparison(case, golden, kit)
        found = read_checkpoint(folder / name, training=True)
        assert (found.epoch, found.net_type) == (build["epoch"], build["net_type"])
        assert found.constructor and found.optimizer and found.stats and found.settings
        assert found.constructor["kwds"] == names["kwds"] and found.constructor["args"] == names["args"]
        assert found.constructor["fun_name"] == names["fun_name"]
        assert set(found.constructor["fun_module"].split(".")) >= set(names["fun_module"].split("."))
        assert {key: list(value.shape) for key, value in found.net.items()} == build["net"]
        assert found.settings.items() >= build["settings attributes"].items()
        classes = description["classes referenced by the pickle"]
        assert {c for c in classes if not c.startswith(("torch.", "collections."))} == set(found.left_out)
        for key, history in build["stats values"].items():
            loader, _, rest = key.removesuffix(" history").partition("/")
            assert found.stats[loader][rest]["history"] == history
        for key, value in found.net.items():
            compare.check(f"net.{key}", value)
        compare.check("optimizer.lr", [group["lr"] for group in found.optimizer["param_groups"]])
        for number, state in found.optimizer["state"].items():
            compare.check(f"optimizer.exp_avg_{number}", state["exp_avg"])
        compare.finish()

        network = build_network(found.constructor["fun_name"], published_args(found.constructor["kwds"]))
        own = {key: value.shape for key, value in network.state_dict().items()}
        assert {key: value.shape for key, value in found.net.items()}.items() <= own.items()


HANDLERS = {
    "ltr_layers": layers,
    "atom_resnet18": atom_network,
    **dict.fromkeys(
        ("dimp18", "dimp50", "prdimp18", "prdimp50", "super_dimp", "super_dimp_simple"), dimp_network
    ),
    "legacy_checkpoint_pytracking": legacy_checkpoint,
}
