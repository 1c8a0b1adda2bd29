"""The sampler state and its journal against kills, torn files and full disks."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from config.errors import UserError
from ltr.data.journal import HEAD, read_journal
from ltr.data.sampler_state import InterruptedMerge, Journal, SamplerState
from ltr.data.state_file import StateFile
from tests.data.state_model import as_records, content, entries

pytestmark = pytest.mark.faults


def test_a_torn_journal_gives_its_whole_batches(tmp_path):
    path, records = tmp_path / "journal", as_records([(0, i, (1.0, 2.0, 3.0, 4.0), 0.9) for i in range(7)])
    batches = [records[:3], records[3:4], records[4:]]
    ends = []
    with Journal(path) as journal:
        for batch in batches:
            journal.append(batch)
            ends.append(path.stat().st_size)
        journal.append(records[:0])
        assert np.array_equal(journal.read(), records)
    whole = path.read_bytes()
    sizes = np.cumsum([0, *map(len, batches)])
    torn = tmp_path / "torn"
    for cut in range(len(whole) + 1):
        torn.write_bytes(whole[:cut])
        kept = records[: sizes[sum(end <= cut for end in ends)]]
        assert np.array_equal(read_journal(torn), kept)
        with Journal(torn) as journal:  # and goes on behind what is whole
            journal.append(records[:2])
            assert np.array_equal(journal.read(), np.concatenate([kept, records[:2]]))
    for at in range(len(HEAD), ends[0]):
        torn.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        assert len(read_journal(torn)) == 0
    torn.write_bytes(b"something else")
    for reader in (read_journal, Journal):
        with pytest.raises(UserError, match="not a journal"):
            reader(torn)
    assert torn.read_bytes() == b"something else"
    assert len(read_journal(tmp_path / "none")) == 0


def test_reset_forgets(tmp_path):
    records = as_records([(0, 1, (1.0, 2.0, 3.0, 4.0), 0.9)])
    with Journal(tmp_path / "deep" / "journal") as journal:
        journal.append(records)
        journal.reset()
        assert len(journal.read()) == 0
        journal.append(records)
    assert np.array_equal(read_journal(tmp_path / "deep" / "journal"), records)


def test_a_full_disk_leaves_no_part_of_a_batch(tmp_path, monkeypatch):
    records = as_records([(0, 1, (1.0, 2.0, 3.0, 4.0), 0.9)])

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            if len(data) < 60:  # the rest of a batch whose beginning fitted
                raise OSError(28, "No space left on device")
            return self.file.write(data[:20])

        def __getattr__(self, name):
            return getattr(self.file, name)

    journal = Journal(tmp_path / "journal")
    journal.append(records)
    monkeypatch.setattr(journal, "_file", Full(journal._file))
    with pytest.raises(UserError, match="No space left"):
        journal.append(records)
    assert np.array_equal(journal.read(), records)


def test_a_state_that_cannot_grow_stays_as_it_was(tmp_path, monkeypatch):
    state = SamplerState.create(tmp_path / "s.bin", entries([[1]] * 5))
    before = content(state)
    records = as_records([(0, f, (1.0, 2.0, 3.0, 4.0), 0.9) for f in range(30)])

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(UserError, match="No space left"):
            state.merge(records)
    assert content(SamplerState.open(tmp_path / "s.bin")) == before
    assert state.merge(records).inserted == 29


@pytest.mark.parametrize("step", range(4))
def test_a_merge_cut_off_is_seen_and_recovered(tmp_path, monkeypatch, step):
    """Killed before each write of a merge: a reader refuses the file, snapshot and journal give the state."""
    path, state = tmp_path / "s.bin", SamplerState.create(tmp_path / "s.bin", entries([[1, 30]] * 5))
    state.write_json(tmp_path / "s.json")
    records = as_records([(r, f, (f, 2.0, 3.0, 4.0), 0.9) for r in range(5) for f in range(0, 25, 1 + r)])
    with Journal(tmp_path / "journal") as journal:
        journal.append(records)
    reader = SamplerState.open(path)
    pid = os.fork()
    if pid == 0:
        owner, name = [
            (SamplerState, "_move"),
            (SamplerState, "_insert"),
            (StateFile, "end"),
            (StateFile, "begin"),
        ][step]
        original = getattr(owner, name)

        def die(*arguments):
            if name == "begin":
                original(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(owner, name, die)
        state.merge(records)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    for see in (reader.refresh, state.refresh, lambda: SamplerState.open(path)):
        with pytest.raises(InterruptedMerge):
            see()
    with pytest.raises(InterruptedMerge):
        state.write_json(tmp_path / "never.json")
    assert not (tmp_path / "never.json").exists()

    recovered = SamplerState.recover(tmp_path / "s.json", tmp_path / "journal", path)
    expected = SamplerState.create(tmp_path / "whole.bin", entries([[1, 30]] * 5))
    expected.merge(records)
    reader.refresh()
    assert content(recovered) == content(expected) == content(reader)


def test_a_file_from_before_a_restart_is_not_trusted(tmp_path, monkeypatch):
    SamplerState.create(tmp_path / "s.bin", entries([[1]] * 5))
    SamplerState.open(tmp_path / "s.bin")
    monkeypatch.setattr("ltr.data.state_file._boot", lambda: b"another")
    with pytest.raises(InterruptedMerge):
        SamplerState.open(tmp_path / "s.bin")


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_truncated_or_foreign_working_file(tmp_path):
    path = tmp_path / "s.bin"
    SamplerState.create(path, entries([[1]] * 5))
    whole = path.read_bytes()
    for size in (0, 1, 100, 4095, 4096, 5000, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError):
            SamplerState.open(path)
    path.write_bytes(b"x" * len(whole))
    with pytest.raises(UserError):
        SamplerState.open(path)
    at = whole.index(SamplerState.open(write(path, whole)).fingerprint().encode())
    with pytest.raises(UserError, match="not a whole working file"):
        SamplerState.open(write(path, whole[:at] + b"\xff" + whole[at + 1 :])).fingerprint()
    path.unlink()
    with pytest.raises(UserError):
        SamplerState.open(path)
