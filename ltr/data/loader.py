"""Batches: which samples belong to a step, made by workers that live as long as the run.

A sample is a function of ``(seed, epoch, index)`` and of the sampler state at the start of the epoch. The
index is a sample's place in the epoch over all processes, so any number of workers and ranks sees the same
samples. A sample that cannot be read is replaced by the next attempt of the same index, named in the batch.

The batch, torch tensors on the CPU (``n`` and ``m`` are this rank's shares; images are RGB uint8, boxes xywh
px; ``h, w`` of templates, ``H, W`` of search crops)::

    batch["sup"]    template [n, h, w, 3], search [n, H, W, 3],
                    template_bbox, search_bbox float32 [n, 4] in the crop,
                    draws float32 [n, DRAWS] for ltr.data.augment, index int64 [n]
    batch["unsup"]  key, relay [m, h, w, 3], unlabeled, aug [m, H, W, 3],
                    key_bbox, relay_bbox float32 [m, 4] in the crop,
                    unlabeled_extract, aug_extract float64 [m, 4] image px, about which the crops were made,
                    unlabeled_factor, aug_factor float64 [m] crop px per image px,
                    aug_mean float32 [m, 3] channel mean of the frame, 0..255,
                    image_size float32 [m, 2] width, height,
                    row, frame int64 [m] of the sampler state, draws, index   (absent in burn-in)
    batch["bad"]    list of str, one message per sample that was replaced
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from torch.utils.data._utils import signal_handling

from config.console import warn
from config.errors import UserError
from config.settings import Settings
from ltr.data.image_loader import BadImage
from ltr.data.processing import Processing, Sample

ATTEMPTS = 20  # unreadable samples in a row, for one index, before the run stops
DEATHS = 3  # of workers before their first batch, before the run stops
_DEAD_WORKER = re.compile(r"DataLoader worker \(pid\(s\) ([\d, ]+)\)|Pin memory thread exited unexpectedly")
_STREAM = 16  # of random numbers for jitter and augmentation; the samplers use 1 to 3


@dataclass(frozen=True, slots=True)
class Key:
    """Names one sample."""

    epoch: int
    index: int  # place in the epoch over all ranks
    kind: Literal["sup", "unsup"]


class Draws(Protocol):
    """Decides what a sample is, and sees the sampler state of each new epoch; see ``ltr.data.sampler``."""

    def draw(self, epoch: int, index: int, attempt: int = 0) -> Any:
        """The frames and boxes of a sample."""


class TrackingSamples(Dataset):
    """All training samples, addressed by ``Key``.

    Args:
        pairs: labelled pairs.
        instances: unsupervised instances, None for supervised training.
        settings: ``seed`` and ``data`` are used.
    """

    def __init__(self, pairs: Draws, instances: Draws | None, settings: Settings) -> None:
        self._draws = {"sup": pairs, "unsup": instances}
        self._seed = settings.seed
        self._processing = Processing(settings)

    def __getitem__(self, key: Key) -> Sample:
        """One sample, with its key (``named``) and the messages of the attempts that failed (``bad``).

        A ``UserError`` is returned as ``error``, because a worker process cannot raise it whole.
        """
        bad: list[str] = []
        try:
            for attempt in range(ATTEMPTS):
                try:
                    return self._make(key, attempt) | {"named": key, "bad": bad}
                except BadImage as error:
                    bad.append(str(error))
            raise UserError(f"{ATTEMPTS} unreadable samples in a row, the last: {bad[-1]}; mend the data set")
        except UserError as error:
            return {"named": key, "bad": bad, "error": str(error)}

    def _make(self, key: Key, attempt: int) -> Sample:
        draws = self._draws[key.kind]
        assert draws is not None, "this training has no unsupervised instances"
        seeds = np.random.SeedSequence([self._seed, key.epoch, key.index, attempt, _STREAM])
        rng = np.random.Generator(np.random.PCG64(seeds))
        drawn = draws.draw(key.epoch, key.index, attempt)
        make = self._processing.pair if key.kind == "sup" else self._processing.instance
        return make(drawn, rng) | {"index": np.int64(key.index)}


def collate(samples: list[Sample]) -> dict[str, Any]:
    """Samples as one batch, see the module's text; ``error`` holds the first user error, if any."""
    batch: dict[str, Any] = {"bad": [message for sample in samples for message in sample["bad"]]}
    errors = [sample["error"] for sample in samples if "error" in sample]
    if errors:
        return batch | {"error": errors[0]}
    for kind in ("sup", "unsup"):
        part = [sample for sample in samples if sample["named"].kind == kind]
        if part:
            names = part[0].keys() - {"named", "bad"}
            batch[kind] = {name: _stack([sample[name] for sample in part]) for name in sorted(names)}
    return batch


def _stack(values: list[Any]) -> torch.Tensor:
    if np.ndim(values[0]):  # in a worker straight into the memory that it shares with the main process
        return default_collate(values)
    return torch.from_numpy(np.stack(values))


@dataclass(frozen=True)
class Plan:
    """Which samples a rank makes in each step.

    Step ``s`` of all ranks together has the indices ``s * (sup + unsup) + j``. In burn-in all are labelled
    pairs; in the sparse stage the first ``sup`` are. A rank takes a contiguous share of each kind.
    """

    iterations: int  # steps per epoch
    sup: int  # labelled pairs per step, all ranks together
    unsup: int  # unsupervised instances per step, all ranks together
    rank: int = 0
    ranks: int = 1

    def batches(self, epoch: int, sparse: bool, start: int = 0) -> Iterator[list[Key]]:
        """The keys of each step from ``start`` on."""
        size = self.sup + self.unsup
        labelled = self.sup if sparse else size
        sup, unsup = self._share(0, labelled), self._share(labelled, size)
        for step in range(start, self.iterations):
            first = step * size
            yield [Key(epoch, first + j, "sup") for j in sup] + [
                Key(epoch, first + j, "unsup") for j in unsup
            ]

    def _share(self, begin: int, end: int) -> range:
        count = end - begin
        return range(begin + count * self.rank // self.ranks, begin + count * (self.rank + 1) // self.ranks)


class _Epoch(Sampler[list[Key]]):
    """What torch's loader asks for the keys of the coming epoch."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.epoch, self.sparse, self.start = plan, 0, False, 0

    def __iter__(self) -> Iterator[list[Key]]:
        return self.plan.batches(self.epoch, self.sparse, self.start)

    def __len__(self) -> int:
        return self.plan.iterations - self.start


class Loader:
    """Yields the batches of any epoch, made by the same workers.

    Args:
        samples: makes the samples.
        plan: which ones.
        workers: processes; 0: made in this process when asked for.
        prefetch: batches that each worker prepares ahead.
        pin: copy batches to page-locked memory, for a GPU.
    """

    def __init__(
        self, samples: TrackingSamples, plan: Plan, workers: int, prefetch: int, pin: bool = False
    ) -> None:
        # A worker's death is found when its batch is waited for. Torch's handler would raise it wherever the main process
        # is: in the middle of a step, a save, or the start of the other workers. So it must think that it has set it.
        signal_handling._SIGCHLD_handler_set = True
        self._epoch = _Epoch(plan)
        self._make = (
            lambda: DataLoader(
                samples,
                batch_sampler=self._epoch,
                num_workers=workers,
                collate_fn=collate,
                pin_memory=pin,
                persistent_workers=workers > 0,
                prefetch_factor=max(prefetch, 1) if workers else None,
                worker_init_fn=_start_worker,
                generator=torch.Generator(),  # torch's loader draws a number we do not use; not from global state
            )
        )
        self._loader = self._make()

    def epoch(self, epoch: int, sparse: bool, start: int = 0) -> Iterator[dict[str, Any]]:
        """The batches of one epoch from step ``start`` on; only now do workers look at the sampler state.

        Where a worker dies new ones make its batches again, which are the same.

        Raises:
            UserError: a broken annotation, too many unreadable samples in a row, or workers that die again and again.
        """
        self._epoch.epoch, self._epoch.sparse, self._epoch.start = epoch, sparse, start
        died = 0
        while self._epoch.start < self._epoch.plan.iterations:
            try:
                for batch in self._loader:
                    if "error" in batch:
                        raise UserError(batch["error"])
                    self._epoch.start, died = self._epoch.start + 1, 0
                    yield batch
            except RuntimeError as error:
                gone = _DEAD_WORKER.match(str(error))
                if gone is None:
                    raise
                died += 1
                what = f"a worker of the loader died (process {gone[1]}), killed from outside or for want of memory"
                if died == DEATHS:
                    raise UserError(
                        f"{what}, the {DEATHS}th time before its first batch; give fewer data.workers or data.prefetch"
                    ) from error
                warn(f"{what}; new ones go on")
                self._loader = self._make()


def build_loader(
    samples: TrackingSamples,
    settings: Settings,
    *,
    rank: int = 0,
    ranks: int = 1,
    pin: bool = False,
) -> Loader:
    """The loader of one process.

    Args:
        samples: makes the samples.
        settings: ``train.iterations``, ``train.batch_size_*``, ``data.workers``, ``data.prefetch`` are used.
        rank: number of this process.
        ranks: how many processes train together.
        pin: copy batches to page-locked memory, for a GPU.
    """
    train, data = settings.train, settings.data
    plan = Plan(train.iterations, train.batch_size_sup, train.batch_size_unsup, rank, ranks)
    return Loader(samples, plan, data.workers, data.prefetch, pin)


def _start_worker(_: int) -> None:
    """One thread per worker, and the main process decides what Ctrl-C and SIGTERM mean."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
