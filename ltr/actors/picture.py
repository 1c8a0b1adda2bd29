"""A picture of what the student is shown."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from ltr.data.augment import MEAN, STD

_SHOWN = 6  # samples of a batch

Row = tuple[torch.Tensor, torch.Tensor | None]


def contact_sheet(rows: dict[str, Row]) -> np.ndarray:
    """A few normalised crops with their boxes, one row per kind.

    Args:
        rows: name -> (crops ``[B, 3, H, W]``, boxes ``[B, 4]`` cxcywh_norm or None).

    Returns:
        RGB uint8 ``[H', W', 3]``.
    """
    strips = []
    side = max(crops.shape[-1] for crops, _ in rows.values())
    for name, (crops, boxes) in rows.items():
        crops = crops[:_SHOWN].detach().float().cpu()
        pixels = crops * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
        images = (pixels * 255).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        cells = []
        for i, image in enumerate(images):
            image = np.ascontiguousarray(image)
            if boxes is not None:
                cx, cy, w, h = (float(v) * image.shape[0] for v in boxes[i])
                corners = [round(v) for v in (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)]
                cv2.rectangle(image, tuple(corners[:2]), tuple(corners[2:]), (255, 220, 0), 1)
            cells.append(
                cv2.copyMakeBorder(
                    image,
                    2,
                    side - image.shape[0] + 2,
                    2,
                    side - image.shape[1] + 2,
                    cv2.BORDER_CONSTANT,
                    value=(40, 40, 40),
                )
            )
        strip = np.concatenate(cells, 1)
        cv2.putText(strip, name, (5, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
        strips.append(strip)
    width = max(strip.shape[1] for strip in strips)
    return np.concatenate([np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0))) for strip in strips])
