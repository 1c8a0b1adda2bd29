"""A target classifier: features, an initial filter, its optimisation, and scores by it. Bhat et al., DiMP, ICCV 2019."""

from __future__ import annotations

import torch
from torch import nn

from ltr.models.layers.filter import apply_filter
from ltr.models.target_classifier.initializer import FilterInitializer
from ltr.models.target_classifier.optimizer import Optimised, SteepestDescent


class LinearFilter(nn.Module):
    """Learns a filter from some frames of a sequence and scores others by it.

    Args:
        filter_initializer: the filter from which to start.
        filter_optimizer: what makes it better.
        feature_extractor: backbone features ``[B, C', h, w]`` to classification features ``[B, C, h, w]``.
    """

    def __init__(
        self,
        *,
        filter_initializer: FilterInitializer,
        filter_optimizer: SteepestDescent,
        feature_extractor: nn.Module,
    ) -> None:
        super().__init__()
        self.filter_initializer = filter_initializer
        self.filter_optimizer = filter_optimizer
        self.feature_extractor = feature_extractor

    @property
    def filter_size(self) -> int:
        """The side of a filter, cells."""
        return self.filter_initializer.filter_size

    def forward(
        self,
        train_features: torch.Tensor,
        test_features: torch.Tensor,
        train_bboxes: torch.Tensor,
        train_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Scores of test frames by the filters after each iteration.

        Args:
            train_features: classification features ``[F', S, C, h, w]``.
            test_features: ``[F, S, C, h, w]``.
            train_bboxes: ``[F', S, 4]`` (x, y, w, h), px of the images.
            train_labels: ``[F', S, h', w']`` where the optimiser needs them.

        Returns:
            ``[iterations + 1, F, S, h', w']``; the last are the classifier's, the first of the initial filter.
        """
        fitted = self.get_filter(train_features, train_bboxes, labels=train_labels)
        return self.classify(fitted.filters.transpose(0, 1), test_features).movedim(2, 0)

    def get_filter(
        self,
        features: torch.Tensor,
        bboxes: torch.Tensor,
        *,
        labels: torch.Tensor | None = None,
        sample_weight: torch.Tensor | None = None,
        num_iter: int | None = None,
    ) -> Optimised:
        """The optimised filter of each sequence, and all on the way there; arguments as for ``SteepestDescent``."""
        filter = self.filter_initializer(features, bboxes)
        return self.filter_optimizer(
            filter, features, bboxes, labels=labels, sample_weight=sample_weight, num_iter=num_iter
        )

    def classify(self, filter: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Scores of classification features ``[F, S, C, h, w]``.

        Args:
            filter: ``[S, C, k, k]``, or several per sequence ``[S, N, C, k, k]``.

        Returns:
            ``[F, S, h', w']`` or ``[F, S, N, h', w']``, one row and column more than the features for an even filter.
        """
        return apply_filter(features, filter.to(features.dtype))
