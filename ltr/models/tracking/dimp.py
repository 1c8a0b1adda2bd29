"""DiMP, PrDiMP and SuperDiMP: a learned target classifier and an IoU network on one backbone.

Bhat et al., Learning Discriminative Model Prediction for Tracking, ICCV 2019;
Danelljan et al., Probabilistic Regression for Visual Tracking, CVPR 2020.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from config.errors import UserError
from ltr.models.backbone.resnet_ltr import LTRBackbone
from ltr.models.bbreg.iou_net import AtomIoUNet
from ltr.models.registry import NETWORKS
from ltr.models.target_classifier.features import classification_features
from ltr.models.target_classifier.initializer import FilterInitializer
from ltr.models.target_classifier.linear_filter import LinearFilter
from ltr.models.target_classifier.optimizer import (
    DiMPOptimizer,
    HingeOptimizer,
    PrDiMPOptimizer,
    SteepestDescent,
)
from ltr.models.target_classifier.residual_modules import HingeResidual
from ltr.models.tracking.atom import IOU_LAYERS, iou_network, ltr_backbone

CLASSIFICATION_LAYER = "layer3"
STRIDE = 16  # of that layer, px per cell


class DiMPnet(nn.Module):
    """Learns a filter from train frames, scores test frames with it, and scores box proposals there.

    Parameter names are the published ones.

    Args:
        feature_extractor: the backbone.
        classifier: the target classifier.
        bb_regressor: the IoU network.
        frozen_backbone_layers: stages or modules of the backbone that do not train; see ``LTRBackbone.freeze``.
    """

    def __init__(
        self,
        feature_extractor: LTRBackbone,
        classifier: LinearFilter,
        bb_regressor: AtomIoUNet,
        frozen_backbone_layers: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.feature_extractor = feature_extractor
        self.classifier = classifier
        self.bb_regressor = bb_regressor
        self.feature_extractor.freeze(frozen_backbone_layers)

    def forward(
        self,
        train_images: torch.Tensor,
        test_images: torch.Tensor,
        train_bbox: torch.Tensor,
        test_proposals: torch.Tensor,
        train_label: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Classify test frames and score proposals in them, for S sequences.

        Args:
            train_images: normalised RGB crops ``[F', S, 3, H, W]``.
            test_images: ``[F, S, 3, H, W]``.
            train_bbox: the target in ``train_images``, ``[F', S, 4]`` (x, y, w, h) in crop px.
            test_proposals: ``[F, S, P, 4]`` (x, y, w, h) in crop px.
            train_label: scores wanted for ``train_images``, ``[F', S, h, w]``, for SuperDiMP-simple only.

        Returns:
            ``target_scores`` ``[iterations + 1, F, S, h, w]``: score maps by the filter after each iteration of
            its optimiser, of which the last are those that count; h = H / 16, one more for an even filter;
            ``proposal_scores`` ``[F, S, P]``: 2 IoU - 1 predicted, or an energy, as trained.
        """
        frames, sequences = train_images.shape[:2]
        train = self.extract_backbone(train_images.flatten(0, 1))
        test = self.extract_backbone(test_images.flatten(0, 1))
        classified = [self.classification_features(features) for features in (train, test)]
        scores = self.classifier(
            *(features.unflatten(0, (-1, sequences)) for features in classified), train_bbox, train_label
        )
        # The IoU network takes its reference from the first frame of each sequence.
        third, fourth = (feature.unflatten(0, (frames, sequences))[0] for feature in self.iou_features(train))
        proposals = self.bb_regressor((third, fourth), self.iou_features(test), train_bbox[0], test_proposals)
        return {"target_scores": scores, "proposal_scores": proposals}

    def extract_backbone(
        self, images: torch.Tensor, layers: Collection[str] = IOU_LAYERS
    ) -> dict[str, torch.Tensor]:
        """Backbone features of normalised images ``[B, 3, H, W]``, ``[B, C, h, w]`` by layer."""
        return self.feature_extractor.layers(images, layers)

    def classification_features(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Backbone features by layer to those that filters see, ``[B, C, H / 16, W / 16]``."""
        return self.classifier.feature_extractor(features[CLASSIFICATION_LAYER])

    def iou_features(self, features: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The part of the backbone's features that the IoU network takes."""
        return features[IOU_LAYERS[0]], features[IOU_LAYERS[1]]

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that train at the backbone's learning rate."""
        return self.feature_extractor.parameters()

    def set_trainable(self, stages: Collection[str]) -> None:
        """Train exactly these stages of the backbone; see ``LTRBackbone.set_trainable``."""
        self.feature_extractor.set_trainable(stages)


def _network(
    optimizer: SteepestDescent,
    *,
    backbone: str,
    filter_size: int,
    clf_feat_blocks: int,
    out_feature_dim: int,
    frozen_backbone_layers: Sequence[str],
    iou_dim: int,
    zero_filter: bool = False,
) -> DiMPnet:
    trunk = ltr_backbone(backbone)
    if filter_size < 1 or clf_feat_blocks < 0 or out_feature_dim < 1:
        raise ValueError(
            f"filter_size {filter_size} and out_feature_dim {out_feature_dim} must be at least 1, "
            f"clf_feat_blocks {clf_feat_blocks} at least 0"
        )
    features = classification_features(
        trunk.layer_channels[CLASSIFICATION_LAYER],
        out_feature_dim,
        block=trunk.block,
        blocks=clf_feat_blocks,
        filter_size=filter_size,
    )
    classifier = LinearFilter(
        filter_initializer=FilterInitializer(out_feature_dim, filter_size, STRIDE, zero=zero_filter),
        filter_optimizer=optimizer,
        feature_extractor=features,
    )
    return DiMPnet(trunk, classifier, iou_network(trunk, iou_dim), frozen_backbone_layers)


@NETWORKS.register("dimpnet50")
def dimpnet50(
    *,
    backbone: str = "ltr_resnet50",
    filter_size: int = 4,
    clf_feat_blocks: int = 0,
    out_feature_dim: int = 512,
    frozen_backbone_layers: Sequence[str] = (),
    iou_dim: int = 256,
    optim_iter: int = 5,
    optim_init_step: float = 0.9,
    optim_init_reg: float = 0.1,
    init_gauss_sigma: float = 0.9,
    num_dist_bins: int = 100,
    bin_displacement: float = 0.1,
    mask_init_factor: float = 3.0,
    score_act: str = "relu",
    act_param: float | None = None,
) -> DiMPnet:
    """DiMP and SuperDiMP. The defaults are the published DiMP-50.

    Args:
        backbone: "ltr_resnet18", "ltr_resnet50", "ltr_small" or "ltr_tiny".
        filter_size: side of the filter, cells.
        clf_feat_blocks: residual blocks before the classification features.
        out_feature_dim: channels of the classification features.
        frozen_backbone_layers: see ``DiMPnet``.
        iou_dim: channels of the IoU network, see ``AtomIoUNet``.
        optim_iter: iterations of the optimiser in training.
        optim_init_step, optim_init_reg, init_gauss_sigma, num_dist_bins, bin_displacement, mask_init_factor,
            score_act, act_param: see ``DiMPOptimizer``.
    """
    if num_dist_bins < 2:
        raise ValueError(f"num_dist_bins {num_dist_bins} must be at least 2")
    optimizer = DiMPOptimizer(
        num_iter=optim_iter,
        stride=STRIDE,
        init_step_length=optim_init_step,
        init_filter_reg=optim_init_reg,
        init_gauss_sigma=init_gauss_sigma,
        num_dist_bins=num_dist_bins,
        bin_displacement=bin_displacement,
        mask_init_factor=mask_init_factor,
        score_act=score_act,
        act_param=act_param,
    )
    return _network(
        optimizer,
        backbone=backbone,
        filter_size=filter_size,
        clf_feat_blocks=clf_feat_blocks,
        out_feature_dim=out_feature_dim,
        frozen_backbone_layers=frozen_backbone_layers,
        iou_dim=iou_dim,
    )


@NETWORKS.register("klcedimpnet50")
def klcedimpnet50(
    *,
    backbone: str = "ltr_resnet50",
    filter_size: int = 4,
    clf_feat_blocks: int = 0,
    out_feature_dim: int = 512,
    frozen_backbone_layers: Sequence[str] = (),
    iou_dim: int = 256,
    optim_iter: int = 5,
    optim_init_step: float = 1.0,
    optim_init_reg: float = 0.05,
    optim_min_reg: float = 0.05,
    gauss_sigma: float = 0.9,
    alpha_eps: float = 0.05,
    normalize_label: bool = True,
    init_initializer: str = "zero",
) -> DiMPnet:
    """PrDiMP. The defaults are the published PrDiMP-50.

    Args:
        backbone, filter_size, clf_feat_blocks, out_feature_dim, frozen_backbone_layers, iou_dim,
            optim_iter: as for ``dimpnet50``.
        optim_init_step, optim_init_reg, optim_min_reg, gauss_sigma, alpha_eps, normalize_label: see
            ``PrDiMPOptimizer``.
        init_initializer: "zero" or "default", what the filter initialiser's convolution starts training with.
    """
    if init_initializer not in ("zero", "default"):
        raise ValueError(f"init_initializer '{init_initializer}' is neither 'zero' nor 'default'")
    optimizer = PrDiMPOptimizer(
        num_iter=optim_iter,
        stride=STRIDE,
        init_step_length=optim_init_step,
        init_filter_reg=optim_init_reg,
        min_filter_reg=optim_min_reg,
        gauss_sigma=gauss_sigma,
        alpha_eps=alpha_eps,
        normalize_label=normalize_label,
    )
    return _network(
        optimizer,
        backbone=backbone,
        filter_size=filter_size,
        clf_feat_blocks=clf_feat_blocks,
        out_feature_dim=out_feature_dim,
        frozen_backbone_layers=frozen_backbone_layers,
        iou_dim=iou_dim,
        zero_filter=init_initializer == "zero",
    )


@NETWORKS.register("dimpnet50_simple")
def dimpnet50_simple(
    *,
    backbone: str = "ltr_resnet50",
    filter_size: int = 4,
    clf_feat_blocks: int = 0,
    out_feature_dim: int = 512,
    frozen_backbone_layers: Sequence[str] = ("conv1", "bn1", "layer1", "layer2"),
    iou_dim: int = 256,
    optim_iter: int = 5,
    optim_init_reg: float = 0.1,
    hinge_threshold: float = 0.05,
    activation_leak: float = 0.1,
    score_act: str = "relu",
    act_param: float | None = None,
) -> DiMPnet:
    """SuperDiMP-simple, which takes the labels of its train frames from outside. The defaults are the published ones.

    Args:
        backbone, filter_size, clf_feat_blocks, out_feature_dim, frozen_backbone_layers, iou_dim,
            optim_iter: as for ``dimpnet50``.
        optim_init_reg, hinge_threshold, activation_leak, score_act, act_param: see ``HingeResidual``.
    """
    residual = HingeResidual(
        init_filter_reg=optim_init_reg,
        threshold=hinge_threshold,
        leak=activation_leak,
        activation=score_act,
        act_param=act_param,
    )
    return _network(
        HingeOptimizer(num_iter=optim_iter, residual=residual),
        backbone=backbone,
        filter_size=filter_size,
        clf_feat_blocks=clf_feat_blocks,
        out_feature_dim=out_feature_dim,
        frozen_backbone_layers=frozen_backbone_layers,
        iou_dim=iou_dim,
    )


_EIGHTEEN: dict[str, Any] = {"backbone": "ltr_resnet18", "clf_feat_blocks": 1, "out_feature_dim": 256}
NETWORKS.register("dimpnet18")(functools.partial(dimpnet50, **_EIGHTEEN))
NETWORKS.register("klcedimpnet18")(functools.partial(klcedimpnet50, **_EIGHTEEN))

# Arguments of the published constructors, with the only value that we know a use of.
_FIXED = {
    "classification_layer": CLASSIFICATION_LAYER,
    "feat_stride": STRIDE,
    "clf_feat_norm": True,
    "final_conv": True,
    "target_mask_act": "sigmoid",
    "init_filter_norm": False,
    "detach_length": math.inf,
    "iou_input_dim": (256, 256),
    "iou_inter_dim": (256, 256),
}


def published_args(kwds: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for our networks from the keyword arguments that a published checkpoint's constructor had.

    Raises:
        UserError: one that our networks have no equivalent of.
    """
    for name, value in _FIXED.items():
        given = kwds.get(name, value)
        if (tuple(given) if isinstance(given, list) else given) != value:
            raise UserError(
                f"the checkpoint's network was built with {name}={given!r}, ours has only {value!r}; take another file"
            )
    return {name: value for name, value in kwds.items() if name not in {*_FIXED, "backbone_pretrained"}}
