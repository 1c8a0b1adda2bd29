"""Crops, jitter and augmentation against the published data processing."""

from __future__ import annotations

import numpy as np
import torch

from ltr.data import augment
from ltr.data.crop import box_to_crop, box_to_image, crop, jitter

TOLERANCE = 1e-4


class _Check:
    """Compares what we make with the outputs of one case, subsampled as its file says."""

    def __init__(self, folder, kit):
        self.kit = kit
        _, self.case, self.golden = kit.load(folder)
        self.values = {entry["name"]: entry["values"] for entry in self.case["inputs"] if "values" in entry}
        self.arrays = {
            entry["name"].rpartition("/")[2]: kit.array(
                entry["name"], tuple(entry["shape"]), entry["low"], entry["high"]
            )
            for entry in self.case["inputs"]
            if "shape" in entry
        }
        self.outputs = {entry["name"]: entry for entry in self.case["outputs"]}
        self.checked = set()

    def image(self, name):
        return np.ascontiguousarray(self.arrays[name].astype(np.uint8).transpose(1, 2, 0))

    def sampled(self, name, actual):
        actual = np.asarray(actual)
        shape = tuple(self.outputs[name]["of_shape"])
        assert actual.shape == shape or actual.size == np.prod(shape) == 1, f"{name}: {actual.shape}"
        subsample = self.outputs[name].get("subsample")
        return actual.reshape(-1)[:: subsample["step"]] if subsample else actual.reshape(shape)

    def close(self, name, actual):
        difference = self.kit.difference(self.sampled(name, actual), self.golden[name])
        assert difference <= self.outputs[name].get("suggested_tolerance", TOLERANCE), f"{name}: {difference}"
        self.checked.add(name)

    def levels(self, name, actual):
        """Grey levels: another OpenCV may round the other way."""
        gap = np.abs(self.sampled(name, actual).astype(int) - self.golden[name].astype(int))
        assert gap.max() <= 1, f"{name}: {gap.max()} grey levels"
        self.checked.add(name)

    def all_done(self):
        assert self.checked == set(self.outputs), f"not compared: {set(self.outputs) - self.checked}"


def spot_crops(folder, kit):
    """Crops, boxes there and back, and the two kinds of training instance with given draws."""
    check = _Check(folder, kit)
    build = check.case["build"]
    frame = check.image("image")
    factors, inside, recovered = [], [], []
    for number, item in enumerate(check.values["items"]):
        # The published boxes are float32; the geometry is computed from them in double precision.
        box = np.float32(item["box"]).astype(np.float64)
        second = np.float32(item["second_box"]).astype(np.float64)
        cut, geometry = crop(frame, box, item["factor"], item["size"], _mean(frame))
        check.levels(f"crop{number}", cut)
        factors.append(geometry.factor)
        inside.append(box_to_crop(second, box, geometry.factor, item["size"]))
        back = box_to_image(inside[-1], box, geometry.factor, item["size"])
        assert np.allclose(back, second)
        recovered.append(back.clip(min=0))  # published: every number on its own; ours: clip_xywh
    check.close("resize_factor", factors)
    check.close("box_in_crop", inside)
    check.close("box_recovered", recovered)

    _instance(check, build, "burnin", {"search": "search", "template": "template"})
    roles = {"key": "template", "aug": "aug", "unlabeled": "unlabeled", "relay": "template"}
    made = _instance(check, build, "sparse", roles)
    for role in ("unlabeled", "aug"):
        check.close(f"sparse_{role}_extract", made[role][0])
        check.close(f"sparse_{role}_factor", made[role][1])
    for name in ("teacher_recovered", "student_label"):
        if name not in check.outputs:
            continue
        size = build["search_size"]
        teacher = np.array(_numbers(check.outputs["teacher_recovered"]["meaning"]))
        in_image = box_to_image(teacher, *made["unlabeled"], size).clip(min=0)
        label = box_to_crop(in_image, *made["aug"], size).clip(min=0)
        check.close(name, in_image if name == "teacher_recovered" else label)
    check.all_done()


def _instance(check, build, kind, roles):
    """Make the crops of one instance with its draws, in their order; role -> (extract box, factor)."""
    draws = iter(values for _, values in check.values[kind]["draws"])
    made = {}
    for role, jitter_role in roles.items():
        image, box = check.values[kind]["unlabeled" if role == "aug" else role]
        frame, box = check.image(image), np.float32(box).astype(np.float64)
        center, scale = build["center_jitter"][jitter_role], build["scale_jitter"][jitter_role]
        about = jitter(box, center, scale, np.array(next(draws)), np.array(next(draws)))
        part = "template" if jitter_role == "template" else "search"
        factor, size = build[f"{part}_area_factor"], build[f"{part}_size"]
        cut, geometry = crop(frame, about, factor, size, _mean(frame))
        check.levels(f"{kind}_{role}_image", cut.transpose(2, 0, 1))
        check.close(f"{kind}_{role}_box", box_to_crop(box, about, geometry.factor, size))
        made[role] = about, geometry.factor
    return made


def _mean(frame):
    return frame.reshape(-1, 3).mean(0, dtype=np.float64)


def _numbers(text):
    """The box in a sentence such as "teacher box (100.25, 88.5, 61.0, 73.5) of the ..."."""
    return [float(number) for number in text[text.index("(") + 1 : text.index(")")].split(",")]


def spot_augment(folder, kit):
    """Rotation, grey, brightness and normalisation with given draws."""
    check = _Check(folder, kit)
    build, draws = check.case["build"], check.values["draws"]
    images, average = torch.from_numpy(check.arrays["images"]), torch.from_numpy(check.arrays["avg"])
    boxes, mask = torch.tensor(check.values["boxes"]), torch.tensor(check.values["mask"])
    turned, turned_boxes = augment.rotate(
        images,
        boxes,
        average,
        torch.tensor(draws["angle"]) * mask,
        (torch.tensor(draws["upside_down"]) <= build["ud_flip_prob"]) & mask,
        (torch.tensor(draws["left_right"]) <= build["lr_flip_prob"]) & mask,
    )
    check.close("rotated_boxes", turned_boxes.clamp(min=0))  # published: every number on its own
    for number, image in enumerate(turned):
        name = f"rotated_image{number}"
        gap = np.abs(check.sampled(name, image.numpy()) - check.golden[name])
        # Nearest neighbour: a pixel within rounding error of a tie may take its other neighbour.
        assert np.mean(gap > TOLERANCE) <= 1e-3, f"{name}: {np.mean(gap > TOLERANCE):.2%} of pixels differ"
        check.checked.add(name)

    # The published "grey" scales the channels and never adds them up; ours is the luminance. What the two
    # share is checked: the weights, the decision, and the channel mean, for which the sum is right.
    chosen = torch.tensor(check.values["gray_draws"]) <= build["gray_prob"]
    weights = torch.tensor(augment.LUMINANCE).view(1, 3, 1, 1)
    count = len(chosen)
    side = check.outputs["gray_second"]["of_shape"][-1]
    groups = {"first": slice(0, count), "second": slice(len(images) - count, len(images))}
    for group, part in groups.items():
        crops = images[part] if group == "first" else images[part, :, :side, :side]
        scaled = torch.where(chosen.view(-1, 1, 1, 1), crops * weights, crops)
        check.close(f"gray_{group}", scaled)
        check.close(f"gray_avg_{group}", augment.gray(average[part], chosen))
        ours = augment.gray(crops, chosen)
        assert torch.allclose(ours[chosen], scaled[chosen].sum(1, keepdim=True).expand_as(crops[chosen]))
        assert torch.equal(ours[~chosen], crops[~chosen])

    raw = [check.image(name) for name in sorted(check.arrays) if name.startswith("raw")]
    factor = torch.tensor(check.values["brightness"])
    unit = augment.to_unit(torch.from_numpy(np.stack(raw)))
    means = torch.from_numpy(np.stack([_mean(image) for image in raw])) / 255
    check.close("preprocessed", augment.normalise(augment.brighten(unit, factor)))
    check.close("preprocessed_avg", augment.normalise(augment.brighten(means, factor)))
    check.all_done()


HANDLERS = {"spot_crops": spot_crops, "spot_augment": spot_augment}
