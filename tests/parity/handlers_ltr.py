"""Losses, training-data processing and transforms of the DiMP family against the published code."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltr.models.loss.bbr import GIoULoss
from ltr.models.loss.kl import KLRegression, KLRegressionGrid, MLRegression
from ltr.models.loss.segmentation import LovaszHinge, LovaszSegLoss
from ltr.models.loss.target import FocalLoss, IsTargetCellLoss, LBHinge, TrackingClassificationAccuracy


class _Case:
    """A case's inputs by key, and its outputs to compare with."""

    def __init__(self, folder: Path, kit: Any) -> None:
        _, self.case, self.golden = kit.load(folder)
        self.kit = kit
        self.outputs = {entry["name"]: entry for entry in self.case["outputs"]}
        self.inputs = {
            entry["key"]: np.array(entry["values"], np.float64)
            if "values" in entry
            else kit.array(entry["name"], tuple(entry["shape"]), entry["low"], entry["high"])
            for entry in self.case["inputs"]
        }
        self.compared: set[str] = set()

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.from_numpy(np.array(self.inputs[key], np.float32))

    def image(self) -> np.ndarray:
        return np.clip(np.rint(self.inputs["image"]), 0, 255).astype(np.uint8).transpose(1, 2, 0).copy()

    def expected(self, name: str) -> np.ndarray:
        self.compared.add(name)
        return self.golden[name]

    def check(self, name: str, actual: Any) -> None:
        """Assert that ``actual`` (whole, before subsampling) agrees with output ``name``."""
        actual, expected = self.sampled(name, actual), self.expected(name)
        entry = self.outputs[name]
        limit = 0.0 if entry.get("exact") else max(1e-4, 20 * entry.get("float32_error", 0.0))
        gap = self.kit.difference(actual.reshape(expected.shape), expected)
        assert gap <= limit, f"{name}: relative difference {gap:.2e}, allowed {limit:.0e}"

    def sampled(self, name: str, actual: Any) -> np.ndarray:
        """The elements of an output that are kept."""
        actual = actual.detach().numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual)
        rule = self.outputs[name].get("subsample")
        return actual.ravel()[:: int(re.search(r"::(\d+)", rule)[1])] if rule else actual

    def finish(self) -> None:
        assert self.compared == set(self.golden), set(self.golden) ^ self.compared


def ltr_losses(folder: Path, kit: Any) -> None:
    case = _Case(folder, kit)
    label, valid = case["label_noise"].clamp(0, 1), case["valid_samples"]
    target = (label > 0.1).float()
    density, gt = case["density_noise"], case["gt_noise"]
    mask = (case["mask_noise"] > 0.05).float()
    some_empty = mask * torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1, 1)
    region = case["region_noise"] > 0
    boxes = case["ltrb_target"]
    first_is_truth = torch.cat([-torch.ones(6, 1), density.flatten(0, 1)[:, 1:]], 1)

    scored: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "lbhinge_0.05": lambda p: LBHinge(threshold=0.05)(p, label),
        "lbhinge_none": lambda p: LBHinge()(p, label),
        "lbhinge_clip": lambda p: LBHinge(threshold=0.05, clip=0.01)(p, label),
        "lbhingev2": lambda p: LBHinge(threshold=0.05)(p, label),
        "lbhingev2_valid": lambda p: LBHinge(threshold=0.05)(p, label, valid),
        "lbhingev2_perseq": lambda p: LBHinge(threshold=0.05).per_map(p, label, valid),
        "istarget": lambda p: IsTargetCellLoss()(p, target),
        "istarget_valid": lambda p: IsTargetCellLoss()(p, target, valid),
        "istarget_perseq": lambda p: IsTargetCellLoss().per_map(p, target),
        "istarget_probs": lambda p: IsTargetCellLoss(logits=False)(p.sigmoid(), target),
        "focal": lambda p: FocalLoss()(p, label),
        "focal_alpha": lambda p: FocalLoss(gamma=1.5, alpha=0.25)(p, label),
        "kl_grid": lambda p: KLRegressionGrid()(p, label / label.sum((-2, -1), keepdim=True)),
        "kl_grid_scale": lambda p: KLRegressionGrid(cell=0.25)(p, label / label.sum((-2, -1), keepdim=True)),
    }
    _values_and_gradients(case, "prediction", scored)
    _values_and_gradients(
        case,
        "energies",
        {
            "kl_mc": lambda e: KLRegression()(e, density, gt),
            "kl_mc_eps": lambda e: KLRegression(eps=0.1)(e, density, gt),
            "ml_mc": lambda e: MLRegression()(e.flatten(0, 1), first_is_truth),
        },
    )
    _values_and_gradients(
        case,
        "logits",
        {
            "lovasz_batch": lambda x: LovaszSegLoss(per_image=False)(x, mask),
            "lovasz_image": lambda x: LovaszSegLoss()(x, mask),
            "lovasz_image_empty": lambda x: LovaszSegLoss()(x, some_empty),
            "lovasz_hinge": lambda x: LovaszHinge()(x, mask),
        },
    )
    _values_and_gradients(
        case,
        "ltrb_pred",
        {
            "giou": lambda p: GIoULoss()(p, boxes, region)[0],
            "giou_all": lambda p: GIoULoss()(p, boxes)[0],
        },
    )
    case.check("giou_ious", GIoULoss()(case["ltrb_pred"], boxes)[1][region[:, :, 0]])

    accuracy, prediction = TrackingClassificationAccuracy(threshold=0.25), case["prediction"]
    case.check("accuracy_valid", accuracy(prediction, label, valid)[0])
    case.check("accuracy_each", accuracy(prediction, label, valid)[1])
    mixed = torch.cat([2 * label[:1], prediction[1:]])
    case.check("accuracy_mixed", accuracy(mixed, label)[0])
    case.check("accuracy_mixed_each", accuracy(mixed, label)[1])
    case.check("accuracy_all", accuracy(3 * label - 1, label)[0])
    case.finish()


def _values_and_gradients(case: _Case, key: str, losses: dict[str, Callable]) -> None:
    for name, loss in losses.items():
        variable = case[key].requires_grad_()
        value = loss(variable)
        case.check(name, value)
        case.check(f"{name}_grad", torch.autograd.grad(value.sum(), variable)[0])


HANDLERS = {"ltr_losses": ltr_losses}
