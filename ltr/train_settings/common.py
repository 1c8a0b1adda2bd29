"""The parts of a training that families share: data sets, sampler state, loader, optimizer, trainer.

A family's base file sets its fields, says how its network and objective are made, and calls
``train_sparse`` or ``train_supervised``. LTR's eight parts (data sets, processing, sampler, network,
objective, actor, optimizer, trainer) stand in that order below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from config.environment import load_settings
from config.errors import UserError, nearest
from config.files import atomic_writer
from config.settings import Settings
from ltr.actors.base import Objective
from ltr.actors.pairs import PairActor
from ltr.actors.sparse import SparseActor
from ltr.admin.checkpoint import network_content
from ltr.admin.process_group import ProcessGroup, start_process_group
from ltr.admin.run import Run, announce
from ltr.data.loader import Loader, Plan, TrackingSamples, build_loader
from ltr.data.sampler import AnnotatedPairs, LabelledPairs, SparseInstances
from ltr.data.sampler_state import SamplerState
from ltr.dataset.base import VideoDataset, open_spec
from ltr.models.registry import build_network
from ltr.trainers.ltr_trainer import LTRTrainer
from ltr.trainers.schedule import OneCycle, Schedule, StepDrop, StepEvery, Unfreezing, WarmUpLog
from ltr.trainers.sparse_trainer import SparseTrainer
from ltr.trainers.teacher import make_teacher
from sampling.key_frames import ensure_key_frames

# The smallest values with which a training makes sense; the largest are for the user to judge.
_LEAST: Mapping[int, tuple[str, ...]] = {
    0: (
        *(
            "threads",
            "seed",
            "data.workers",
            "data.max_bad_samples",
            "train.burn_in_epochs",
            "train.image_interval",
        ),
        *(
            "train.batch_size_unsup",
            "optim.lr",
            "optim.backbone_lr",
            "sequences.max_scale_change",
            "optim.momentum",
            "optim.clip_norm",
            "optim.unfreeze_epoch",
            "sparse.interpolation_limit",
        ),
    ),
    1: (
        *(
            "train.epochs",
            "train.iterations",
            "train.batch_size_sup",
            "train.save_interval",
            "train.resume_interval",
        ),
        *("train.max_nonfinite", "data.search_size", "data.template_size", "data.prefetch", "sampling.num"),
        *("sparse.propagating_step", "sparse.update_frequency"),
        *("validation.interval", "validation.iterations", "optim.drop_epoch"),
    ),
}

MakeObjective = Callable[[Settings, ProcessGroup], Objective]
MakeOptimizer = Callable[[Settings, nn.Module], torch.optim.Optimizer]
MakeSchedule = Callable[[Settings, nn.Module], Schedule]


def train_sparse(
    settings: Settings,
    objective: MakeObjective,
    optimizer: MakeOptimizer | None = None,
    schedule: MakeSchedule | None = None,
) -> None:
    """Burn-in and sparse stage of any network that has an objective with ``decode``.

    Args:
        settings: merged settings; ``network``, ``data``, ``sampling``, ``train``, ``sparse`` are used.
        objective: makes the loss.
        optimizer, schedule: default to ``make_optimizer`` and ``make_schedule``.
    """
    group = begin(settings)
    try:
        datasets = open_datasets(settings, aloud=group.first)
        network = make_network(settings, group)
        run = Run(settings, type(network).__name__, group)
        entries = group.agree(label_entries(datasets, settings) if group.first else None)
        state = open_state(run, entries, group)
        lengths = [dataset.num_frames(i) for dataset in datasets for i in range(len(dataset))]
        pairs = LabelledPairs(datasets, state, settings.seed)
        sparse = settings.sparse
        instances = SparseInstances(
            datasets, state, settings.seed, sparse.propagating_step, sparse.interpolation_limit
        )
        teacher = make_teacher(network)
        actor = SparseActor(
            parallel(network, settings, group), teacher, objective(settings, group), settings, group
        )
        SparseTrainer(
            actor=actor,
            state=state,
            lengths=np.asarray(lengths),
            loader=make_loader(TrackingSamples(pairs, instances, settings), settings, group),
            optimizer=(optimizer or make_optimizer)(settings, network),
            schedule=(schedule or make_schedule)(settings, network),
            run=run,
            group=group,
            key_frames=state.fingerprint(),
            constructor=constructor(settings),
        ).train(settings.train.epochs)
    finally:
        group.close()


def train_supervised(
    settings: Settings,
    objective: MakeObjective,
    optimizer: MakeOptimizer | None = None,
    schedule: MakeSchedule | None = None,
    max_gap: int | None = None,
) -> None:
    """Fully-supervised training: every visible frame of every video is a label.

    Args:
        max_gap: frames between template and search at most; None: any.
    """
    group = begin(settings)
    try:
        datasets = open_datasets(settings, aloud=group.first)
        network = make_network(settings, group)
        run = Run(settings, type(network).__name__, group)
        pairs = AnnotatedPairs(datasets, settings.seed, max_gap)
        LTRTrainer(
            actor=PairActor(parallel(network, settings, group), objective(settings, group), settings, group),
            loader=make_loader(TrackingSamples(pairs, None, settings), settings, group),
            optimizer=(optimizer or make_optimizer)(settings, network),
            schedule=(schedule or make_schedule)(settings, network),
            run=run,
            group=group,
            constructor=constructor(settings),
        ).train(settings.train.epochs)
    finally:
        group.close()


def save_untrained(settings: Settings, path: Path) -> None:
    """The network as training begins with it, as a checkpoint of epoch 0, to test what training adds."""
    torch.manual_seed(settings.seed)
    network = build_network(settings.network.name, settings.network.args)
    content = network_content(network, type(network).__name__, constructor(settings), settings.plain(), 0)
    with atomic_writer(path) as file:
        torch.save(content, file)


# -- the parts ------------------------------------------------------------------------------------


def begin(settings: Settings) -> ProcessGroup:
    """Join the other processes, set the threads, print the settings."""
    if settings.train.precision not in ("float32", "bfloat16"):
        raise UserError(
            f"setting train.precision '{settings.train.precision}': {nearest(settings.train.precision, ['float32', 'bfloat16'])}"
        )
    known = dict(settings.flat())
    for least, keys in _LEAST.items():
        for key in keys:
            if not known[key] >= least:
                raise UserError(f"setting {key} {known[key]}: must be at least {least}")
    group = start_process_group(settings.device)
    for part in ("batch_size_sup", "batch_size_unsup"):
        if settings.train[part] % group.size:
            group.refuse(
                f"setting train.{part} {settings.train[part]} does not divide over {group.size} processes; set it to a "
                "multiple, or start as many processes as divide it"
            )
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    announce(settings, load_settings(), group)
    return group


def open_datasets(settings: Settings, aloud: bool = True) -> list[VideoDataset]:
    """The data sets of ``data.datasets``; ``aloud``: say where videos are missing."""
    if not settings.data.datasets:
        raise UserError("setting data.datasets is empty; give --set data.datasets NAME:SPLIT,...")
    return open_specs(settings.data.datasets, settings, aloud)


def open_specs(texts: Sequence[str], settings: Settings, aloud: bool = True) -> list[VideoDataset]:
    """The data sets ``"NAME:SPLIT"`` of a setting; ``aloud``: say where videos are missing."""
    specs: list[str] = []
    for text in texts:  # "TrackingNet:0,1,2" came apart at its commas
        if ":" in text or not specs:
            specs.append(text)
        else:
            specs[-1] += f",{text}"
    return [open_spec(spec, settings, aloud) for spec in specs]


def label_entries(
    datasets: Sequence[VideoDataset], settings: Settings
) -> list[tuple[str, int, np.ndarray, np.ndarray]]:
    """``(sequence key, trajectory, frames [k], bboxes [k, 4])`` of every labelled trajectory."""
    entries = [entry for data in datasets for entry in ensure_key_frames(data, settings).entries(data)]
    if not entries:
        raise UserError(
            f"{', '.join(settings.data.datasets)}: no video has key frames; sample them with key_frame_sampling.py"
        )
    return entries


def open_state(run: Run, entries: list, group: ProcessGroup) -> SamplerState:
    """The sampler state to start from: that of the newest checkpoint, else the key frames alone.

    The first process of each machine builds the memory-mapped working file; the others there open it.
    """
    epoch = group.agree(run.store.newest() if group.first else None)
    if group.first_of_node:
        state = SamplerState.create(run.working_state, entries)
        if epoch is not None and run.store.has(epoch, "sampler_state"):
            held = SamplerState.from_json(run.store.snapshot(epoch), run.working_state)
            if held.fingerprint() == state.fingerprint():  # else resume_point names the change
                state = held
    group.wait()
    return state if group.first_of_node else SamplerState.open(run.working_state)


def make_loader(samples: TrackingSamples, settings: Settings, group: ProcessGroup) -> Loader:
    """Batches for this process; workers live as long as the run."""
    return build_loader(samples, settings, rank=group.rank, ranks=group.size, pin=group.device.type == "cuda")


def make_validation_loader(samples: TrackingSamples, settings: Settings, group: ProcessGroup) -> Loader:
    """``validation.iterations`` batches of the training's size, for this process."""
    train, data = settings.train, settings.data
    plan = Plan(
        settings.validation.iterations, train.batch_size_sup, train.batch_size_unsup, group.rank, group.size
    )
    return Loader(samples, plan, data.workers, data.prefetch, group.device.type == "cuda")


def make_network(settings: Settings, group: ProcessGroup) -> nn.Module:
    """The network of ``settings.network`` on its device, its backbone from ImageNet weights where asked."""
    from ltr.models.backbone.pretrained import load_pretrained

    network = build_network(settings.network.name, settings.network.args)
    if settings.network.pretrained:
        load_pretrained(network, settings)
    return network.to(group.device)


def parallel(network: nn.Module, settings: Settings, group: ProcessGroup) -> nn.Module:
    """The network as the actor calls it: compiled and spread over processes where asked."""
    wrapped = network
    if group.size > 1:
        wrapped = DistributedDataParallel(
            network,
            device_ids=[group.device] if group.device.type == "cuda" else None,
            # gradients of what is frozen are not waited for, and are averaged once it is trained
            find_unused_parameters=settings.optim.unfreeze_epoch > 0,
        )
    return torch.compile(wrapped) if settings.train.compile else wrapped  # type: ignore[return-value]


def constructor(settings: Settings) -> dict[str, Any]:
    """From what a checkpoint's reader builds the network again."""
    return {"name": settings.network.name, "args": settings.network.args.plain()}


def make_optimizer(settings: Settings, network: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of ``optim.name``, with the rates of ``optim.rates`` or else one of its own for the backbone."""
    makers = {"adamw": _adamw, "adam": _adam, "sgd": _sgd}
    if settings.optim.name not in makers:
        raise UserError(f"setting optim.name '{settings.optim.name}': {nearest(settings.optim.name, makers)}")
    parts = _rated_parts(settings, network) if settings.optim.rates else _backbone_and_rest(settings, network)
    groups = [{"params": parameters, "lr": lr, "initial_lr": lr} for parameters, lr in parts]
    return makers[settings.optim.name](settings, groups)


Part = tuple[list[nn.Parameter], float]  # of a network, and its learning rate


def _backbone_and_rest(settings: Settings, network: nn.Module) -> list[Part]:
    """All parameters, those of the backbone (``network.backbone_parameters``) apart."""
    backbone: Iterator[nn.Parameter] = network.backbone_parameters()  # type: ignore[operator]
    slow = list(backbone)  # also what is frozen, and may not stay so
    known = {id(p) for p in slow}
    rest = [p for p in network.parameters() if id(p) not in known]
    return [(rest, settings.optim.lr), (slow, settings.optim.backbone_lr)]


def _rated_parts(settings: Settings, network: nn.Module) -> list[Part]:
    """The modules that ``optim.rates`` names ("classifier.filter_optimizer"); all others lose their gradients."""
    modules = dict(network.named_modules())
    parts: list[Part] = []
    for name, rate in settings.optim.rates.flat():
        if name not in modules:
            raise UserError(
                f"setting optim.rates.{name}: no such part of network '{settings.network.name}', {nearest(name, modules)}"
            )
        if not isinstance(rate, (int, float)) or not 0 <= rate < math.inf:
            raise UserError(f"setting optim.rates.{name} {rate!r}: must be a number of at least 0")
        parts.append((list(modules[name].parameters()), float(rate)))
    rated = {id(parameter) for parameters, _ in parts for parameter in parameters}
    for parameter in network.parameters():
        if id(parameter) not in rated:
            parameter.requires_grad_(False)
    return parts


def _adam(settings: Settings, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, weight_decay=settings.optim.weight_decay, fused=True)


def _adamw(settings: Settings, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, weight_decay=settings.optim.weight_decay, fused=True)


def _sgd(settings: Settings, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    optim = settings.optim
    sgd = torch.optim.SGD(groups, momentum=optim.momentum, weight_decay=optim.weight_decay, fused=True)
    # torch would allocate the momenta in the first step, and leave them so where that step is skipped
    # because of a non-finite gradient; the step from zeros is the same.
    for parameter in (p for group in groups for p in group["params"]):
        sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def make_schedule(settings: Settings, network: nn.Module) -> Schedule:
    """The rates of ``optim.schedule``; with ``optim.unfreeze_epoch``, a backbone that is frozen before it."""
    optim, train = settings.optim, settings.train
    makers: Mapping[str, Callable[[], Schedule]] = {
        "step": lambda: StepDrop(optim.drop_epoch, optim.gamma),
        "stepevery": lambda: StepEvery(optim.drop_epoch, optim.gamma),
        "onecycle": lambda: OneCycle(train.epochs, train.iterations, optim.warmup),
        "warmuplog": lambda: WarmUpLog(train.epochs),
    }
    if optim.schedule not in makers:
        raise UserError(f"setting optim.schedule '{optim.schedule}': {nearest(optim.schedule, makers)}")
    rates = makers[optim.schedule]()
    if not optim.unfreeze_epoch:
        return rates
    if not hasattr(network, "set_trainable"):
        raise UserError(
            f"setting optim.unfreeze_epoch {optim.unfreeze_epoch}: network '{settings.network.name}' has no stages to freeze; "
            "give --set optim.unfreeze_epoch 0"
        )
    try:
        return Unfreezing(rates, network, optim.unfreeze_epoch, optim.unfreeze_stages)  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(f"setting optim.unfreeze_stages: {error}") from error
