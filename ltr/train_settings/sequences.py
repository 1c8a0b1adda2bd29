"""The eight parts of a training on sequences of frames: ATOM, DiMP, PrDiMP, SuperDiMP.

``train_sequences`` puts together what a variant's settings describe; docs/own_training.md does the same by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields

from torch import nn

from config.errors import UserError, nearest
from config.settings import Settings
from ltr.actors.sequences import SequenceActor
from ltr.admin.process_group import ProcessGroup
from ltr.admin.run import Run
from ltr.data.labels import GaussianLabel
from ltr.data.loader import Loader
from ltr.data.processing_ltr import Jitter, SequenceProcessing, SequenceSamples
from ltr.data.proposals import MixtureBoxes, PerturbedBoxes
from ltr.data.sampler_ltr import TrackingSequences
from ltr.dataset.base import VideoDataset
from ltr.models.tracking.dimp import STRIDE
from ltr.train_settings.common import (
    begin,
    constructor,
    make_loader,
    make_network,
    make_optimizer,
    make_schedule,
    make_validation_loader,
    open_datasets,
    open_specs,
    parallel,
)
from ltr.trainers.validated_trainer import ValidatedTrainer

MakeActor = Callable[[nn.Module, Settings, ProcessGroup], SequenceActor]
ProposalKind = type[PerturbedBoxes] | type[MixtureBoxes]


def configure_published(settings: Settings) -> None:
    """What ATOM and the trackers after it were published with."""
    settings.data.datasets = ["LaSOT:train", "GOT-10k:vottrain", "TrackingNet:0-3", "COCO:train2017"]
    settings.data.search_size, settings.data.search_factor = 288, 5.0
    settings.data.center_jitter_search, settings.data.scale_jitter_search = 4.5, 0.5
    settings.validation.datasets = ["GOT-10k:votval"]
    settings.train.epochs = settings.train.burn_in_epochs = 50
    settings.optim.name, settings.optim.weight_decay = "adam", 0.0
    settings.optim.schedule, settings.optim.drop_epoch, settings.optim.gamma = "stepevery", 15, 0.2


def set_batch(settings: Settings, size: int, *, samples: int, validated: int) -> None:
    """A batch size, and as many steps as an epoch and a validation need for their samples."""
    settings.train.batch_size_sup, settings.train.batch_size_unsup = size, 0
    settings.train.iterations = samples // size
    settings.validation.iterations = validated // size


def train_sequences(settings: Settings, actor: MakeActor, proposals: ProposalKind) -> None:
    """Supervised training on train and test frames of videos, with a validation where one is asked for.

    Args:
        settings: merged settings; ``network``, ``data``, ``sequences``, ``validation``, ``train``, ``optim`` and
            ``objective`` are used.
        actor: makes the actor from the network, which may be wrapped.
        proposals: what makes the proposals, from the arguments ``sequences.proposals``.
    """
    group = begin(settings)
    try:
        share = (settings.train.batch_size_sup + settings.train.batch_size_unsup) // group.size
        if share < 2:
            raise UserError(
                f"setting train.batch_size_sup gives {share} sequence per process: the regressor's batch norms need 2"
            )
        datasets = open_datasets(settings, aloud=group.first)
        processing = make_processing(settings, proposals)
        sampler = make_sampler(settings, datasets, settings.sequences.weights)
        validation = make_validation(settings, processing, group)
        network = make_network(settings, group)
        ValidatedTrainer(
            actor=actor(parallel(network, settings, group), settings, group),
            loader=make_loader(SequenceSamples(sampler, processing, settings.seed), settings, group),
            validation=validation,
            optimizer=make_optimizer(settings, network),
            schedule=make_schedule(settings, network),
            run=Run(settings, type(network).__name__, group),
            group=group,
            constructor=constructor(settings),
        ).train(settings.train.epochs)
    finally:
        group.close()


def make_processing(settings: Settings, proposals: ProposalKind) -> SequenceProcessing:
    """Crops of ``data.search_size`` and proposals in them."""
    data, sequences = settings.data, settings.sequences
    given = sequences.proposals
    known = [field.name for field in fields(proposals)]
    for name in given:
        if name not in known:
            raise UserError(
                f"setting sequences.proposals.{name}: {proposals.__name__} has no such argument, {nearest(name, known)}"
            )
    if given.count < 1:
        raise UserError(f"setting sequences.proposals.count {given.count}: must be at least 1")
    return SequenceProcessing(
        size=(data.search_size, data.search_size),
        search_factor=data.search_factor,
        train_jitter=Jitter(sequences.center_jitter_train, sequences.scale_jitter_train),
        test_jitter=Jitter(data.center_jitter_search, data.scale_jitter_search),
        proposals=proposals(**given),
        mode=sequences.crop,
        max_scale_change=sequences.max_scale_change or math.inf,
    )


def make_sampler(
    settings: Settings, datasets: Sequence[VideoDataset], weights: Sequence[float]
) -> TrackingSequences:
    """Draws frames as ``settings.sequences`` says; without weights all data sets equally often."""
    sequences = settings.sequences
    return TrackingSequences(
        datasets,
        settings.seed,
        weights=[float(weight) for weight in weights] or [1.0] * len(datasets),
        train_frames=sequences.train_frames,
        test_frames=sequences.test_frames,
        max_gap=sequences.max_gap,
        mode=sequences.mode,
    )


def make_validation(settings: Settings, processing: SequenceProcessing, group: ProcessGroup) -> Loader | None:
    """The loader of ``validation.datasets``, None without any."""
    datasets = open_specs(settings.validation.datasets, settings, aloud=group.first)
    if not datasets:
        return None
    sampler = make_sampler(settings, datasets, [])
    return make_validation_loader(SequenceSamples(sampler, processing, settings.seed), settings, group)


def make_label(settings: Settings, *, density: bool = False) -> GaussianLabel:
    """The label of the score maps of a network with ``network.args.filter_size``.

    Args:
        density: a density over the map, of sum 1, instead of a bump of height 1.
    """
    size, cells = settings.data.search_size, settings.data.search_size // STRIDE
    if size % STRIDE:
        raise UserError(f"setting data.search_size {size}: must be a multiple of {STRIDE}")
    return GaussianLabel(
        sigma=settings.sequences.label_sigma / settings.data.search_factor,
        kernel=settings.network.args.filter_size,
        features=(cells, cells),
        image=(size, size),
        density=density,
        normalise=density,
    )
