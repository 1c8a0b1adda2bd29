"""ATOM's trained part: an IoU network on a fixed backbone. Danelljan et al., ATOM, CVPR 2019.

The classifier of ATOM is learned while tracking, on features of the same backbone, and is no part of this network.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import nn

from ltr.models.backbone.registry import BACKBONES
from ltr.models.backbone.resnet_ltr import LTRBackbone
from ltr.models.bbreg.iou_net import AtomIoUNet
from ltr.models.registry import NETWORKS

IOU_LAYERS = ("layer2", "layer3")  # what the IoU network sees


class ATOMnet(nn.Module):
    """Scores of box proposals for a target given in a reference image.

    Parameter names are the published ones. The backbone is frozen; ``set_trainable`` thaws it.
    """

    def __init__(self, feature_extractor: LTRBackbone, bb_regressor: AtomIoUNet) -> None:
        super().__init__()
        self.feature_extractor = feature_extractor
        self.bb_regressor = bb_regressor
        self.feature_extractor.set_trainable(())

    def forward(
        self,
        train_images: torch.Tensor,
        test_images: torch.Tensor,
        train_bbox: torch.Tensor,
        test_proposals: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Score proposals in the test images of S sequences.

        Args:
            train_images: normalised RGB crops ``[frames, S, 3, H, W]``, of which the first frames count.
            test_images: ``[F, S, 3, H, W]``.
            train_bbox: the target in ``train_images``, ``[frames, S, 4]`` (x, y, w, h) in crop px.
            test_proposals: ``[F, S, P, 4]`` (x, y, w, h) in crop px.

        Returns:
            ``proposal_scores`` ``[F, S, P]``: 2 IoU - 1 predicted, or an energy, as trained.
        """
        reference = self.iou_features(self.extract_backbone(train_images[0]))
        test = self.iou_features(self.extract_backbone(test_images.flatten(0, 1)))
        return {"proposal_scores": self.bb_regressor(reference, test, train_bbox[0], test_proposals)}

    def extract_backbone(
        self, images: torch.Tensor, layers: Collection[str] = IOU_LAYERS
    ) -> dict[str, torch.Tensor]:
        """Backbone features of normalised images ``[B, 3, H, W]``, ``[B, C, h, w]`` by layer."""
        return self.feature_extractor.layers(images, layers)

    def iou_features(self, features: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The part of the backbone's features that the IoU network takes."""
        return features[IOU_LAYERS[0]], features[IOU_LAYERS[1]]

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that train at the backbone's learning rate, if at all."""
        return self.feature_extractor.parameters()

    def set_trainable(self, stages: Collection[str]) -> None:
        """Train exactly these stages of the backbone; see ``LTRBackbone.set_trainable``."""
        self.feature_extractor.set_trainable(stages)


def ltr_backbone(name: str) -> LTRBackbone:
    """The backbone registered as ``name``.

    Raises:
        ValueError: it has no outputs by layer.
    """
    backbone = BACKBONES.get(name)()
    if not isinstance(backbone, LTRBackbone):
        raise ValueError(f"backbone '{name}' has no outputs by layer; take 'ltr_resnet18' or 'ltr_resnet50'")
    return backbone


def iou_network(backbone: LTRBackbone, dim: int) -> AtomIoUNet:
    """An IoU network of ``dim`` channels for the backbone.

    Raises:
        ValueError: an odd number of channels, or none.
    """
    if dim < 2 or dim % 2:
        raise ValueError(f"iou_dim {dim} must be even and at least 2")
    third, fourth = (backbone.layer_channels[layer] for layer in IOU_LAYERS)
    return AtomIoUNet(input_dim=(third, fourth), dim=dim)


@NETWORKS.register("atom_resnet18")
def atom_resnet18(*, backbone: str = "ltr_resnet18", iou_dim: int = 256) -> ATOMnet:
    """ATOM's IoU network. The defaults are the published ones.

    Args:
        backbone: "ltr_resnet18", "ltr_resnet50", "ltr_small" or "ltr_tiny".
        iou_dim: channels of the IoU network, see ``AtomIoUNet``.
    """
    trunk = ltr_backbone(backbone)
    return ATOMnet(trunk, iou_network(trunk, iou_dim))
