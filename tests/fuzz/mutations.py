"""Damage: what disks, editors, other programs and enemies make of a file."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

_HUGE = 10**25
_NUMBERS = (
    b"nan", b"NaN", b"-inf", b"Infinity", b"1e400", b"-1e308", b"1e-320", b"-0.0", b"-1", b"-7.5", b"0", b"3.7",
    b"2147483648", b"-9223372036854775809", b"18446744073709551616", b"9" * 400, b"9" * 5000, b"0x10", b"1_000", b"+1",
    b"1.", b".5", b"\xd9\xa3", b"1e", b"--2", b"True", b"null",
)  # fmt: skip
_TEXTS = (
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n\n\n", b"\x1b[2J", b"\x85", b"\xe2\x80\xa8", b"\\ud800",
    b"../../x", b"/etc/passwd", b"a/../../b", b"{}", b"[]", b'""', b",", b";;", b"\t \t", b"%s%n", b"__class__",
    b"[" * 3000, b'{"a":' * 3000, b"(" * 3000, b"-" * 3000, b"1," * 3000,
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 0.5, 2**31, 2**63, 2**64, _HUGE, -_HUGE, float("nan"), float("inf"), 1e308, "", "x", "../../x",
    "/x", "a\0b", "\ud800", "\u2028", "NaN", "9" * 5000, [], {}, [[]], [None], [1, [2]], {"": {}}, [1.5, 2, 3, 4], [True] * 4,
    ["1", "2", "3", "4"], [[1, 2, 3, 4]], [-1, -1, -1, -1], [1e400, 1, 1, 1], [0] * 2000,
)  # fmt: skip


def damaged(examples: list[bytes]) -> st.SearchStrategy[bytes]:
    """One of the examples after one to four accidents, or something else altogether."""
    whole = st.integers(0, len(examples) - 1).map(examples.__getitem__)
    steps = st.lists(st.one_of(_bytes(), _tokens(), _blocks()), min_size=1, max_size=4)
    broken = st.builds(_apply, whole, steps)
    parsed = [example for example in examples if _is_json(example)]
    choices = [
        broken,
        broken,
        st.builds(_encoded, whole, st.sampled_from(_ENCODINGS)),
        st.binary(max_size=200),
    ]
    if parsed:
        edits = st.lists(
            st.tuples(st.integers(0, 1 << 16), st.integers(0, len(_VALUES) - 1)), min_size=1, max_size=3
        )
        choices += [st.builds(_edited, st.integers(0, len(parsed) - 1).map(parsed.__getitem__), edits)] * 3
    return st.one_of(choices)


Step = Callable[[bytearray], None]


def _apply(data: bytes, steps: list[Step]) -> bytes:
    changed = bytearray(data)
    for step in steps:
        step(changed)
    return bytes(changed)


_PLACE = st.floats(0, 1)


def _bytes() -> st.SearchStrategy[Step]:
    """A bit flipped, a byte set, the end cut off, some bytes lost or added."""

    def flip(where: float, bit: int) -> Step:
        def step(data: bytearray) -> None:
            if data:
                data[_at(data, where)] ^= 1 << bit

        return step

    def put(where: float, value: int) -> Step:
        def step(data: bytearray) -> None:
            if data:
                data[_at(data, where)] = value

        return step

    def cut(where: float) -> Step:
        def step(data: bytearray) -> None:
            del data[int(where * len(data)) :]

        return step

    def lose(where: float, count: int) -> Step:
        def step(data: bytearray) -> None:
            start = int(where * len(data))
            del data[start : start + count]

        return step

    def add(where: float, more: bytes) -> Step:
        def step(data: bytearray) -> None:
            start = int(where * len(data))
            data[start:start] = more

        return step

    return st.one_of(
        st.builds(flip, _PLACE, st.integers(0, 7)),
        st.builds(put, _PLACE, st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0x2E, 0x30, 0x28])),
        st.builds(cut, _PLACE),
        st.builds(lose, _PLACE, st.integers(1, 9)),
        st.builds(add, _PLACE, st.binary(min_size=1, max_size=8)),
    )


def _tokens() -> st.SearchStrategy[Step]:
    """A number or word replaced by another, or something put between two."""

    def replace(where: float, token: bytes) -> Step:
        def step(data: bytearray) -> None:
            start = int(where * len(data))
            while start > 0 and data[start - 1 : start].isalnum():
                start -= 1
            end = start
            while end < len(data) and (data[end : end + 1].isalnum() or data[end : end + 1] in (b".", b"-")):
                end += 1
            data[start:end] = token

        return step

    tokens = (*_NUMBERS, *_TEXTS)
    return st.builds(replace, _PLACE, st.integers(0, len(tokens) - 1).map(tokens.__getitem__))


def _blocks() -> st.SearchStrategy[Step]:
    """A part repeated, moved elsewhere, or blanked, as a half-written sector is."""

    def repeat(where: float, size: int, times: int) -> Step:
        def step(data: bytearray) -> None:
            start = int(where * len(data))
            data[start:start] = bytes(data[start : start + size]) * times

        return step

    def move(source: float, target: float, size: int) -> Step:
        def step(data: bytearray) -> None:
            start, end = int(source * len(data)), int(target * len(data))
            block = data[start : start + size]
            data[end : end + len(block)] = block

        return step

    def blank(where: float, size: int) -> Step:
        def step(data: bytearray) -> None:
            start = int(where * len(data))
            data[start : start + size] = bytes(len(data[start : start + size]))

        return step

    sizes = st.sampled_from([1, 4, 16, 64, 512])
    return st.one_of(
        st.builds(repeat, _PLACE, sizes, st.sampled_from([1, 2, 300])),
        st.builds(move, _PLACE, _PLACE, sizes),
        st.builds(blank, _PLACE, sizes),
    )


_ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037", "double")


def _encoded(data: bytes, encoding: str) -> bytes:
    if encoding == "double":
        return data + data
    return data.decode("latin-1").encode(encoding)


def _at(data: bytearray, where: float) -> int:
    return int(where * (len(data) - 1))


def _is_json(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), (dict, list))
    except ValueError:
        return False


def _edited(data: bytes, edits: list[tuple[int, int]]) -> bytes:
    """The JSON with other values, keys left out, and a key that is there twice."""
    content = json.loads(data)
    for number, choice in edits:
        value = copy.deepcopy(_VALUES[choice])
        places = list(_places(content))
        if not places:
            break
        holder, key = places[number % len(places)]
        if number % 7 == 0 and isinstance(holder, dict):
            del holder[key]
        elif number % 11 == 0 and isinstance(holder, dict):
            holder[str(value)] = holder.pop(key)
        else:
            holder[key] = value
    text = json.dumps(content)
    if edits and edits[0][0] % 13 == 0 and text.startswith("{") and len(text) > 2:
        text = text[:-1] + "," + text[1:]
    return text.encode()


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every (container, key or index), outermost first."""
    found: list[tuple[Any, Any]] = []
    todo = [content]
    while todo:
        holder = todo.pop(0)
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                todo.append(holder[key])
    return found
