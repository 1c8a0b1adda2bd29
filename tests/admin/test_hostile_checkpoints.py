"""Reading a checkpoint executes nothing and needs no more than its size justifies: real payloads in every layout."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from config.errors import UserError
from ltr.admin.checkpoint_reader import read_checkpoint
from ltr.admin.restricted_pickle import RestrictedUnpickler
from tests.conftest import need_shared
from tests.fuzz.guard import bounded

pytestmark = pytest.mark.faults


class Payload:
    """Pickles into a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self):
        return self.call


class Mapping(dict):
    """A dict of a foreign class whose state is a call."""

    def __init__(self, payload: Any) -> None:
        super().__init__(lr=payload)
        self.hook = payload


def foreign(name: str, **attributes: Any) -> Any:
    """An object of a class of the published training code, which nobody has installed here."""
    module, _, kind = name.rpartition(".")
    made = types.ModuleType(module)
    value = type(kind, (), {"__module__": module})()
    setattr(made, kind, type(value))
    sys.modules[module] = made
    vars(value).update(attributes)
    return value


NET = {"conv.weight": torch.ones(2, 2), "conv.bias": torch.zeros(2)}

# What the published programs save, the payload P in each place where a training leaves an object.
LAYOUTS = {
    "ours": lambda p: {"format": 1, "epoch": 3, "net": NET, "constructor": {"name": "transt", "args": {"a": p}}, "settings": p},
    "SPOT": lambda p: {"epoch": 3, "net_type": "TransT", "net": NET, "settings": foreign("config.settings.Settings", hook=p),
                       "constructor": foreign("ltr.admin.model_constructor.NetConstructor", kwds={"x": p})},
    "TransT": lambda p: {"epoch": 3, "net": NET, "stats": collections.OrderedDict(train=foreign("ltr.admin.stats.AverageMeter", v=p)),
                         "net_info": p, "optimizer": {"state": {0: p}}},
    "TracKit": lambda p: {"state_dict": {f"module.{k}": v for k, v in NET.items()}, "arch": "Ocean", "best": p},
    "pytracking": lambda p: {"net": NET, "net_type": "DiMPnet", "constructor": p, "actor_type": p, "settings": Mapping(p)},
    "inside the weights": lambda p: {"net": {**NET, "hook": p}},
    "in front of all": lambda p: [p, {"net": NET}],
    "plain state dict": lambda p: {**NET, "hook": p},
    "parameter": lambda p: {"net": {**NET, "w": Payload(torch._utils._rebuild_parameter, p, True, p)}},
}  # fmt: skip


def payloads(mark: Path) -> dict[str, Any]:
    command = f"open({str(mark)!r}, 'w').close()"
    return {
        "os.system": Payload(os.system, f"touch {mark}"),
        "eval": Payload(eval, command),
        "exec": Payload(exec, command),
        "open": Payload(open, str(mark), "w"),
        "mkdir": Payload(os.mkdir, str(mark)),
        "nested": Payload(getattr, Payload(__import__, "os"), "system"),
        "numpy": Payload(pickle.loads, pickle.dumps(Payload(os.mkdir, str(mark)))),
        "torch": Payload(torch.load, str(mark)),
    }


@pytest.fixture(autouse=True)
def _forget_foreign_modules():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("config.settings.", "ltr.admin.model_constructor", "ltr.admin.stats")):
            del sys.modules[name]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_payload_in_any_published_layout_does_nothing(tmp_path, layout, zipped):
    mark = tmp_path / "mark"
    saved_modules = dict(sys.modules)
    for name, payload in payloads(mark).items():
        path = tmp_path / f"{name}.pth.tar"
        content = LAYOUTS[layout](payload)
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        for module in set(sys.modules) - set(saved_modules):
            del sys.modules[module]
        sys.modules.update(saved_modules)
        try:
            found = read_checkpoint(path, training=True)
        except UserError as error:
            assert str(path) in str(error)
        else:
            assert torch.equal(found.net["conv.weight"], NET["conv.weight"]) and found.left_out
        assert not mark.exists()
    assert not mark.exists()


def test_the_payloads_are_live(tmp_path):
    """An unrestricted reader runs them, so that the test above can fail."""
    for name in ("os.system", "eval", "exec", "open", "mkdir", "numpy"):
        mark = tmp_path / name
        pickle.loads(pickle.dumps(payloads(mark)[name]))
        assert mark.exists(), name


def archive(path: Path, pickled: bytes, **storages: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("archive/data.pkl", pickled)
        for key, data in storages.items():
            packed.writestr(f"archive/data/{key}", data)
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


MARK = "/nonexistent/mark"
TRICKS = {
    "a global by text": b"cos\nsystem\n(S'touch /x'\ntR.",
    "a global from the stack": b"\x80\x04"
    + text("os")
    + text("system")
    + b"\x93"
    + text(f"touch {MARK}")
    + b"\x85R.",
    "a dotted global": b"\x80\x04"
    + text("builtins")
    + text("eval.__call__")
    + b"\x93"
    + text("1")
    + b"\x85R.",
    "INST": b"(S'touch /x'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch /x'\no.",
    "NEWOBJ": b"\x80\x02cos\nsystem\nS'touch /x'\n\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04cos\nsystem\n)}\x92.",
    "the registry of extensions": b"\x80\x02\x82\x01.",
    "a persistent id that is an object": b"cos\nsystem\nQ.",
    "a persistent id in text": b"P../../etc/passwd\n.",
    "a storage of an unknown type": b"(S'storage'\ncos\nsystem\nS'0'\nS'cpu'\nI1\ntQ.",
    "state of a known class": b"ccollections\nOrderedDict\n(S'x'\ntR}S'__class__'\ncos\nsystem\nsb.",
    "state of a class": b"ccollections\nOrderedDict\n}S'fromkeys'\nI1\nsb.",
    "a setstate in the state": b"cfoo\nBar\n)R}S'__setstate__'\ncos\nsystem\nsbS'touch /x'\nb.",
    "a reduce in the state": b"cfoo\nBar\n)R}S'update'\ncos\nsystem\nsb}S'a'\nI1\nsb.",
    "a method of a string": b"cbuiltins\nstr.format\n(S'{0.__class__}'\nI1\ntR.",
    "getattr": b"cbuiltins\ngetattr\n(cbuiltins\ndict\nS'__subclasses__'\ntR.",
    "append as a call": b"cos\nsystem\nS'touch /x'\na.",
    "items as a call": b"cos\nsystem\nS'a'\nS'b'\ns.",
    "no protocol of this world": b"\x80\xff.",
}
NESTED = 200_000
NINES = b"\x8b" + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20)  # LONG4 of a megabyte
BOMBS = {
    "an index of the memo": b"}r\xff\xff\xff\x7f.",
    "an index of the memo in text": b"}p4294967295\n.",
    "a length": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "a length of a text": b"X\xff\xff\xff\xffx.",
    "a length of a bytearray": b"\x80\x05\x96" + struct.pack("<Q", 1 << 36) + b"x.",
    "a length of a frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.",
    "a negative length": b"\x80\x02T\xff\xff\xff\xffx.",
    "an integer": b"\x80\x02" + NINES + b".",
    "an integer as a size": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x01tQK\x00("
                            + NINES + NINES + b"t(" + NINES + NINES + b"ttR.",
    "an integer as a key": b"\x80\x02}" + NINES + b"Ns.",
    "a float": b"F" + b"9" * (1 << 20) + b"\n.",
    "lists in lists": b"]" * NESTED + b"a" * (NESTED - 1) + b".",
    "tuples in tuples": b")" + b"\x85" * NESTED + b".",
    "tuples in tuples as a key": b"}" + b")" + b"\x85" * NESTED + b"Ns.",
    "tuples of twice the last": b"}K\x01" + b"2\x86" * 60 + b"Ns.",
    "sets of tuples of twice the last": b"\x80\x04\x8f(" + b"K\x01" + b"2\x86" * 60 + b"\x90.",
    "lists of lists": b"]q\x00" + b"(" + b"N" * 100_000 + b"e" + b"cbuiltins\nlist\nq\x010" * 1
                      + b"h\x01h\x00\x85R0" * 2000 + b".",
    "states of many": b"}(" + b"".join(b"M" + struct.pack("<H", n) + b"N" for n in range(60_000)) + b"uq\x000"
                      + b"cfoo\nBar\nq\x010" + b"h\x01)Rh\x00b0" * 2000 + b".",
    "settings of twice the last": b"}" + text("net") + b"}" + text("settings") + b"]" + b"2\x86" * 60 + b"u.",
}  # fmt: skip


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
@pytest.mark.parametrize("trick", TRICKS)
def test_a_pickle_written_by_hand_calls_nothing(tmp_path, trick, old, monkeypatch):
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("it was called"))
    monkeypatch.setattr("builtins.eval", lambda *_: pytest.fail("it was called"))
    refuse(tmp_path, TRICKS[trick], old)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_pickle_bomb_is_refused_within_bounds(tmp_path, bomb, old):
    with bounded(256 << 20, 20.0):
        refuse(tmp_path, BOMBS[bomb], old)


def refuse(folder: Path, raw: bytes, old: bool) -> None:
    path = folder / "hand.pth"
    if old:
        head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
        path.write_bytes(b"".join([*head, raw, pickle.dumps([], 2)]))
    else:
        archive(path, raw)
    with pytest.raises(UserError, match=r"hand\.pth") as refusal:
        read_checkpoint(path, training=True)
    assert not isinstance(refusal.value.__cause__, MemoryError)


def test_values_that_hold_each_other_many_times_over_end(tmp_path):
    value: Any = [1.0]
    for _ in range(60):
        value = [value, value]
    path = tmp_path / "net.pth"
    for place in ("settings", "stats"):
        torch.save({"net": NET, place: {"x": value}}, path)
        with bounded(512 << 20, 30.0), pytest.raises(UserError, match="more values than any checkpoint"):
            read_checkpoint(path, training=True)


def test_zip_bombs_are_refused(tmp_path):
    """Compressed entries, and entries that all lie on the same bytes."""
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("archive/data.pkl", bytes(1 << 26))
    with bounded(64 << 20, 10.0), pytest.raises(UserError, match="compressed"):
        read_checkpoint(path)
    count, size = 64, 1 << 18
    refs = {f"w{k}": torch.full((size // 4,), 1.0) for k in range(count)}
    buffer = io.BytesIO()
    torch.save({"net": refs}, buffer)
    with zipfile.ZipFile(buffer) as whole:
        archive(path, whole.read("archive/data.pkl"), **{"0": whole.read("archive/data/0")})
    with zipfile.ZipFile(path, "a") as packed:  # the other storages are names for the bytes of the first one
        first = packed.getinfo("archive/data/0")
        for key in range(1, count):
            twin = zipfile.ZipInfo(f"archive/data/{key}")
            twin.header_offset, twin.CRC, twin.file_size, twin.compress_size = (
                first.header_offset, first.CRC, first.file_size, first.compress_size,
            )  # fmt: skip
            packed.filelist.append(twin)
            packed.NameToInfo[twin.filename] = twin
        packed._didModify = True
    with pytest.raises(UserError, match=r"overlap|differ"):
        read_checkpoint(path)


def test_a_sparse_file_of_a_gigabyte_costs_what_it_holds(tmp_path):
    """A length that the file only claims, or that nothing but a hole stands for."""
    path = tmp_path / "hole.pth"
    head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    path.write_bytes(b"".join([*head, b"X\x00\x00\x00\x40"]))
    os.truncate(path, 1 << 31)
    with bounded(128 << 20, 10.0), pytest.raises(UserError, match="longer than any"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "layout", ["legacy_checkpoint", "legacy_checkpoint_transt", "legacy_checkpoint_pytracking"]
)
def test_every_bit_of_a_published_file_may_flip(tmp_path, layout):
    """One bit in each stretch of the file: read as before, other numbers of a format without checksums, or refused."""
    for source in sorted(need_shared("parity", layout).glob("*.pth.tar")):
        data = source.read_bytes()
        path = tmp_path / source.name
        for at in range(0, len(data), max(1, len(data) // 60)):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
            try:
                read_checkpoint(path)
            except UserError as error:
                assert source.name in str(error)


def test_nothing_of_the_file_is_imported(tmp_path):
    before = set(sys.modules)
    unpickler = RestrictedUnpickler(io.BytesIO(b"cantigravity\nfly\n)R."))
    unpickler.load()
    assert unpickler.left_out == {"antigravity.fly"} and "antigravity" not in sys.modules
    assert set(sys.modules) == before
