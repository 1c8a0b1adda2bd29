"""Crops, jitter and augmentation against the published data processing."""

from __future__ import annotations

import re

import numpy as np
import torch

from ltr.data import augment
from ltr.data.crop import box_to_crop, box_to_image, crop, jitter
from tests.parity.cases import Comparison, inputs_of

NEAREST_TIES = 1e-3  # share of pixels within rounding error of a tie, which may take the other neighbour


class _Case:
    """A case's inputs by the last part of their names, and its outputs to compare with."""

    def __init__(self, folder, kit):
        _, self.case, self.golden = kit.load(folder)
        self.build = self.case["build"]
        self.values = {entry["name"]: entry["values"] for entry in self.case["inputs"] if "values" in entry}
        arrays = inputs_of(self.case, kit)
        self.arrays = {n.rpartition("/")[2]: a for n, a in arrays.items() if n not in self.values}
        self.comparison = Comparison(self.case, self.golden, kit)
        self.check = self.comparison.check

    def frame(self, name):
        return np.ascontiguousarray(self.arrays[name].astype(np.uint8).transpose(1, 2, 0))


def spot_crops(folder, kit):
    """Crops, boxes there and back, and the two kinds of training instance with given draws."""
    case = _Case(folder, kit)
    frame = case.frame("image")
    factors, inside, recovered = [], [], []
    for number, item in enumerate(case.values["items"]):
        box, second = _published(item["box"]), _published(item["second_box"])
        pixels, geometry = crop(frame, box, item["factor"], item["size"], _mean(frame))
        case.check(f"crop{number}", pixels, levels=1)
        factors.append(geometry.factor)
        inside.append(box_to_crop(second, box, geometry.factor, item["size"]))
        recovered.append(box_to_image(inside[-1], box, geometry.factor, item["size"]))
        assert np.allclose(recovered[-1], second)
    case.check("resize_factor", np.array(factors))
    case.check("box_in_crop", np.array(inside))
    case.check("box_recovered", _clamped(np.array(recovered)))

    _instance(case, "burnin", {"search": "search", "template": "template"})
    roles = {"key": "template", "aug": "aug", "unlabeled": "unlabeled", "relay": "template"}
    made = _instance(case, "sparse", roles)
    for role in ("unlabeled", "aug"):
        about, factor = made[role]
        case.check(f"sparse_{role}_extract", about)
        case.check(f"sparse_{role}_factor", np.array([factor]))

    size = case.build["search_size"]
    in_image = _clamped(box_to_image(_teacher_box(case), *made["unlabeled"], size))
    case.check("teacher_recovered", in_image)
    case.check("student_label", _clamped(box_to_crop(in_image, *made["aug"], size)))
    case.comparison.finish()


def _instance(case, kind, roles):
    """Make the crops of one instance with its draws, in their order; role -> (extract box, factor)."""
    draws = iter(np.array(values) for _, values in case.values[kind]["draws"])
    made = {}
    for role, jittered_as in roles.items():
        image, box = case.values[kind]["unlabeled" if role == "aug" else role]
        frame, box = case.frame(image), _published(box)
        center, scale = (case.build[f"{name}_jitter"][jittered_as] for name in ("center", "scale"))
        about = jitter(box, center, scale, normal=next(draws), uniform=next(draws))
        part = "template" if jittered_as == "template" else "search"
        factor, size = case.build[f"{part}_area_factor"], case.build[f"{part}_size"]
        pixels, geometry = crop(frame, about, factor, size, _mean(frame))
        case.check(f"{kind}_{role}_image", pixels.transpose(2, 0, 1), levels=1)
        case.check(f"{kind}_{role}_box", box_to_crop(box, about, geometry.factor, size))
        made[role] = about, geometry.factor
    return made


def _published(box):
    """A box as the published code holds it: rounded to float32, then used in double precision."""
    return np.float32(box).astype(np.float64)


def _clamped(box):
    """The published code clamps x, y, w, h one by one; ours intersects boxes with the image."""
    return box.clip(min=0)


def _mean(frame):
    return frame.reshape(-1, 3).mean(0, dtype=np.float64)


def _teacher_box(case):
    """The box in the sentence "teacher box (100.25, 88.5, 61.0, 73.5) of the unlabeled crop ..."."""
    meaning = next(e["meaning"] for e in case.case["outputs"] if e["name"] == "teacher_recovered")
    return np.array([float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", meaning)[:4]])


def spot_augment(folder, kit):
    """Rotation, grey, brightness and normalisation with given draws."""
    case = _Case(folder, kit)
    images, average = (torch.from_numpy(case.arrays[name]) for name in ("images", "avg"))
    _rotation(case, images, average)
    _grey(case, images, average)

    raw = [case.frame(name) for name in sorted(case.arrays) if name.startswith("raw")]
    factor = torch.tensor(case.values["brightness"])
    unit = augment.to_unit(torch.from_numpy(np.stack(raw)))
    means = torch.from_numpy(np.stack([_mean(image) for image in raw])) / 255
    case.check("preprocessed", augment.standardise(augment.brighten(unit, factor)))
    case.check("preprocessed_avg", augment.standardise(augment.brighten(means, factor)))
    case.comparison.finish()


def _rotation(case, images, average):
    draws, mask = case.values["draws"], torch.tensor(case.values["mask"])
    turned, boxes = augment.rotate(
        images,
        torch.tensor(case.values["boxes"]),
        average,
        torch.tensor(draws["angle"]) * mask,
        (torch.tensor(draws["upside_down"]) <= case.build["ud_flip_prob"]) & mask,
        (torch.tensor(draws["left_right"]) <= case.build["lr_flip_prob"]) & mask,
    )
    case.check("rotated_boxes", boxes.clamp(min=0))
    for number, image in enumerate(turned.numpy()):
        name = f"rotated_image{number}"
        rule = case.comparison.outputs[name]["subsample"]
        expected = case.golden[name]
        differs = ~np.isclose(image.ravel()[:: rule["step"]] if rule else image, expected, atol=1e-5)
        assert differs.mean() <= NEAREST_TIES, f"{name}: {differs.mean():.2%} of the pixels differ"
        case.comparison.compared.add(name)


def _grey(case, images, average):
    """The published "grey" scales the channels and never adds them up; ours shows the luminance.

    What the two share is checked: the weights, the decision, and the channel mean, which is added up.
    """
    chosen = torch.tensor(case.values["gray_draws"]) <= case.build["gray_prob"]
    weights = torch.tensor(augment.LUMINANCE).view(1, 3, 1, 1)
    height, width = case.comparison.outputs["gray_second"]["of_shape"][-2:]
    groups = {
        "first": (images[: len(chosen)], average[: len(chosen)]),
        "second": (images[-len(chosen) :, :, :height, :width], average[-len(chosen) :]),
    }
    for group, (crops, means) in groups.items():
        scaled = torch.where(chosen.view(-1, 1, 1, 1), crops * weights, crops)
        case.check(f"gray_{group}", scaled)
        case.check(f"gray_avg_{group}", augment.gray(means, chosen))
        added_up = torch.where(chosen.view(-1, 1, 1, 1), scaled.sum(1, keepdim=True), crops)
        assert torch.allclose(augment.gray(crops, chosen), added_up)


HANDLERS = {"spot_crops": spot_crops, "spot_augment": spot_augment}
