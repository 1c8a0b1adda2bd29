"""SP-DiMP: DiMP-50 trained from a few labelled frames per video; docs/sparse_dimp.md says what differs from SP-TransT.

SPOT, Sparsely-Supervised Object Tracking, IEEE TIP 2024; Bhat et al., DiMP, ICCV 2019.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from config.errors import UserError, nearest
from config.settings import Settings
from ltr.actors.sparse_dimp import SparseDiMPActor
from ltr.admin.process_group import ProcessGroup
from ltr.admin.run import Run
from ltr.data.processing_ltr import Jitter
from ltr.data.sampler import LabelledPairs, SparseInstances
from ltr.data.sparse_sequences import SparseSequenceProcessing, SparseSequenceSamples
from ltr.train_settings.common import (
    begin,
    constructor,
    label_entries,
    make_loader,
    make_network,
    make_optimizer,
    make_schedule,
    open_datasets,
    open_state,
    parallel,
)
from ltr.train_settings.dimp.base import configure_dimp, dimp_actor
from ltr.trainers.sparse_trainer import SparseTrainer
from ltr.trainers.teacher import make_teacher

_PROPOSALS = ("count", "min_iou", "sigmas")


def configure(settings: Settings) -> None:
    """DiMP-50's published settings for crops, losses and rates; SP-TransT's for batches and the sparse stage."""
    configure_dimp(settings)
    settings.description = "SP-DiMP"
    settings.data.datasets = ["LaSOT:train", "GOT-10k:vottrain", "TrackingNet:0-3"]
    settings.validation.datasets = []
    settings.train.epochs, settings.train.burn_in_epochs, settings.train.iterations = 100, 25, 1000
    settings.train.batch_size_sup, settings.train.batch_size_unsup = 8, 24
    settings.optim.drop_epoch = 30
    settings.sparse.confidence_threshold = 0.4
    settings.sparse.window_penalty = 0.30


def actor(network: nn.Module, teacher: nn.Module, settings: Settings, group: ProcessGroup) -> SparseDiMPActor:
    """The actor with DiMP's losses and the weights of ``settings.objective``."""
    learner = dimp_actor(network, settings, group)
    return SparseDiMPActor(network, teacher, learner, settings, group)


def make_processing(settings: Settings) -> SparseSequenceProcessing:
    """Crops of ``data.search_size`` for train and test frames alike.

    Raises:
        UserError: ``sequences.proposals`` are not ``count``, ``min_iou`` and ``sigmas``, or are none.
    """
    data, sequences = settings.data, settings.sequences
    for name in sequences.proposals:
        if name not in _PROPOSALS:
            raise UserError(f"setting sequences.proposals.{name}: is not used, {nearest(name, _PROPOSALS)}")
    if sequences.proposals.count < 1 or not sequences.proposals.sigmas:
        raise UserError(
            f"setting sequences.proposals has {sequences.proposals.count} boxes and the sigmas "
            f"{sequences.proposals.sigmas}: must have at least one of each"
        )
    return SparseSequenceProcessing(
        size=data.search_size,
        search_factor=data.search_factor,
        train_jitter=Jitter(sequences.center_jitter_train, sequences.scale_jitter_train),
        test_jitter=Jitter(data.center_jitter_search, data.scale_jitter_search),
        proposals=sequences.proposals.count,
        sigmas=sequences.proposals.sigmas,
    )


def run(settings: Settings) -> None:
    """Train: burn-in and sparse stage."""
    group = begin(settings)
    try:
        datasets = open_datasets(settings, aloud=group.first)
        network = make_network(settings, group)
        run = Run(settings, type(network).__name__, group)
        entries = group.agree(label_entries(datasets, settings) if group.first else None)
        state = open_state(run, entries, group)
        sparse = settings.sparse
        samples = SparseSequenceSamples(
            LabelledPairs(datasets, state, settings.seed),
            SparseInstances(
                datasets, state, settings.seed, sparse.propagating_step, sparse.interpolation_limit
            ),
            make_processing(settings),
            settings.seed,
        )
        teacher = make_teacher(network)
        SparseTrainer(
            actor=actor(parallel(network, settings, group), teacher, settings, group),
            state=state,
            lengths=np.array([dataset.num_frames(i) for dataset in datasets for i in range(len(dataset))]),
            loader=make_loader(samples, settings, group),
            optimizer=make_optimizer(settings, network),
            schedule=make_schedule(settings, network),
            run=run,
            group=group,
            key_frames=state.fingerprint(),
            constructor=constructor(settings),
        ).train(settings.train.epochs)
    finally:
        group.close()
