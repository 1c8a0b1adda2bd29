"""Checkpoints of every layout, alone and as parts of a run."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from config.environment import load_settings
from ltr.admin.checkpoint import CheckpointStore, network_content
from ltr.admin.checkpoint_reader import read_checkpoint
from ltr.admin.process_group import ProcessGroup
from ltr.admin.run import Run
from ltr.models.registry import build_network
from pysot_toolkit.trackers.base import build_tracker
from tests.fuzz.case import Case, Parser
from tests.fuzz.training_cases import sampler_state

SMALL = {"backbone": "tiny", "hidden_dim": 16, "nheads": 2, "dim_feedforward": 16, "featurefusion_layers": 1}


def content_of(name: str = "transt", args: dict[str, Any] = SMALL) -> dict[str, Any]:
    """A whole checkpoint of a small network, as a training writes it."""
    torch.manual_seed(0)
    network = build_network(name, args)
    recipe = {"name": name, "args": dict(args)}
    return network_content(network, type(network).__name__, recipe, load_settings().plain(), 3)


def saved(content: Any, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _few() -> dict[str, Any]:
    weight = torch.arange(24.0).reshape(4, 6)
    net = OrderedDict(weight=weight, view=weight[1:3], half=torch.ones(3, dtype=torch.bfloat16))
    return {"format": 1, "epoch": 3, "net_type": "TransT", "net": net, "constructor": {"name": "x", "args": {}},
            "settings": {"a": {"b": [1, 2.5, None]}}, "optimizer": {"state": {0: {"step": 3}}, "groups": [1]},
            "stats": {"train": {"loss": {"history": [1.0, 2.0]}}}}  # fmt: skip


def _checkpoint(*contents: bytes) -> Callable[[Path], Case]:
    def build(folder: Path) -> Case:
        path = folder / "Net_ep0003_s.pth.tar"

        def read() -> None:
            read_checkpoint(path)
            read_checkpoint(path, training=True)

        return Case(path, list(contents), read)

    return build


def _tracker_checkpoint(folder: Path) -> Case:
    path = folder / "TransT_ep0003_s.pth.tar"
    settings, device = load_settings(), torch.device("cpu")
    content = content_of()
    odd = [{**content, "constructor": recipe} for recipe in ODD_RECIPES]
    return Case(
        path,
        [saved(content), *(saved(other) for other in odd), saved({**content, "settings": {"data": [1]}})],
        lambda: build_tracker("transt", path, settings, device),
    )


ODD_RECIPES: list[Any] = [
    {"name": "transt"}, {"name": ["transt"], "args": {}}, {"name": "transt", "args": [1]}, {"name": "transt", "args": 3},
    {"name": "transt", "args": {"nheads": "x"}}, {"name": "transt", "args": {"hidden_dim": None}},
    {"name": "transt", "args": {"hidden_dim": 1 << 20, "nheads": 1}}, {"name": "transt", "args": {"featurefusion_layers": 1 << 40}},
    {"name": "transt", "args": {"backbone": "../x"}}, {"name": "transt", "args": {1: 2}},
]  # fmt: skip


def _pickle(protocol: int) -> Callable[[Path], Case]:
    """The pickle inside a zip checkpoint, which checksums would otherwise hide from damage."""
    whole = zipfile.ZipFile(io.BytesIO(saved(_few())))
    inner = whole.read("archive/data.pkl")
    storages = {name: whole.read(name) for name in whole.namelist() if "/data/" in name}
    plain = pickle.dumps(
        {"net": {"x": [1, 2.5, (3, "a")]}, "s": {1, 2}, "f": frozenset((1,)), "c": 1j}, protocol
    )

    def build(folder: Path) -> Case:
        pickled, path = folder / "data.pkl", folder / "Net_ep0003_s.pth.tar"

        def read() -> None:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", pickled.read_bytes())
                for name, data in storages.items():
                    archive.writestr(name, data)
            read_checkpoint(path, training=True)

        return Case(pickled, [inner, plain], read)

    return build


def _published(folder: Path, *names: str) -> list[bytes]:
    shared = Path(os.environ.get("SPOT_SHARED") or Path(__file__).parents[3] / "shared") / "parity"
    return [path.read_bytes() for name in names for path in sorted((shared / name).glob("*.pth.tar"))]


def _legacy(name: str) -> Callable[[Path], Case]:
    def build(folder: Path) -> Case:
        return _checkpoint(*_published(folder, name))(folder)

    return build


def _store(folder: Path, part: str) -> Case:
    settings = load_settings(["paths.var", str(folder / "var"), "seed", "3"])
    settings.module_name, settings.variant = "spot", "v"
    store = CheckpointStore(
        folder / "var" / "checkpoints" / "ltr" / "spot" / "v", folder / "var" / "records", "TransT", "v"
    )
    content = content_of()
    state = {
        "format": 1,
        "epoch": 3,
        "optimizer": {},
        "key_frames": "k",
        "log_size": 0,
        "settings": settings.plain(),
    }
    store.save(3, {"s": content, "state": state}, sampler_state(folder).write_json, keep=True)
    path = {"manifest": store.manifest(3), "state": store.weights(3, "state"), "s": store.weights(3, "s"),
            "sampler_state": store.snapshot(3)}[part]  # fmt: skip
    device = torch.device("cpu")

    def read() -> None:
        group = ProcessGroup(0, 1, device)
        run = Run(settings, "TransT", group)
        try:
            epoch, _ = run.resume_point("k")
            for name in ("s", "t", "sampler_state"):
                run.store.has(epoch, name)
        finally:
            if run._lock is not None:
                run._lock.close()
        build_tracker("transt", store.weights(3, "s"), load_settings(), device)

    return Case(path, [path.read_bytes()], read)


def table() -> Iterator[Parser]:
    """The parsers of this room."""
    yield Parser("checkpoint zip", _checkpoint(saved(_few())))
    yield Parser("checkpoint old", _checkpoint(saved(_few(), False)))
    for protocol in (2, 5):
        yield Parser(f"checkpoint pickle {protocol}", _pickle(protocol), False)
    yield Parser("checkpoint of a tracker", _tracker_checkpoint)
    for name in ("legacy_checkpoint", "legacy_checkpoint_transt", "legacy_checkpoint_pytracking"):
        yield Parser(f"checkpoint {name}", _legacy(name))
    for part in ("manifest", "state", "s", "sampler_state"):
        yield Parser(f"run {part}", lambda folder, part=part: _store(folder, part), False)
