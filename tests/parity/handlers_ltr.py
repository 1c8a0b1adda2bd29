"""Losses, training-data processing and transforms of the DiMP family against the published code."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ltr.data import augment, transforms
from ltr.data.adaptive_crop import boxes_to_crop, crop_rectangles, cut_rectangle
from ltr.data.bbox import xywh_to_cxcywh
from ltr.data.crop import box_to_crop
from ltr.data.labels import GaussianLabel, box_distances, boxes_of_masks, local_maxima, sampling_region
from ltr.data.proposals import (
    MixtureBoxes,
    PerturbedBoxes,
    from_relative,
    mixture_density,
    overlaps,
    to_relative,
)
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

    def check(self, name: str, actual: Any, levels: int = 0) -> None:
        """Assert that ``actual`` (whole, before subsampling) agrees with output ``name``.

        Args:
            levels: allow this many grey levels of difference instead of a relative one.
        """
        actual, expected = self.sampled(name, actual), self.expected(name)
        if levels:
            gap = np.abs(actual.astype(np.int64) - expected.astype(np.int64)).max()
            assert gap <= levels, f"{name}: {gap} grey levels"
            return
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


def ltr_processing(folder: Path, kit: Any) -> None:
    case = _Case(folder, kit)
    _crops(case)
    _labels(case)
    _proposals(case)
    case.finish()


def _crops(case: _Case) -> None:
    """Crops of the published code miss the image's last row and column, as if it ended before them.

    Ours do not; on an image without them the pixels are the same.
    """
    image = case.image()
    shorter, size = image[:-1, :-1], (image.shape[1], image.shape[0])
    mask = np.zeros(image.shape[:2], np.float32)
    mask[45:70, 60:95] = 1
    for number, (about, truth) in enumerate(zip(case.inputs["boxes"], case.inputs["gt"])):
        square = crop_rectangles(about, size, 2.5, (48, 48), "centred")
        case.check(f"sample_target_{number}", cut_rectangle(shorter, square, (48, 48)), levels=1)
        factor = 48 / square[2]
        case.check(f"sample_target_factor_{number}", factor)
        case.check(f"box_in_crop_{number}", box_to_crop(truth, about, factor, 48))
        for mode, change in (
            ("replicate", np.inf),
            ("inside", np.inf),
            ("inside_major", np.inf),
            ("inside_major", 1.5),
        ):
            name = f"{mode}_{change}_{number}" if np.isfinite(change) else f"{mode}_{number}"
            rectangle = crop_rectangles(about, size, 2.5, (56, 40), mode, change)
            case.check(f"adaptive_box_{name}", rectangle)
            case.check(f"adaptive_{name}", cut_rectangle(shorter, rectangle, (56, 40)), levels=1)
            case.check(f"adaptive_gt_{name}", boxes_to_crop(truth, rectangle, np.array([56, 40])))

    about = case.inputs["boxes"][0]
    square = crop_rectangles(about, size, 2.5, (48, 48), "centred")
    cut = cut_rectangle(mask[:-1, :-1], square, (48, 48), cv2.BORDER_CONSTANT)
    case.check("sample_target_mask", cut)
    rectangle = crop_rectangles(about, size, 2.5, (56, 40), "inside_major")
    cut = cut_rectangle(mask[:-1, :-1], rectangle, (56, 40), cv2.BORDER_CONSTANT, cv2.INTER_NEAREST)
    case.check("adaptive_mask", cut)
    region = np.trunc([-20.7, 30.2, 90.9, 60.5])
    case.check("from_region", cut_rectangle(shorter, region, (48, 48)), levels=1)
    rectangle = np.array([20, -10, 80, 60])
    case.check("crop_and_resize", cut_rectangle(shorter, rectangle, (64, 48)), levels=1)
    moved = boxes_to_crop(case.inputs["gt"][0], rectangle, np.array([64, 48]))
    case.check("crop_and_resize_box", moved)


def _labels(case: _Case) -> None:
    boxes = case["gt"] + torch.tensor([20.0, 10.0, 0.0, 0.0])
    common: dict[str, Any] = {"sigma": 0.06, "features": (12, 12), "image": (192, 192)}
    for name, options in {
        "label_even": {"kernel": 4},
        "label_odd": {"kernel": 3},
        "label_even_nopad": {"kernel": 4, "pad_even": False},
        "label_density_bias": {"kernel": 4, "density": True, "bias": 0.1},
        "label_bias": {"kernel": 1, "bias": 0.05},
    }.items():
        case.check(name, GaussianLabel(**common, **options)(boxes))
    wide = GaussianLabel(sigma=0.06, kernel=4, features=(13, 9), image=(208, 144))
    case.check("label_rect", wide(boxes))
    # Two outputs have this name; the file holds the second.
    distractor = boxes.clone()
    distractor[1, :2] = 99999999.9
    options = {"density": True, "threshold": 0.001, "normalise": True, "shrink": 0.1}
    case.check("label_density", GaussianLabel(**common, kernel=4, **options)(distractor))

    case.check("ltrb", box_distances(boxes, (12, 12), 16) / 192)
    case.check("ltrb_region", sampling_region(boxes, (12, 12), 16, radius=1))
    case.check("ltrb_region_box", sampling_region(boxes, (12, 12), 16))
    peaks, values = local_maxima(case["score_map"][0, 0], 0.3)
    case.check("maxima", peaks)
    case.check("maxima_values", values)

    masks = torch.zeros(3, 40, 50)
    masks[0, 5:20, 10:31] = 1
    masks[2, 0, 49] = 1
    found = boxes_of_masks(masks)
    assert not found[1].any()  # published: a box of one pixel for an empty mask
    found[1, 2:] = 1
    case.check("masks_to_bboxes_t", found)
    case.check("masks_to_bboxes_c", xywh_to_cxcywh(found))
    case.check("masks_to_bboxes_v", torch.cat([found[:, :2], found[:, :2] + found[:, 2:] - 1], 1))


def _proposals(case: _Case) -> None:
    truth, proposals = case.inputs["gt"][0], case.inputs["proposals"][0]
    case.check("iou", overlaps(case.inputs["boxes"][0], case.inputs["gt"]))
    relative = to_relative(proposals, truth[2:])
    case.check("rel", relative)
    case.check("rel_own", to_relative(proposals, proposals[:, 2:]))
    case.check("rel_back", from_relative(relative, truth[2:]))
    sigmas = [(0.05, 0.05), (0.5, 0.5)]
    offset = relative - to_relative(truth, truth[2:])
    case.check("gmm_density", mixture_density(offset, sigmas))
    case.check("gauss_density", mixture_density(offset, sigmas[:1]))
    offset = to_relative(case.expected("gmm_boxes")[1:], truth[2:]) - to_relative(truth, truth[2:])
    case.check("gmm_boxes_density", np.append(-1, mixture_density(offset, sigmas)))
    case.check("gmm_boxes_gt_density", np.append(1, mixture_density(offset, sigmas[:1])))

    # Of what was drawn only the statistics can be compared.
    rng = np.random.default_rng(0)
    drawn = MixtureBoxes(count=4000, sigmas=tuple(sigmas), mean_box=True)(truth[None], rng)["proposals"][0]
    theirs, ours = (to_relative(b, truth[2:])[1:] for b in (case.expected("gmm_boxes"), drawn))
    assert np.abs(theirs.mean(0) - ours.mean(0)).max() < 4 * ours.std() / np.sqrt(len(theirs))
    assert 0.6 < theirs.std() / ours.std() < 1.6
    perturbed = PerturbedBoxes(count=4000, min_iou=0.1, sigmas=(0.01, 0.05, 0.1, 0.2, 0.3))
    drawn = perturbed(truth[None], rng)
    theirs, ours = case.expected("perturbed"), drawn["proposals"][0]
    assert np.abs(theirs.mean(0) - ours.mean(0)).max() < 4 * ours.std(0).max() / np.sqrt(len(theirs))
    assert abs(np.median(case.expected("perturbed_iou")) - np.median((drawn["proposal_iou"] + 1) / 2)) < 0.1
    case.check("perturbed_iou", overlaps(theirs, truth))


def ltr_transforms(folder: Path, kit: Any) -> None:
    case = _Case(folder, kit)
    image = case.image()
    height, width = image.shape[:2]
    boxes = case["boxes"].double()
    mask = torch.zeros(1, 1, height, width, dtype=torch.float64)
    mask[:, :, 12:38, 22:44] = 1
    unit = augment.to_unit(torch.from_numpy(image)[None])

    case.check("to_tensor", unit)
    case.check("normalize", augment.standardise(unit))
    bright = augment.brighten(unit, torch.tensor([1.17]))
    case.check("jitter", bright)
    case.check("jitter_255", bright * 255)
    chosen = torch.tensor([True])
    case.check("grayscale", _levels(augment.gray(unit, chosen)), levels=1)
    case.check("bgr", image[:, :, ::-1])
    case.check("flip", _levels(transforms.mirror_images(unit, chosen)))
    case.check("flip_mask", transforms.mirror_images(mask, chosen))
    # Published boxes are mirrored like the numbers of pixels: one pixel to the left of where the target is.
    mirrored = transforms.mirror_boxes(boxes, width, chosen)
    case.check("flip_box", mirrored - torch.tensor([1.0, 0.0, 0.0, 0.0]))

    for name, entry in case.outputs.items():
        if name.endswith("_matrix"):
            _affine(case, name.removesuffix("_matrix"), entry["meaning"], unit.double(), mask, boxes)
    case.finish()


def _affine(
    case: _Case, name: str, meaning: str, unit: torch.Tensor, mask: torch.Tensor, boxes: torch.Tensor
) -> None:
    """The published matrix moves boxes as ours does, but images as if pixels had no size."""
    mirror, *numbers = ast.literal_eval(re.search(r"= (\(.*\))", meaning)[1])
    degrees, shear, scale, shift = (torch.tensor([value], dtype=torch.float64) for value in numbers)
    size = (unit.shape[-1], unit.shape[-2])
    matrices = transforms.affine_matrices(
        size, mirror=torch.tensor([mirror]), degrees=degrees, shear=shear, scale=scale, shift=shift
    )
    case.check(f"{name}_matrix", matrices)
    case.check(f"{name}_box", transforms.warp_boxes(boxes[None], matrices, size))
    of_centres = matrices.clone()
    of_centres[..., 2] += 0.5 - matrices[..., :2] @ torch.tensor([0.5, 0.5], dtype=torch.float64)
    case.check(name, _levels(transforms.warp(unit, of_centres)), levels=1)
    case.check(f"{name}_mask", transforms.warp(mask, of_centres, "nearest"))


def _levels(unit: torch.Tensor) -> np.ndarray:
    """An image in [0, 1] as uint8, rows x columns x RGB."""
    return (unit[0] * 255).round().byte().permute(1, 2, 0).numpy()


HANDLERS = {"ltr_losses": ltr_losses, "ltr_processing": ltr_processing, "ltr_transforms": ltr_transforms}
