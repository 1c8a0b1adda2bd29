"""Parity of Ocean's training: labels, decoding of the teacher, losses."""

from __future__ import annotations

import re

import torch

from ltr.admin.train import variant_settings
from ltr.data.bbox import cxcywh_to_xywh, xywh_to_cxcywh
from ltr.models.loss.ocean import OceanObjective, ocean_labels, overlaps
from ltr.models.tracking.ocean import RATIO
from tests.parity.cases import Comparison, inputs_of, one


def ocean_labels_case(folder, kit) -> None:
    """Labels of the boxes, and what the teacher answers."""
    _, case, golden = kit.load(folder)
    compare, inputs, build = Comparison(case, golden, kit), inputs_of(case, kit), case["build"]
    assert build["cls_ratio"] == RATIO
    cells, size = int(build["map"].split("x")[0]), build["search_size"]
    target = xywh_to_cxcywh(torch.tensor(inputs["boxes"], dtype=torch.float32))
    labels = ocean_labels(target, cells, size)
    compare.check("cls_label", labels.positive)
    compare.check("reg_label", labels.distances.permute(0, 2, 3, 1))
    compare.check("reg_weight", labels.inside)
    compare.check("iou_weight", labels.near)

    boxes = torch.from_numpy(one(inputs, "/pred_boxes"))
    # outside, where the product of two negative lengths would count, our losses never look
    compare.check("align_label", overlaps(boxes, labels.distances) * labels.inside)

    outputs = {"pred_boxes": boxes}
    for key, end in (("pred_logits", "logits"), ("align_logits", "align"), ("pred_ious", "ious")):
        outputs[key] = torch.from_numpy(one(inputs, f"/teacher_{end}"))
    found = OceanObjective(search_size=size).decode(outputs, build["window_penalty"])
    compare.check("teacher_best_index", found.index)
    compare.check("teacher_best_score", found.score)
    compare.check("teacher_best_conf", found.confidence)
    # as with TransT, the reference's clamping one by one is left to the image's border
    box = cxcywh_to_xywh(found.bbox_cxcywh_norm) * size
    compare.check("teacher_best_bbox", torch.cat([box[:, :2].clamp(min=0), box[:, 2:].clamp(min=1)], 1))
    compare.finish()


def ocean_criterion(folder, kit) -> None:
    """Loss terms and gradients, labelled and not, with few positive cells and with none."""
    _, case, golden = kit.load(folder)
    compare, inputs, build = Comparison(case, golden, kit), inputs_of(case, kit), case["build"]
    ends = {"pred_logits": "logits", "pred_boxes": "boxes", "align_logits": "align", "pred_ious": "ious"}
    size = variant_settings("spot", "spot_ocean_003").data.search_size
    target = xywh_to_cxcywh(torch.tensor(inputs["boxes"], dtype=torch.float32)) / size
    for tag, labelled in (("sup", True), ("unsup", False)):
        outputs = {
            key: torch.from_numpy(one(inputs, f"/{end}")).requires_grad_() for key, end in ends.items()
        }
        weights = build[f"weights_{tag}"]
        objective = OceanObjective(
            search_size=size,
            ce=weights["loss_ce"],
            bbox=weights["loss_bbox"],
            align=weights["loss_align"],
            iou=weights.get("loss_iou_pred", 0.0),
            reference_compat=True,
        )
        loss, stats = objective(outputs, target, labelled)
        loss.backward()
        compare.check(f"{tag}_total", loss.reshape(1))
        for name, value in stats.items():
            compare.check(f"{tag}_{name}", value.reshape(1))
        for key, end in ends.items():
            gradient = outputs[key].grad
            if gradient is not None:
                compare.check(f"{tag}_grad_{end}", gradient)

    logits = torch.from_numpy(one(inputs, "/corner_logits"))[:, 0]
    for name in ("ce_no_positive", "ce_single_positive"):
        positive = torch.zeros_like(logits)
        place = re.search(r"row (\d+), column (\d+)", compare.outputs[name]["meaning"])
        if place:
            positive[0, int(place[1]), int(place[2])] = 1.0
        counts = positive.sum(), torch.tensor(float(logits.numel()))
        found = objective.classification(logits, positive, torch.ones_like(logits), *counts)
        compare.check(name, found.reshape(1))
    compare.finish()


HANDLERS = {"ocean_labels": ocean_labels_case, "ocean_criterion": ocean_criterion}
