"""Parity of DiMP's tracker, from the first frame's samples to the last filter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ltr.models.registry import build_network
from pysot_toolkit.trackers.dimp import PARAMETERS, DiMPTracker
from pysot_toolkit.trackers.online.augmentation import Augmentations
from pysot_toolkit.trackers.online.localize import Flag
from pysot_toolkit.trackers.online.refine import Refinement
from tests.parity.cases import inputs_of, one
from tests.parity.handlers_dimp import comparison
from tests.parity.handlers_pytracking import fractional_patches, to_image


class _Recorder(DiMPTracker):
    """The tracker, remembering of every frame what the case asks for."""

    seen: dict[str, Any]

    def learnable(self) -> dict[str, Any]:
        """What there is after the first frame."""
        samples, boxes, _ = self.memory.contents()
        third, fourth = self.modulation
        return {
            "target_boxes": boxes,
            "samples": samples,
            "filter_init": self.filter,
            "modulation_3": third[0],
            "modulation_4": fourth[0],
        }

    def _peak(self, found, place, scale):
        peak = super()._peak(found, place, scale)
        self.seen = {"scores": found.scores[:, None], "flag": peak[0].flag}
        half = self.output / 2 * scale
        self.seen["coords"] = np.concatenate([place + 0.5 - half, place + 0.5 + half])
        return peak


def dimp_tracker(folder, kit) -> None:
    """Eight frames with one, two or no object, with our patches and with those of newer versions of torch."""
    manifest, case, golden = kit.load(folder)
    compare, build = comparison(case, golden, kit), case["build"]
    inputs = inputs_of(case, kit)
    background, target = to_image(one(inputs, "/background")), to_image(one(inputs, "/object"))
    positions = build["object positions"]["values"]
    start = next(iter(build["init box"].values()))
    changes, given = build["changes"], build["changes"]["augmentation"]
    parameters = replace(
        PARAMETERS["dimp50"][1],
        update_interval=changes["train_skipping"],
        random_shift=changes["random_shift_factor"],
        augment=Augmentations(
            mirror=given["fliplr"],
            blurs=given["blur"],
            relative_shifts=given["relativeshift"],
            rotations=(),
            dropouts=0,
        ),
        refine=Refinement(random_boxes=changes["num_init_random_boxes"]),
    )
    network = build_network("dimpnet50", {"backbone": "ltr_tiny", "out_feature_dim": 64})
    missing, foreign = network.load_state_dict(kit.state_dict(manifest, case["salt"]), strict=False)
    own = {entry["name"] for entry in manifest["entries"] if entry["kind"] == "buffer"}
    assert not foreign and set(missing) <= own, (missing, foreign)
    optimizer = network.state_dict(prefix="")
    for name in own:
        value = optimizer[name]
        compare.check(f"init_{name.removeprefix('classifier.filter_optimizer.')}", value)

    def run(suffix: str) -> None:
        tracker = _Recorder(network, torch.device("cpu"), parameters)
        for number, places in enumerate(positions):
            frame = background.copy()
            for column, row in places:
                frame[row : row + target.shape[0], column : column + target.shape[1]] = target
            if not number:
                tracker.initialize(frame, np.array(start))
                found = tracker.learnable()
            else:
                answer = tracker.track(frame)
                found = {**tracker.seen, "box": answer.bbox, "scale": tracker.scale}
                found = {f"{name}_{number}": value for name, value in found.items()}
                assert answer.lost == (tracker.seen["flag"] == Flag.NOT_FOUND)
            for name, value in found.items():
                if name + suffix in golden:
                    compare.check(name + suffix, value)
        compare.check(f"filter_end{suffix}", tracker.filter)
        for number in range(
            1, len(positions)
        ):  # the reference's array went on changing: all hold the last weights
            name = f"weights_{number}{suffix}"
            compare.check(name, tracker.memory.weights.values[: golden[name].size])

    run("_int")
    with fractional_patches():
        run("")
    compare.finish()


HANDLERS = {"dimp_tracker": dimp_tracker}
