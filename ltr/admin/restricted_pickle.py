"""Reading pickles of torch checkpoints without importing or executing anything they name.

Tensors become references into the file, numpy scalars become numbers, and every other class or
function becomes an inert stand-in that only keeps the attributes and arguments it was given.

The interpreter is Python's own in its Python form, because the one in C allocates whatever a number in the
file says: an index of the memo of 2**31, or a length of 2**40. Here a pickle costs memory and time in
proportion to its size, which is bounded, and what it copies is counted.
"""

from __future__ import annotations

import collections
import pickle
import re
from collections.abc import Callable, Iterable, Sized
from typing import IO, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch

_LONGEST = (
    1 << 24
)  # bytes of a pickle without its tensors; those of published checkpoints have less than 1 MB
_COPIED = 1 << 21  # elements that the calls in a pickle may copy
_PLAIN = 1 << 18  # values that ``plain`` hands out; shared ones count each time

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class StorageRef(NamedTuple):
    """A block of numbers in the file."""

    dtype: torch.dtype
    key: str
    numel: int
    start: int = 0  # first element, where a very old file stores a view


class TensorRef(NamedTuple):
    """A tensor whose numbers have not been read yet."""

    storage: StorageRef
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Global:
    """A class or function that a pickle names: what is made when it is called, and nothing else."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make


class StandIn:
    """What is left of an object of an unknown class: attributes, arguments and items, no behaviour."""

    __slots__ = ("_arguments", "_attributes", "_elements", "_items")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._arguments, self._attributes = args, kwargs
        self._items: dict[Any, Any] | None = None
        self._elements: list[Any] | None = None

    def update(self, state: Any) -> None:
        """Take the state of an object: a dict, or a pair of dicts."""
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self._attributes.update({str(key): value for key, value in part.items()})

    def __setitem__(self, key: Any, value: Any) -> None:
        self._items = self._items or {}
        self._items[key] = value

    def extend(self, values: Iterable[Any]) -> None:
        """Keep elements of a foreign list."""
        self._elements = self._elements or []
        self._elements.extend(values)

    def attributes(self) -> dict[str, Any]:
        """Attributes and items together."""
        return {**self._attributes, **(self._items or {})}

    def parts(self) -> list[Any]:
        """Everything that it keeps."""
        return [self._arguments, self._attributes, self._items, self._elements]


class _DType:
    """A numpy scalar's type; its state tells the byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[biufc]\d{1,2}|\?", str(code)):
            raise pickle.UnpicklingError("a numpy type that is no number")
        self.code = str(code)
        self.order: Literal["<", ">"] = "<"

    def update(self, state: Any) -> None:
        """Take the state of a numpy type, of which only the byte order counts."""
        self.order = ">" if state[1] == ">" else "<"


def _rebuild_tensor(storage: StorageRef, offset: int, size: Any, stride: Any, *_: Any) -> TensorRef:
    if not isinstance(storage, StorageRef):
        raise pickle.UnpicklingError("a tensor without a storage")
    return TensorRef(storage, _count(offset), tuple(map(_count, size)), tuple(map(_count, stride)))


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise pickle.UnpicklingError("a size that is none")
    return value


def _scalar(dtype: _DType, raw: Any) -> Any:
    if not isinstance(dtype, _DType) or not isinstance(raw, bytes):
        raise pickle.UnpicklingError("a numpy scalar without type and bytes")
    return np.frombuffer(raw, np.dtype(dtype.code).newbyteorder(dtype.order))[0].item()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise pickle.UnpicklingError("a text encoding other than latin1")
    return text.encode("latin1")


def _reconstructed(kind: Global, *_: Any) -> Any:
    if not isinstance(kind, Global):
        raise pickle.UnpicklingError("an object without a class")
    return kind.make()


_KNOWN: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.dtype": _DType,
    "_codecs.encode": _encode,
    "collections.OrderedDict": lambda pairs=(): collections.OrderedDict(_pairs(pairs)),
    "collections.defaultdict": lambda *_: {},
    "copyreg._reconstructor": _reconstructed,
    "copy_reg._reconstructor": _reconstructed,
}
for _module in ("builtins", "__builtin__"):
    _KNOWN |= {
        f"{_module}.set": lambda values=(): set(map(_key, values)),
        f"{_module}.frozenset": lambda values=(): frozenset(map(_key, values)),
        f"{_module}.dict": lambda pairs=(): dict(_pairs(pairs)),
        f"{_module}.list": lambda values=(): list(values),
        f"{_module}.tuple": lambda values=(): tuple(values),
        f"{_module}.complex": complex,
    }


def _pairs(pairs: Any) -> Iterable[tuple[Any, Any]]:
    items = pairs.items() if isinstance(pairs, dict) else pairs
    return ((_key(key), value) for key, value in items)


_SCALARS = (str, bytes, float, complex, type(None), torch.dtype)


def _key(value: Any) -> Any:
    """``value``, which may be a key or in a set.

    Nested tuples can take forever to hash, or all of the stack, and large integers can all hash alike.
    """
    parts = value if type(value) is tuple and len(value) <= 16 else (value,)
    for part in parts:
        simple = isinstance(part, int) and -(1 << 63) <= part < 1 << 63
        if not simple and not isinstance(part, (*_SCALARS, StandIn, Global, StorageRef, TensorRef)):
            raise pickle.UnpicklingError("a key that is no plain value")
    return value


class _Limited:
    """A file of which one pickle may read so much."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._left = file, _LONGEST

    def read(self, size: int) -> bytes:
        if size > self._left:  # also a length that the file only claims
            raise pickle.UnpicklingError("a pickle that is longer than any checkpoint's")
        data = self._file.read(size)
        self._left -= len(data)
        if len(data) < size:
            raise EOFError("it ends early")
        return data

    def readline(self) -> bytes:
        data = self._file.readline(self._left)
        self._left -= len(data)
        return data


class RestrictedUnpickler(pickle._Unpickler):
    """Unpickles plain values, tensor references and stand-ins; ``left_out`` names the classes it stood in for."""

    stack: list[Any]  # of the interpreter, as are the next two
    pop_mark: Callable[[], list[Any]]
    readline: Callable[[], bytes]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(_Limited(file), encoding="latin1")  # type: ignore[arg-type]
        self.left_out: set[str] = set()
        self._globals: dict[str, Any] = {}
        self._copies = _COPIED

    def find_class(self, module: str, name: str) -> Any:
        """Never imports: a known function or class, a storage type, or what makes stand-ins."""
        full = f"{module}.{name}"
        if full not in self._globals:
            self._globals[full] = self._global(module, name, full)
        return self._globals[full]

    def persistent_load(self, pid: Any) -> Any:
        """The storage references of torch's format."""
        if not isinstance(pid, tuple) or not pid:
            raise pickle.UnpicklingError("an unknown persistent id")
        if pid[0] == "module":
            return pid[1]
        _, dtype, key, _, numel, *view = pid
        if pid[0] != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, (str, int)):
            raise pickle.UnpicklingError("an unknown kind of storage")
        start = _count(view[0][1]) if view and view[0] else 0
        return StorageRef(dtype, str(key), _count(numel), start)

    def _global(self, module: str, name: str, full: str) -> Any:
        if full in _KNOWN:
            return Global(_KNOWN[full])
        if module in ("torch", "torch.cuda", "torch.storage") and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        self.left_out.add(full)
        return Global(StandIn)

    def _call(self, kind: Any, args: Any, named: Any = None) -> Any:
        """What calling ``kind`` is replaced by."""
        if not isinstance(kind, Global) or not isinstance(args, tuple):
            raise pickle.UnpicklingError("a call of what is no function")
        self._spend(args, *args)
        return kind.make(*args, **{str(key): value for key, value in (named or {}).items()})

    def _spend(self, *copied: Any) -> None:
        self._copies -= sum(len(value) for value in copied if isinstance(value, Sized))
        if self._copies < 0:
            raise pickle.UnpicklingError("a pickle that copies without end")

    # -- opcodes that differ ----------------------------------------------------------------------

    def _reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    def _newobj(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    def _newobj_ex(self) -> None:
        named, args = self.stack.pop(), self.stack.pop()
        if not isinstance(named, dict):
            raise pickle.UnpicklingError("a call of what is no function")
        self._spend(named)
        self.stack[-1] = self._call(self.stack[-1], args, named)

    def _inst(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        args = tuple(self.pop_mark())
        self.stack.append(self._call(self.find_class(module, name), args))

    def _obj(self) -> None:
        kind, *args = self.pop_mark()
        self.stack.append(self._call(kind, tuple(args)))

    def _build(self) -> None:
        state = self.stack.pop()
        self._spend(state, *(state if isinstance(state, tuple) else ()))
        if isinstance(self.stack[-1], (StandIn, _DType)):
            self.stack[-1].update(state)
        elif not isinstance(self.stack[-1], dict):  # a state dict's is about versions of modules
            raise pickle.UnpicklingError("a state for what has none")

    def _append(self) -> None:
        self._extend([self.stack.pop()])

    def _appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], (list, StandIn)):
            raise pickle.UnpicklingError("elements for what is no list")
        self.stack[-1].extend(values)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _setitems(self) -> None:
        self._set(self.pop_mark())

    def _set(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], (dict, StandIn)):
            raise pickle.UnpicklingError("items for what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][_key(key)] = value

    def _dict(self) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self._set(items)

    def _additems(self) -> None:
        values = self.pop_mark()
        if not isinstance(self.stack[-1], set):
            raise pickle.UnpicklingError("members for what is no set")
        self.stack[-1].update(map(_key, values))

    def _frozenset(self) -> None:
        self.stack.append(frozenset(map(_key, self.pop_mark())))

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("an opcode that no checkpoint has")

    for _code, _step in {
        pickle.REDUCE: _reduce,
        pickle.NEWOBJ: _newobj,
        pickle.NEWOBJ_EX: _newobj_ex,
        pickle.INST: _inst,
        pickle.OBJ: _obj,
        pickle.BUILD: _build,
        pickle.APPEND: _append,
        pickle.APPENDS: _appends,
        pickle.SETITEM: _setitem,
        pickle.SETITEMS: _setitems,
        pickle.DICT: _dict,
        pickle.ADDITEMS: _additems,
        pickle.FROZENSET: _frozenset,
        **dict.fromkeys(
            (
                pickle.EXT1,
                pickle.EXT2,
                pickle.EXT4,
                pickle.BYTEARRAY8,
                pickle.NEXT_BUFFER,
                pickle.READONLY_BUFFER,
            ),
            _refuse,
        ),
    }.items():
        dispatch[_code[0]] = _step


def plain(value: Any, tensor: Callable[[TensorRef], Any] = lambda _: None) -> Any:
    """``value`` with stand-ins as dicts of their attributes, cycles as None, and ``tensor`` of its tensors.

    Raises:
        ValueError: it has more values than any checkpoint; objects that hold each other many times over do.
    """
    return _plain(value, tensor, frozenset(), [_PLAIN])


def _plain(value: Any, tensor: Callable[[TensorRef], Any], above: frozenset[int], left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise ValueError("it holds more values than any checkpoint")
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return value
    if isinstance(value, TensorRef):
        return tensor(value)
    if id(value) in above:
        return None
    above = above | {id(value)}
    if isinstance(value, StandIn):
        value = value.attributes()
    if isinstance(value, dict):
        return {key: _plain(item, tensor, above, left) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, tensor, above, left) for item in value]
    return str(value) if isinstance(value, torch.dtype) else None
