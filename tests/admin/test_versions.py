"""Files of a newer project are refused in words and left as they are; those of this one go on."""

from __future__ import annotations

import argparse
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from config.cli import run
from config.environment import load_settings
from config.errors import UserError
from ltr.admin.checkpoint import CheckpointStore
from ltr.admin.checkpoint_reader import read_checkpoint
from ltr.admin.process_group import ProcessGroup
from ltr.admin.run import Run
from ltr.data.journal import read_journal
from ltr.data.sampler_state import Journal, SamplerState
from ltr.dataset.base import open_dataset
from pysot_toolkit.testing.own_input import _outputs
from pysot_toolkit.testing.results import check_origin, note_origin
from tests.data.state_model import entries
from tests.dataset.test_coco import make as make_coco
from tests.dataset.test_datasets import make_lasot


class Versioned(NamedTuple):
    """A file with a version, what uses it, and how the version in it is raised by one."""

    path: Path
    use: Callable[[], Any]
    bump: Callable[[Path], None]


def _in_json(key: str) -> Callable[[Path], None]:
    def bump(path: Path) -> None:
        content = json.loads(path.read_text())
        content[key] += 1
        path.write_text(json.dumps(content))

    return bump


def _in_magic(path: Path) -> None:
    data = bytearray(path.read_bytes())
    assert data.startswith((b"SPOTSTA", b"SPOTJRN"))
    data[7] += 1
    path.write_bytes(data)


def _in_torch(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["format"] += 1
    torch.save(content, path)


NET = {"a": torch.ones(2)}


def _store(folder: Path) -> CheckpointStore:
    store = CheckpointStore(folder / "run", folder / "records", "Net", "magic")
    state = SamplerState.create(folder / "s.bin", entries([[1], [2], [3], [4], [5]]))
    parts = {part: {"format": 1, "epoch": 2, "net": NET} for part in ("s", "t", "state")}
    store.save(2, parts, state.write_json, keep=True)
    return store


def manifest(folder: Path) -> Versioned:
    store = _store(folder)
    return Versioned(store.manifest(2), store.newest, _in_json("format"))


def manifest_beside_a_checkpoint(folder: Path) -> Versioned:
    store = _store(folder)
    return Versioned(store.manifest(2), lambda: read_checkpoint(store.weights(2, "t")), _in_json("format"))


def checkpoint(folder: Path) -> Versioned:
    path = folder / "Net.pth.tar"
    torch.save({"format": 1, "epoch": 2, "net": NET}, path)
    return Versioned(path, lambda: read_checkpoint(path), _in_torch)


def training_state(folder: Path) -> Versioned:
    store = _store(folder)
    return Versioned(store.weights(2, "state"), lambda: store.load(2, "state"), _in_torch)


def state_file(folder: Path) -> Versioned:
    path = folder / "s.bin"
    SamplerState.create(path, entries([[1], [2], [3], [4], [5]]))
    return Versioned(path, lambda: SamplerState.open(path), _in_magic)


def state_file_made_anew(folder: Path) -> Versioned:
    case = state_file(folder)
    return case._replace(use=lambda: SamplerState.create(case.path, entries([[1], [2], [3], [4], [6]])))


def journal(folder: Path) -> Versioned:
    Journal(folder / "j").close()
    return Versioned(folder / "j", lambda: read_journal(folder / "j"), _in_magic)


def journal_to_go_on_with(folder: Path) -> Versioned:
    return journal(folder)._replace(use=lambda: Journal(folder / "j").close())


def provenance(folder: Path) -> Versioned:
    (folder / "weights").write_bytes(b"w")
    settings = load_settings(["paths.var", str(folder / "var")])

    def use() -> None:
        note_origin(
            folder / "var",
            "OTB100",
            "T",
            check_origin(folder / "var", "OTB100", "T", "transt", folder / "weights", settings),
        )

    use()
    return Versioned(folder / "var" / "results" / "OTB100" / "T" / "checkpoint.json", use, _in_json("format"))


def index_of_frames(folder: Path) -> Versioned:
    make_lasot(folder / "root", "person-2")
    open_dataset("LaSOT", "all", folder / "root", folder / "c")
    (path,) = (folder / "c").glob("*.json")
    return Versioned(
        path, lambda: open_dataset("LaSOT", "all", folder / "root", folder / "c"), _in_json("version")
    )


def cache_of_coco(folder: Path) -> Versioned:
    make_coco(folder / "coco")
    open_dataset("COCO", "train2014", folder / "coco", folder / "c")
    (path,) = (folder / "c").glob("*.npz")

    def bump(path: Path) -> None:
        with np.load(path) as held:
            arrays = dict(held)
        arrays["stamp"][0] += 1
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        path.write_bytes(buffer.getvalue())

    return Versioned(path, lambda: open_dataset("COCO", "train2014", folder / "coco", folder / "c"), bump)


def record_of_track(folder: Path) -> Versioned:
    path = folder / "record.json"
    path.write_text(json.dumps({"format": 1, "objects": {}}))
    options = argparse.Namespace(save=None, json=str(path), boxes=None)
    return Versioned(path, lambda: _outputs(options, []), _in_json("format"))


KINDS = [
    manifest, manifest_beside_a_checkpoint, checkpoint, training_state, state_file, state_file_made_anew, journal,
    journal_to_go_on_with, provenance, index_of_frames, cache_of_coco, record_of_track,
]  # fmt: skip


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_newer_version_is_refused_in_words_and_nothing_is_overwritten(tmp_path, kind, capsys):
    case = kind(tmp_path)
    case.use()  # the version of this project goes on
    capsys.readouterr()
    case.bump(case.path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as left:
        run(lambda: case.use() and None)
    told = capsys.readouterr().err
    assert left.value.code == 2 and len(told.splitlines()) == 1, told
    for word in (str(case.path), "version 2", "up to version 1", "update the project"):
        assert word in told
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_notes_from_before_they_had_a_version_go_on(tmp_path):
    case = provenance(tmp_path)
    content = json.loads(case.path.read_text())
    del content["format"]
    case.path.write_text(json.dumps(content))
    case.use()
    content["sha256"] = "0"
    case.path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="another checkpoint"):
        case.use()


@pytest.mark.faults
@pytest.mark.parametrize("part", ["s", "t"])
def test_a_checkpoint_that_differs_from_its_manifest_is_named(tmp_path, part):
    """Damage that the file itself does not show, also in torch's format without checksums."""
    store = _store(tmp_path)
    path = store.weights(2, part)
    read_checkpoint(path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(UserError, match=rf"{path.name}: is corrupt, its manifest Net_ep0002.json says"):
            read_checkpoint(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match="is missing or truncated"):
        read_checkpoint(path)
    assert store.newest() is None  # and training falls back
    path.write_bytes(whole)
    assert read_checkpoint(path).epoch == 2 and store.newest() == 2
    os.rename(path, tmp_path / "alone.pth.tar")
    assert read_checkpoint(tmp_path / "alone.pth.tar").epoch == 2


@pytest.mark.faults
@pytest.mark.parametrize(
    "content", [{}, {"settings": 3}, [1], {"settings": {}, "optimizer": {}}, "text"], ids=repr
)
def test_a_training_state_that_is_none_is_named_although_its_manifest_verifies(tmp_path, content):
    settings = load_settings(["paths.var", str(tmp_path), "module_name", "m", "variant", "v"])
    going = Run(settings, "Net", ProcessGroup(0, 1, torch.device("cpu")))
    going.store.save(2, {"s": {"format": 1, "net": NET}, "state": content}, None, keep=True)
    with pytest.raises(
        UserError, match=r"Net_ep0002_state\.pth\.tar: is no (training state|part of a checkpoint)"
    ):
        going.resume_point("")
