"""Reading checkpoints: what torch writes comes back, hostile files do nothing, broken files are one line."""

from __future__ import annotations

import collections
import io
import os
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.errors import UserError
from ltr.admin.checkpoint_reader import load_weights, read_checkpoint
from ltr.models.registry import build_network


def example() -> dict:
    base = torch.arange(24.0).reshape(4, 6)
    net = collections.OrderedDict(
        weight=base, view=base[1:3, ::2], turned=base.t(), half=torch.ones(3, dtype=torch.bfloat16),
        empty=torch.zeros(0, 3), scalar=torch.tensor(7), parameter=torch.nn.Parameter(torch.ones(2)),
        flags=torch.tensor([True, False]),
    )  # fmt: skip
    constructor = {"name": "transt", "args": {"hidden_dim": 96}}
    return {
        "format": 1,
        "epoch": 12,
        "net_type": "TransT",
        "net": net,
        "constructor": constructor,
        "settings": {"a": {"b": [1, 2.5, None]}},
    }


def save(path, content, zipped: bool = True):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_what_torch_writes_comes_back(tmp_path, zipped):
    content = example()
    found = read_checkpoint(save(tmp_path / "ours.pth.tar", content, zipped))
    assert list(found.net) == list(content["net"])
    for name, value in content["net"].items():
        assert found.net[name].dtype == value.dtype and torch.equal(found.net[name], value.detach()), name
    assert found.net["view"].untyped_storage().data_ptr() == found.net["weight"].untyped_storage().data_ptr()
    assert (found.epoch, found.net_type, found.left_out) == (12, "TransT", [])
    assert found.constructor == content["constructor"] and found.settings == content["settings"]


def test_plain_and_wrapped_state_dicts(tmp_path):
    weights = {"conv.weight": torch.ones(2, 2), "conv.bias": torch.zeros(2)}
    assert set(read_checkpoint(save(tmp_path / "a.pth", weights)).net) == set(weights)
    wrapped = {f"module.{name}": value for name, value in weights.items()}
    assert set(read_checkpoint(save(tmp_path / "b.pth", {"state_dict": wrapped, "lr": 3})).net) == set(
        weights
    )


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_foreign_classes_become_stand_ins(tmp_path, zipped, monkeypatch):
    module = types.ModuleType("foreign_training_code")
    exec("class Settings(dict):\n    pass\nclass Weird:\n    pass", module.__dict__)
    for name in ("Settings", "Weird"):
        vars(module)[name].__module__ = module.__name__
    monkeypatch.setitem(sys.modules, module.__name__, module)
    value, weird = module.Settings(lr=0.1), module.Weird()
    value.note, weird.me = "kept", weird
    value["weird"] = weird
    path = save(tmp_path / "foreign.pth", {**example(), "settings": value, "extra": 3}, zipped)
    monkeypatch.delitem(sys.modules, module.__name__)
    found = read_checkpoint(path)
    assert found.settings == {"note": "kept", "lr": 0.1, "weird": {"me": None}}
    assert found.left_out == ["extra", "foreign_training_code.Settings", "foreign_training_code.Weird"]


class Payload:
    """Pickles into a call that creates a file when it is unpickled."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_hostile_files_do_nothing(tmp_path, zipped):
    mark = tmp_path / "mark"
    command = f"open({str(mark)!r}, 'w').close()"
    payloads = [
        Payload(os.system, f"touch {mark}"), Payload(eval, command), Payload(exec, command), Payload(open, str(mark), "w"),
        Payload(os.mkdir, str(mark)),
    ]  # fmt: skip
    for number, payload in enumerate(payloads):
        path = save(
            tmp_path / f"hostile{number}.pth", {**example(), "settings": payload, "x": [payload]}, zipped
        )
        found = read_checkpoint(path)
        assert not mark.exists()
        assert torch.equal(found.net["scalar"], torch.tensor(7))
        assert {"os.system", "posix.system", "posix.mkdir", "builtins.eval", "builtins.exec", "io.open", "_io.open",
                "__builtin__.eval", "__builtin__.exec"} & set(found.left_out)  # fmt: skip
    # the files are live: torch's own unrestricted reader runs them
    torch.load(path, weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize(
    "raw",
    [
        b"cbuiltins\ngetattr\n(cos\nsystem\nS'x'\ntR.",  # a stand-in is no object to take attributes of
        b"ccollections\nOrderedDict\n}S'fromkeys'\nI1\nsb.",  # state on a class
        b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.",
        b"c_codecs\nencode\n(Va\nVrot13\ntR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(NI0\n(t(tI00\nNtR.",
        b"cfoo\nBar\n}S'append'\nI1\nsb0ctorch\nFloatStorage\n.",
    ],
)
def test_pickles_written_by_hand_end_in_one_line(tmp_path, raw):
    path = tmp_path / "hand.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", raw)
    with pytest.raises(UserError, match=r"hand\.pth"):
        read_checkpoint(path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    return {zipped: save(folder / str(zipped), example(), zipped).read_bytes() for zipped in (True, False)}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    zipped=st.booleans(),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=3),
)
def test_damage_is_one_line_and_never_another_exception(tmp_path, written, zipped, cut, flips):
    data = bytearray(written[zipped])
    for where, value in flips:
        data[int(where * (len(data) - 1))] = value
    if not flips:
        del data[int(cut * (len(data) - 1)) :]
    path = tmp_path / "damaged.pth"
    path.write_bytes(data)
    try:
        found = read_checkpoint(path)
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert flips and found.net


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "truncated"),
        (b"PK\x03\x04", "truncated"),
        (b"<html>not found</html>", "no torch checkpoint"),
        (pickle.dumps({"net": 1}), "no torch checkpoint"),
    ],
)
def test_files_that_are_none(tmp_path, data, word):
    path = tmp_path / "file.pth"
    path.write_bytes(data)
    with pytest.raises(UserError, match=word):
        read_checkpoint(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_checkpoint(tmp_path / "missing.pth")
    with pytest.raises(UserError, match="holds no network"):
        read_checkpoint(save(tmp_path / "empty.pth", {"epoch": 3, "lr": np.float64(0.5)}))


def test_a_compressed_archive_is_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        buffer = io.BytesIO()
        pickle.dump({"net": {}}, buffer, 2)
        archive.writestr("a/data.pkl", buffer.getvalue())
    with pytest.raises(UserError, match="compressed"):
        read_checkpoint(path)


def test_weights_of_another_network_are_one_clear_line(tmp_path):
    args = {
        "backbone": "tiny",
        "hidden_dim": 16,
        "nheads": 2,
        "dim_feedforward": 16,
        "featurefusion_layers": 1,
    }
    network = build_network("transt", args)
    before = network.input_proj.bias.clone()
    other = build_network("transt", {**args, "hidden_dim": 32, "featurefusion_layers": 2, "iou_head": False})
    with pytest.raises(UserError) as error:
        load_weights(network, other.state_dict(), "other.pth.tar")
    for word in (
        "other.pth.tar",
        "TransT",
        "lacks iou_embed.layers.0.weight",
        "encoder.layers.1",
        "[16, 16, 1, 1]",
        "more",
    ):
        assert word in str(error.value)
    assert torch.equal(network.input_proj.bias, before)
    load_weights(network, build_network("transt", args).state_dict(), "same.pth.tar")
    assert not torch.equal(network.input_proj.bias, before)
