"""Settings that know their names, and files that are whole or not there."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

import config.files
from config.defaults import get_defaults
from config.errors import UserError
from config.files import atomic_writer, read_json, write_json


@pytest.mark.parametrize(
    "pairs, said",
    [
        (["train.epoch", "3"], "did you mean 'train.epochs'"),
        (["train.epochs", "many"], "of type str, expected int"),
        (["train.epochs", "2.5"], "expected int"),
        (["train", "3"], "is a group of settings"),
        (["train.epochs"], "has no value"),
        (["nothing.like.it", "1"], "unknown setting"),
    ],
)
def test_a_wrong_override_is_one_line_with_a_hint(pairs, said):
    with pytest.raises(UserError, match=said) as error:
        get_defaults().override(pairs)
    assert "\n" not in str(error.value)


def test_overrides_keep_types_and_open_groups_take_new_keys():
    s = get_defaults()
    s.override(
        [
            "optim.lr",
            "1",
            "train.compile",
            "true",
            "data.datasets",
            "LaSOT:train,GOT-10k:all",
            "variant",
            "007",
        ]
    )
    s.override(["network.args.hidden_dim", "64", "paths.train.LaSOT", "/data/LaSOT"])
    assert s.optim.lr == 1.0 and isinstance(s.optim.lr, float) and s.train.compile is True
    assert s.data.datasets == ["LaSOT:train", "GOT-10k:all"] and s.variant == "007"
    assert s.network.args.hidden_dim == 64 and s.paths.train.LaSOT == "/data/LaSOT"
    changed = {key for key, _, _ in s.differences(get_defaults())}
    assert {
        "optim.lr",
        "train.compile",
        "network.args.hidden_dim",
    } <= changed and "train.epochs" not in changed
    with pytest.raises(UserError, match="unknown setting 'epoch'"):
        s.train.epoch = 3


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
        lambda x: st.lists(x, max_size=4),
    )
)
def test_json_comes_back(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "x.json"
    write_json(path, {"value": value})
    assert read_json(path) == {"value": value}


@pytest.mark.faults
@pytest.mark.parametrize("fails", ["write", "fsync", "replace"])
def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch, fails):
    path = tmp_path / "x.json"
    write_json(path, {"old": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if fails != "write":
        monkeypatch.setattr(config.files.os, fails, full)
    with (
        pytest.raises(UserError, match=r"x.json: cannot be written \(No space left"),
        atomic_writer(path) as file,
    ):
        file.write(b"half of ")
        if fails == "write":
            full()
    monkeypatch.undo()
    assert read_json(path) == {"old": 1} and [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_broken_json_names_file_and_line(tmp_path):
    path = tmp_path / "broken.json"
    path.write_text('{"a": 1,\n "b": }')
    with pytest.raises(UserError, match=r"broken.json: is not valid JSON \(.*line 2"):
        read_json(path)
