"""A network that scores boxes for a target. Danelljan et al., ATOM: Accurate Tracking by Overlap Maximization, CVPR 2019."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ltr.data.bbox import xywh_to_xyxy
from ltr.ops.prroi_pool import prroi_pool_grouped

STRIDES = (8, 16)  # of the two feature maps, px per cell
BINS = (5, 3)  # along each side of a pooled proposal

Pair = tuple[torch.Tensor, torch.Tensor]


def _conv(inputs: int, outputs: int, kernel: int = 3, padding: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class LinearBlock(nn.Module):
    """Linear layer, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[N, inputs]`` to ``[N, outputs]``."""
        return F.relu(self.bn(self.linear(x)), inplace=True)


class AtomIoUNet(nn.Module):
    """Scores proposals in a test image by the target of a reference image.

    The reference image with the target's box gives one vector per feature map, the modulation. It weighs the
    channels of the test image's features, from which each proposal is pooled and scored. Trained on overlaps
    the score is 2 IoU - 1; trained on densities (PrDiMP) it is the logarithm of an unnormalised one. Scores are
    differentiable in the proposals, so that boxes climb to where the score is highest.

    Both feature maps are of strides 8 and 16, in that order. Parameter names are the published ones; in them
    3 and 4 stand for these maps, r for the reference and t for the test branch.

    Args:
        input_dim: channels of the two feature maps.
        dim: channels of everything after them, an even number.
    """

    def __init__(self, *, input_dim: tuple[int, int] = (128, 256), dim: int = 256) -> None:
        super().__init__()
        third, fourth = input_dim
        self.conv3_1r = _conv(third, dim // 2)
        self.conv3_1t = _conv(third, dim)
        self.conv3_2t = _conv(dim, dim)
        self.fc3_1r = _conv(dim // 2, dim, padding=0)
        self.conv4_1r = _conv(fourth, dim)
        self.conv4_1t = _conv(fourth, dim)
        self.conv4_2t = _conv(dim, dim)
        self.fc34_3r = _conv(2 * dim, dim, 1, 0)
        self.fc34_4r = _conv(2 * dim, dim, 1, 0)
        self.fc3_rt = LinearBlock(dim * BINS[0] ** 2, dim)
        self.fc4_rt = LinearBlock(dim * BINS[1] ** 2, dim)
        self.iou_predictor = nn.Linear(2 * dim, 1)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                nn.init.uniform_(module.weight)  # as torch did when this network was designed

    def forward(
        self, reference: Pair, test: Pair, reference_bbox: torch.Tensor, proposals: torch.Tensor
    ) -> torch.Tensor:
        """Scores of proposals in several test images per sequence.

        Args:
            reference: backbone features of one image per sequence, ``[S, C, h, w]`` each.
            test: those of F images per sequence, ``[F * S, C, h, w]``, the frames of a sequence S apart.
            reference_bbox: ``[S, 4]`` (x, y, w, h), px of the reference image.
            proposals: ``[F, S, P, 4]`` (x, y, w, h), px of the test images.

        Returns:
            ``[F, S, P]``.
        """
        frames = proposals.shape[0]
        third, fourth = self.get_modulation(reference, reference_bbox)
        modulation = (third.repeat(frames, 1, 1, 1), fourth.repeat(frames, 1, 1, 1))
        scores = self.predict_iou(modulation, self.get_iou_feat(test), proposals.flatten(0, 1))
        return scores.view(proposals.shape[:3])

    def get_modulation(self, reference: Pair, bbox: torch.Tensor) -> Pair:
        """What the target looks like.

        Args:
            reference: backbone features, ``[B, C, h, w]`` each.
            bbox: ``[B, 4]`` (x, y, w, h), px of the reference image.

        Returns:
            Weights of the channels of both test features, ``[B, C', 1, 1]`` each.
        """
        region = xywh_to_xyxy(bbox)[:, None]
        third = prroi_pool_grouped(self.conv3_1r(reference[0]), region, 3, 1 / STRIDES[0])[:, 0]
        fourth = prroi_pool_grouped(self.conv4_1r(reference[1]), region, 1, 1 / STRIDES[1])[:, 0]
        both = torch.cat([self.fc3_1r(third), fourth], 1)
        return self.fc34_3r(both), self.fc34_4r(both)

    def get_iou_feat(self, test: Pair) -> Pair:
        """Backbone features ``[B, C, h, w]`` of test images to those that proposals are pooled from."""
        return self.conv3_2t(self.conv3_1t(test[0])), self.conv4_2t(self.conv4_1t(test[1]))

    def predict_iou(self, modulation: Pair, iou_feat: Pair, proposals: torch.Tensor) -> torch.Tensor:
        """Scores of proposals, differentiable in them; computed in float32 also under autocast.

        Args:
            modulation: of ``get_modulation``, ``[B, C']`` or ``[B, C', 1, 1]`` each.
            iou_feat: of ``get_iou_feat``.
            proposals: ``[B, P, 4]`` (x, y, w, h), px of the test images.

        Returns:
            ``[B, P]``.
        """
        regions = xywh_to_xyxy(proposals)
        with torch.autocast(proposals.device.type, enabled=False):
            parts = [
                self._pooled(feature, weight, regions, bins, 1 / stride, block)
                for feature, weight, bins, stride, block in zip(
                    iou_feat, modulation, BINS, STRIDES, (self.fc3_rt, self.fc4_rt)
                )
            ]
            return self.iou_predictor(torch.cat(parts, 1)).view(proposals.shape[:2])

    @staticmethod
    def _pooled(
        feature: torch.Tensor,
        weight: torch.Tensor,
        regions: torch.Tensor,
        bins: int,
        scale: float,
        block: LinearBlock,
    ) -> torch.Tensor:
        """Modulated features of every region, ``[B * P, channels]``; pooling and modulation commute."""
        kind = block.linear.weight.dtype
        pooled = prroi_pool_grouped(feature.to(kind), regions.to(kind), bins, scale)
        weighted = pooled * weight.to(kind).view(weight.shape[0], 1, -1, 1, 1)
        return block(weighted.flatten(0, 1).flatten(1))
