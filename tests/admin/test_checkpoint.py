"""Checkpoints exist whole or not at all, and a run goes on only from its own."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch

import config.files
from config.defaults import get_defaults
from config.errors import UserError
from ltr.admin.checkpoint import CheckpointStore
from ltr.admin.process_group import ProcessGroup
from ltr.admin.run import Run


def save(store: CheckpointStore, epoch: int, keep: bool = True, settings: dict | None = None) -> None:
    parts = {
        "s": {"net": {"w": torch.full((3,), float(epoch))}},
        "t": {"net": {"w": torch.full((3,), -float(epoch))}},
        "state": {"settings": settings or {}, "key_frames": "abc", "epoch": epoch},
    }
    store.save(epoch, parts, lambda path: config.files.write_json(path, {"epoch": epoch}), keep)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", tmp_path / "records", "TransT", "magic")


def test_an_epoch_is_saved_whole_and_the_passing_ones_are_removed(store):
    for epoch in (1, 2, 3, 4):
        save(store, epoch, keep=epoch == 2)
    assert store.epochs() == [2, 4] and store.newest() == 4
    assert torch.equal(store.load(4, "t")["net"]["w"], torch.full((3,), -4.0))
    assert json.loads(store.current_state().read_text()) == {"epoch": 4}
    assert not store.weights(3, "s").exists() and not store.snapshot(3).exists()
    assert store.has(2, "sampler_state") and store.snapshot(2).exists()
    leftovers = [
        p for folder in (store.folder, store.records) for p in folder.iterdir() if p.name.endswith(".tmp")
    ]
    assert not leftovers


def test_what_a_killed_process_had_no_time_to_remove_is_taken_away(store, monkeypatch):
    """Also where the run goes on from some steps after an epoch that is not to be kept."""
    monkeypatch.setattr(store, "remove", lambda *_: None)  # killed between the manifest and this
    for epoch in (1, 2, 3, 4):
        save(store, epoch, keep=epoch == 2)
    store.save(3, {"state": {}}, None, keep=False, step=5)
    store.save(4, {"state": {}}, None, keep=False, step=7)
    store.pictures.mkdir()
    begun = store.pictures / ".ep0002.png.abc.tmp"
    begun.touch()
    monkeypatch.undo()
    store.tidy(4, 7)
    assert store.epochs() == [2, 4] and store.steps() == [(4, 7)] and not begun.exists()
    assert not store.weights(3, "s").exists() and not store.snapshot(1).exists()
    store.tidy(4)
    assert store.epochs() == [2, 4] and store.steps() == [(4, 7)]
    store.tidy(5)
    assert store.epochs() == [2, 4] and store.steps() == []


@pytest.mark.faults
@pytest.mark.parametrize("part", ["../s", "s/t", "", "s\0", "S" * 300])
def test_a_manifest_that_lists_no_part_is_broken(store, capsys, part):
    for epoch in (1, 2):
        save(store, epoch)
    content = json.loads(store.manifest(2).read_text())
    content["files"][part] = content["files"].pop("t")
    store.manifest(2).write_text(json.dumps(content))
    assert store.newest() == 1
    assert "TransT_ep0002.json: is broken or no manifest" in capsys.readouterr().err


@pytest.mark.faults
@pytest.mark.parametrize("part", ["s", "t", "state", "sampler_state", "manifest"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone"])
def test_damage_is_named_and_the_epoch_before_is_taken(store, capsys, part, damage):
    save(store, 1)
    save(store, 2)
    path = {"sampler_state": store.snapshot(2), "manifest": store.manifest(2)}.get(part) or store.weights(
        2, part
    )
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        path.unlink()  # the published state shares this file
        path.write_bytes(
            content[:middle]
            if damage == "truncated"
            else content[:middle] + bytes([content[middle] ^ 64]) + content[middle + 1 :]
        )
    flipped_text = part == "manifest" and damage == "flipped"
    assert store.newest() == 1 or flipped_text
    if not (part == "manifest" and damage == "gone") and store.newest() == 1:
        assert path.name.split("_")[0] in capsys.readouterr().err


@pytest.mark.faults
@pytest.mark.parametrize("fails_at", range(12))
def test_a_full_disk_leaves_the_epochs_before_untouched(store, monkeypatch, fails_at):
    save(store, 1)
    before = {p: p.read_bytes() for folder in (store.folder, store.records) for p in folder.iterdir()}
    calls = 0
    real = os.fsync

    def full(descriptor):
        nonlocal calls
        calls += 1
        if calls > fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor)

    monkeypatch.setattr(config.files.os, "fsync", full)
    try:
        save(store, 2)
    except UserError as error:
        assert "No space left" in str(error)
        assert store.newest() == 1
    monkeypatch.undo()
    for path, content in before.items():
        if path != store.current_state():
            assert path.read_bytes() == content
    assert not [
        p for folder in (store.folder, store.records) for p in folder.iterdir() if p.name.endswith(".tmp")
    ]
    save(store, 2)
    assert store.newest() == 2


def run_for(tmp_path: Path, **changes) -> Run:
    settings = get_defaults()
    settings.paths.var, settings.module_name, settings.variant = str(tmp_path), "spot", "v"
    settings.override([str(x) for pair in changes.items() for x in (pair[0].replace("__", "."), pair[1])])
    return Run(settings, "TransT", ProcessGroup(0, 1, torch.device("cpu")))


def test_a_run_goes_on_only_from_its_own_files(tmp_path):
    run = run_for(tmp_path)
    assert run.resume_point("abc") == (0, {})
    save(run.store, 5, settings=run.settings.plain())
    assert run.resume_point("abc")[0] == 5
    del run

    free = run_for(tmp_path, data__workers=7, train__epochs=999, device="cpu")
    assert free.resume_point("abc")[0] == 5
    with pytest.raises(UserError, match="key frames have changed"):
        free.resume_point("other")
    del free

    changed = run_for(tmp_path, sparse__confidence_threshold=0.5)
    with pytest.raises(UserError, match=r"sparse.confidence_threshold was 0.85, is 0.5.*--set variant NAME"):
        changed.resume_point("abc")
    del changed

    reused = run_for(tmp_path, variant="w", magic_number="v")
    with pytest.raises(UserError, match="magic number 'v' has been used.*--set magic_number NAME"):
        reused.resume_point("abc")


def test_a_checkpoint_of_an_older_version_goes_on(tmp_path):
    run = run_for(tmp_path, network__args__hidden_dim=64)
    older = run.settings.plain()
    del older["optim"]["warmup"]  # not known then
    older["sampling"]["forgotten"] = 3  # not known any more
    save(run.store, 5, settings=older)
    assert run.resume_point("abc")[0] == 5
    del run
    with pytest.raises(UserError, match="network.args.hidden_dim was 64, is None"):
        run_for(tmp_path).resume_point("abc")
    with pytest.raises(UserError, match="optim.warmup was 0.1, is 0.3"):
        run_for(tmp_path, network__args__hidden_dim=64, optim__warmup=0.3).resume_point("abc")


def test_two_runs_do_not_share_a_magic_number(tmp_path):
    first = run_for(tmp_path)
    with pytest.raises(UserError, match="another training run"):
        run_for(tmp_path)
    del first
    run_for(tmp_path)


def test_a_newer_format_is_refused_in_words(store):
    save(store, 1)
    manifest = json.loads(store.manifest(1).read_text())
    manifest["format"] = 99
    store.manifest(1).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="newer project"):
        store.newest()
