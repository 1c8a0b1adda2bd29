"""The samples that a filter is learned from, and what each of them counts.

A new sample counts ``rate / (1 - rate)`` times all that came before, so that the past fades exponentially; the first
frame's samples keep a least share (Danelljan et al., ATOM, CVPR 2019; Bhat et al., DiMP, ICCV 2019).
"""

from __future__ import annotations

import numpy as np
import torch

from config.errors import UserError


class SampleWeights:
    """Weights of ``capacity`` places. They live on the host, where the next place is chosen.

    Their sum is one; as published, up to 5 % more after an update that gives the first frame its least share.

    Args:
        capacity: places in all.
        initial: samples of the first frame, which take the first places.
        rate: weight of a new sample, in (0, 1).
        least_initial: share that the first frame's samples keep together; 0: none, and they can be replaced too.

    Raises:
        UserError: there is no place for a new sample.
    """

    def __init__(self, capacity: int, initial: int, rate: float, least_initial: float) -> None:
        if capacity <= initial:
            raise UserError(
                f"setting 'tracker.memory_size' is {capacity}: the first frame alone makes {initial} samples; "
                "enlarge it or augment less"
            )
        self.values = np.zeros(capacity, np.float32)
        self.values[:initial] = 1 / initial
        self.initial, self.rate, self.least_initial = initial, rate, least_initial
        self.stored = initial
        self._last: int | None = None

    def admit(self, rate: float | None = None) -> int:
        """Make place for a new sample of weight ``rate`` (default: the usual one) and return it."""
        rate = self.rate if rate is None else rate
        weights, fixed = self.values, self.initial if self.least_initial else 0
        full = self.stored == len(weights)
        place = fixed + int(weights[fixed:].argmin()) if full else self.stored
        if self._last is None:
            weights /= 1 - rate
            weights[place] = rate
        else:
            weights[place] = weights[self._last] / (1 - rate)
        weights /= weights.sum()
        if weights[: self.initial].sum() < self.least_initial:
            weights /= self.least_initial + weights[self.initial :].sum()
            weights[: self.initial] = self.least_initial / self.initial
        self._last, self.stored = place, min(self.stored + 1, len(weights))
        return place


class SampleMemory:
    """Samples and what belongs to them (boxes, labels), in tensors that are allocated once.

    Args:
        weights: of the samples.
        first: the first frame's, tensors ``[N, ...]`` that belong together.
    """

    def __init__(self, weights: SampleWeights, *first: torch.Tensor) -> None:
        self.weights = weights
        capacity = len(weights.values)
        with torch.inference_mode(False):  # optimisers differentiate through them
            self._places = [part.new_zeros(capacity, *part.shape[1:]) for part in first]
        for place, part in zip(self._places, first):
            place[: len(part)] = part

    def add(self, *sample: torch.Tensor, rate: float | None = None) -> None:
        """Store one sample, parts ``[1, ...]`` or ``[...]`` as in ``first``, with weight ``rate`` (see ``admit``)."""
        place = self.weights.admit(rate)
        for stored, part in zip(self._places, sample):
            stored[place] = part.reshape(stored.shape[1:])

    def contents(self) -> tuple[torch.Tensor, ...]:
        """All parts of the stored samples, ``[n, ...]`` each, and last their weights ``[n]``, on the samples' device."""
        count = self.weights.stored
        weights = torch.from_numpy(self.weights.values[:count].copy()).to(
            self._places[0].device, non_blocking=True
        )
        return *(part[:count] for part in self._places), weights
