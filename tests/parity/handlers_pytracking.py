"""Parity of the parts of online trackers: patches, augmentation, optimisers, localisation, refinement, memory."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import numpy as np
import torch

from ltr.data.labels import GaussianLabel
from ltr.models.bbreg.iou_net import AtomIoUNet
from ltr.models.bbreg.refine import by_autograd
from ltr.ops.optimization import gauss_newton, gradient_descent, newton, square
from pysot_toolkit.trackers.online import sample_patch as patches
from pysot_toolkit.trackers.online.atom_filter import (
    ACTIVATION_FLOOR,
    Regularisation,
    Training,
    classify,
    learn_both,
    learn_filter,
    project,
)
from pysot_toolkit.trackers.online.augmentation import (
    blurred,
    middle,
    mirrored,
    plain,
    rotated,
    scaled,
    upside_down,
)
from pysot_toolkit.trackers.online.localize import LocalizationRules, hann, localize, prepared
from pysot_toolkit.trackers.online.memory import SampleWeights
from pysot_toolkit.trackers.online.refine import Refinement
from pysot_toolkit.trackers.online.sample_patch import patch_window
from tests.parity.cases import inputs_of, one
from tests.parity.handlers_dimp import comparison


def to_image(array: np.ndarray) -> np.ndarray:
    """A generated array ``[3, H, W]`` as an image, as the cases say."""
    return np.clip(np.rint(array), 0, 255).astype(np.uint8).transpose(1, 2, 0)


def fractional_window(image_size, centre, size, output, border="replicate", max_shrink=None):
    """What torch 1.6 and later make of the published geometry: halves of odd lengths are fractions."""
    image, size = np.asarray(image_size, np.float32), np.asarray(size, np.float32)
    if border != "replicate":
        ratio = size / image
        shrink = np.clip(ratio.max() if border == "inside" else ratio.min(), np.float32(1), max_shrink)
        size = np.trunc(size / np.float32(shrink))
    step, offset = patch_window(image_size, centre, size, output)[-2:-4:-1]
    length = np.maximum(np.rint(size / np.float32(step)), 2)
    at = (np.trunc(centre) - offset) / step
    first, last = at - (length - 1) / 2, at + length / 2 + 1
    limit = patches.thinned(image_size, offset, step)
    if border != "replicate":
        shift = np.maximum(-first, 0) - np.maximum(last - limit, 0)
        first, last = first + shift, last + shift
        outside = (np.maximum(-first, 0) + np.maximum(last - limit, 0)) // 2
        shift = np.where(outside > 0, -first - outside, 0)
        first, last = first + shift, last + shift
    taken = np.trunc(first).astype(int), np.trunc(last).astype(int)
    return patches.PatchWindow(*taken, offset, step, step * np.concatenate([first, last]))


@contextlib.contextmanager
def fractional_patches() -> Iterator[None]:
    """Patches are cut by ``fractional_window``."""
    patches.patch_window = fractional_window
    try:
        yield
    finally:
        patches.patch_window = patch_window


def sample_patch(folder, kit) -> None:
    """Every border mode, with the whole halves that ours has, and with fractions as newer versions of torch have it."""
    _, case, golden = kit.load(folder)
    compare = comparison(case, golden, kit)
    image = to_image(one(inputs_of(case, kit), "/image"))

    def check_all(suffix: str) -> None:
        for number, build in enumerate(case["build"]["configurations"]):
            output = build["output_sz"] and np.array(build["output_sz"])
            place = np.array(build["pos"]), np.array(build["sample_sz"])
            patch = patches.cut_patch(image, *place, output, build["mode"], build["max_scale_change"])
            compare.check(f"patch{suffix}_{number}", patches.resized(patch))
            compare.check(f"coord{suffix}_{number}", patch.box_yxyx)

    check_all("_int")
    with fractional_patches():
        check_all("")
        meaning = compare.outputs["multiscale_patches"]["meaning"]
        found = re.search(r"scales (.+), size (\d+), centre \((\d+), (\d+)\)", meaning)
        assert found
        scales = [float(number) for number in found[1].split(",")]
        size, centre = np.full(2, float(found[2])), np.array([float(found[3]), float(found[4])])
        several = [patches.cut_patch(image, centre, scale * size, size) for scale in scales]
        compare.check("multiscale_patches", torch.cat([patches.resized(patch) for patch in several]))
        compare.check("multiscale_coords", np.stack([patch.box_yxyx for patch in several]))

        numbers = [int(n) for n in re.findall(r"\d+", compare.outputs["mask_patch"]["meaning"])]
        _, top, bottom, left, right, row, column, side, output = numbers
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[top : bottom + 1, left : right + 1] = 1
        centre, sides = np.array([row, column]), np.array([[side, side], [output, output]])
        compare.check("mask_patch", patches.sample_mask(mask, centre, *sides))
    compare.finish()


def sample_memory(folder, kit) -> None:
    """Weights and places over a sequence of updates, with and without a least share of the first samples."""
    _, case, golden = kit.load(folder)
    compare, build = comparison(case, golden, kit), case["build"]
    for suffix, least in (("min", build["init_samples_minimum_weight"]), ("nomin", 0.0)):
        weights = SampleWeights(build["memory size"], build["init samples"], build["learning_rate"], least)
        rates = build["learning rates of the updates (null = default)"]
        steps = [(weights.admit(rate), weights.values.copy()) for rate in rates]
        compare.check(f"replaced_{suffix}", np.array([place for place, _ in steps]))
        compare.check(f"weights_{suffix}", np.stack([values for _, values in steps]))
    compare.finish()


def localize_target(folder, kit) -> None:
    """Displacement, scale and flag for every kind of score map."""
    _, case, golden = kit.load(folder)
    compare, build = comparison(case, golden, kit), case["build"]
    inputs = {entry["key"]: np.array(entry["values"]) for entry in case["inputs"]}
    stride = np.array(build["img_support_sz"]) / np.array(build["feature size"])
    rows, columns = np.mgrid[:19, :19].astype(np.float64)
    for configuration in build["configurations"]:
        chosen = {**build["defaults"], **configuration["overrides"]}
        maps = [
            sum(h * np.exp(-((rows - r) ** 2 + (columns - c) ** 2) / (2 * s**2)) for h, r, c, s in peaks)
            for peaks in configuration["peaks"]
        ]
        assert len(maps) == chosen.get("scale_factors", 1)
        scores = prepared(
            torch.from_numpy(np.stack(maps).astype(np.float32)),
            chosen.get("score_preprocess", "none"),
            chosen.get("score_filter_ksz", 1),
        ).numpy()
        scales = inputs["sample_scales"][: len(maps), None]
        advanced = chosen["advanced_localization"]
        rules = LocalizationRules(
            not_found=chosen["target_not_found_threshold"] if advanced else -np.inf,
            uncertain=chosen.get("uncertain_threshold", -np.inf),
            hard_sample=chosen.get("hard_sample_threshold", -np.inf),
            distractor=chosen["distractor_threshold"] if advanced else np.inf,
            hard_negative=chosen["hard_negative_threshold"] if advanced else np.inf,
            neighbourhood=chosen["target_neighborhood_scale"],
            displacement=chosen["dispalcement_scale"],
        )
        # the reference never applies a window unless the second peak is sought without it
        windowed = chosen.get("window_output") and chosen.get("perform_hn_without_windowing")
        found = localize(
            scores,
            rules,
            (np.array(scores.shape[1:]) - 1) / 2,
            inputs["target_sz"] / scales / stride,
            (inputs["pos"] - inputs["sample_pos"]) / scales / stride,
            hann(scores.shape[1:]) if windowed else None,
        )
        name = configuration["name"]
        translation = found.displacement * stride * scales[found.scale]
        compare.check(f"{name}_translation", translation)
        compare.check(f"{name}_scale", found.scale)
        compare.check(f"{name}_flag", found.flag if advanced else build["flags"]["None"])
        compare.check(f"{name}_scores", scores)
    compare.finish()


def pytracking_optimization(folder, kit) -> None:
    """Every optimiser on the case's two problems, in the configurations that its outputs name."""
    _, case, golden = kit.load(folder)
    compare, inputs = comparison(case, golden, kit), inputs_of(case, kit)
    matrix, target, start, diagonal = (
        torch.from_numpy(one(inputs, f"/{key}")).unbind() for key in ("A", "y", "x0", "precond")
    )

    def linear(x):
        data = (a @ part - y for a, part, y in zip(matrix, x, target))
        return (*data, *(0.3 * part for part in x))  # regularised as the other problem is

    def nonlinear(x):
        bent = (torch.tanh(a @ part) for a, part in zip(matrix, x))
        data = (v * (1 + 0.1 * other.sum()) - y for v, other, y in zip(bent, x[::-1], target))
        return (*data, *(0.3 * part for part in x))

    def loss(x):
        return square(nonlinear(x))

    def final(found, name: str, problem=nonlinear) -> None:
        compare.check(name, torch.stack(found.x))
        losses = name.replace("gncg_", "gncg_loss_") if name.startswith("gncg") else f"{name}_loss"
        if losses in golden:
            compare.check(losses, torch.cat([found.losses, square(problem(found.x))[None]]))

    for formula in ("fr", "pr"):
        for suffix in ("", "_precond"):
            options = {"fletcher_reeves": formula == "fr"}
            if suffix:
                options["precondition"] = lambda r: tuple(part / d for part, d in zip(r, diagonal))
            found = gauss_newton(linear, start, [4], **options)
            compare.check(f"cg_linear_{formula}{suffix}", torch.stack(found.x))
            compare.check(f"cg_linear_res_{formula}{suffix}", found.residual_norms)
            final(gauss_newton(nonlinear, start, [3] * 4, **options), f"gncg_{formula}{suffix}")
    options = {"fletcher_reeves": False, "exact_step": True, "forgetting": 0.6}
    final(gauss_newton(nonlinear, start, [3, 2, 4], **options), "gncg_forget")
    final(gauss_newton(linear, start, [20], tolerance=0.05), "cg_eps")
    final(newton(loss, start, [3] * 3, damping=0.5, damping_decay=0.5), "newton_cg")
    final(gradient_descent(loss, start, 5, step=0.05, momentum=0.8), "gd_l2")
    final(gradient_descent(loss, start, 5, step=0.02, momentum=0.5), "gd")
    compare.finish()


def pytracking_augmentation(folder, kit) -> None:
    """Every change of the first frame's patch; what the outputs mean is said in words."""
    _, case, golden = kit.load(folder)
    compare = comparison(case, golden, kit)
    image = to_image(one(inputs_of(case, kit), "/image"))
    patch = torch.from_numpy(image.copy()).float().permute(2, 0, 1)[None]
    changes = {
        "identity": plain,
        "identity_none": plain,
        "fliplr": mirrored,
        "flipud": upside_down,
        "translation": plain,
        "blur": lambda patch: blurred(patch, (2, 1)),
        "blur_large": lambda patch: blurred(patch, (3, 3)),
        "scale": lambda patch: scaled(patch, 1.3),
        "scale_up": lambda patch: scaled(patch, 0.7),
        "rotate": lambda patch: rotated(patch, 10),
        "rotate_m45": lambda patch: rotated(patch, -45),
    }
    for name, change in changes.items():
        entry = compare.outputs[name]
        whole = entry["shape"][2:] == list(patch.shape[2:])
        moves = re.findall(r"(?:shift|translation) \((-?\d+), (-?\d+)\)", entry["meaning"])
        rows, columns = (sum(int(move[axis]) for move in moves) for axis in (0, 1))
        size = None if whole else case["build"]["output_sz"][0]
        compare.check(name, middle(change(patch), size, (rows, columns)))
    compare.finish()


def atom_optim(folder, kit) -> None:
    """Joint learning of filter and projection, then of the filter alone."""
    _, case, golden = kit.load(folder)
    compare, build = comparison(case, golden, kit), case["build"]
    inputs = {key: torch.from_numpy(value) for key, value in inputs_of(case, kit).items()}
    samples, filter, projection = (one(inputs, f"/{key}") for key in ("samples", "filter0", "projection0"))
    numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", compare.outputs["labels"]["meaning"])]
    centres = np.array(numbers[1:]).reshape(-1, 2)
    side = samples.shape[3]
    bump = GaussianLabel(sigma=numbers[0] / side, kernel=1, features=(side, side), image=(side, side))
    boxes = np.concatenate([centres[:, ::-1] + side / 2, np.zeros((len(centres), 2))], 1)  # one px per cell
    labels = bump(torch.from_numpy(boxes).float())
    compare.check("labels", labels[:, None])

    reg = Regularisation(build["filter_reg"], build["projection_reg"])
    assert build["response_activation"] == f"MLU({ACTIVATION_FLOOR})"
    weights = torch.tensor(build["sample_weights"])
    data = Training(samples, labels, weights)
    linearised, solved = re.findall(r"\d+", compare.outputs["joint_filter"]["meaning"])[:2]
    joint = learn_both(data, filter, projection, [int(solved)] * int(linearised), reg)
    compare.check("joint_filter", joint.x[0])
    compare.check("joint_projection", joint.x[1])
    after = learn_both(data, *joint.x, [1], reg).losses
    compare.check("joint_losses", torch.cat([joint.losses, after]))

    data, filter, losses = data._replace(samples=project(samples, joint.x[1])), joint.x[0], []
    for _ in range(2):
        found = learn_filter(data, filter, 5, reg)
        (filter,) = found.x
        losses += [found.losses, learn_filter(data, filter, 1, reg).losses]
    compare.check("filter", filter)
    compare.check("losses", torch.cat(losses))
    compare.check("scores", classify(data.samples, filter)[:, None])
    compare.finish()


def refine_box(folder, kit) -> None:
    """Gradient ascent of boxes in both parametrisations, with the steps that the outputs name."""
    manifest, case, golden = kit.load(folder)
    compare = comparison(case, golden, kit)
    generated = [entry for entry in case["inputs"] if "name" in entry]
    (start,) = (torch.tensor(entry["values"]) for entry in case["inputs"] if "values" in entry)
    inputs = inputs_of({"inputs": generated}, kit)
    sizes = re.search(r"input_dim=\((\d+), (\d+)\)", case["build"]["network"])
    assert sizes
    network = AtomIoUNet(input_dim=(int(sizes[1]), int(sizes[2])))
    missing, foreign = network.load_state_dict(kit.state_dict(manifest, case["salt"]), strict=False)
    assert not missing and not foreign
    network.eval().requires_grad_(False)
    features = [torch.from_numpy(one(inputs, f"/iou_feat_{level}")) for level in (3, 4)]
    modulation = [torch.from_numpy(one(inputs, f"/modulation_{level}"))[None, :, 0] for level in (3, 4)]
    for name, entry in compare.outputs.items():
        if not name.endswith("_boxes"):
            continue
        space, steps, iterations = re.fullmatch(
            r"(\w+) parametrisation, step (.+), (\d+) iterations", entry["meaning"]
        ).groups()
        *step, decay = [float(number) for number in re.findall(r"[\d.]+", steps)]
        rules = Refinement(space=space, step=(step[0], step[-1]), decay=decay, iterations=int(iterations))
        slope = by_autograd(lambda at: network.predict_iou(modulation, features, at))
        boxes, scores = rules.climb(slope, start)
        compare.check(name, boxes[0])
        compare.check(name.replace("_boxes", "_iou"), scores[0])
    compare.finish()


HANDLERS = {
    "atom_optim": atom_optim,
    "localize_target": localize_target,
    "pytracking_augmentation": pytracking_augmentation,
    "pytracking_optimization": pytracking_optimization,
    "refine_box": refine_box,
    "sample_memory": sample_memory,
    "sample_patch": sample_patch,
}
