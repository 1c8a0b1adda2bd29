"""Reading pickles of torch checkpoints without importing or executing anything they name.

Tensors become references into the file, numpy scalars become numbers, and every other class or
function becomes an inert stand-in that only keeps the attributes and arguments it was given.
"""

from __future__ import annotations

import collections
import pickle
import re
from collections.abc import Callable
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import torch

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


class _Sealed(type):
    """Classes that a pickle gets its hands on but cannot change."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("the file tries to change a class")


class StandIn(metaclass=_Sealed):
    """What is left of an object of an unknown class: attributes, arguments and items, no behaviour."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.__dict__["arguments"] = args
        self.__dict__.update(kwargs)

    def __new__(cls, *_: Any, **__: Any) -> StandIn:
        self = super().__new__(cls)
        self.__dict__.update(arguments=(), items={}, elements=[])
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.__dict__.update({str(key): value for key, value in part.items()})

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__dict__["items"][key] = value

    def append(self, value: Any) -> None:
        """Keep an element of a foreign list."""
        self.__dict__["elements"].append(value)

    def extend(self, values: Any) -> None:
        """Keep elements of a foreign list."""
        self.__dict__["elements"].extend(values)

    def attributes(self) -> dict[str, Any]:
        """Attributes and items together."""
        own = {k: v for k, v in self.__dict__.items() if k not in ("arguments", "items", "elements")}
        return {**own, **self.__dict__["items"]}


class _DType(metaclass=_Sealed):
    """A numpy scalar's type; its state tells the byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[biufc]\d{1,2}|\?", str(code)):
            raise pickle.UnpicklingError(f"numpy type {code!r}")
        self.code = str(code)
        self.order: Literal["<", ">"] = "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if state[1] == ">" else "<"


class _Function:
    """A callable that a pickle cannot change."""

    __slots__ = ("__call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.__call = call

    def __call__(self, *args: Any) -> Any:
        return self.__call(*args)


def _rebuild_tensor(storage: StorageRef, offset: int, size: Any, stride: Any, *_: Any) -> TensorRef:
    if not isinstance(storage, StorageRef):
        raise pickle.UnpicklingError("a tensor without a storage")
    return TensorRef(storage, int(offset), tuple(map(int, size)), tuple(map(int, stride)))


def _scalar(dtype: _DType, raw: Any) -> Any:
    if not isinstance(dtype, _DType) or not isinstance(raw, bytes):
        raise pickle.UnpicklingError("a numpy scalar without type and bytes")
    return np.frombuffer(raw, np.dtype(dtype.code).newbyteorder(dtype.order))[0].item()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding.replace("-", "").lower() != "latin1" or not isinstance(text, str):
        raise pickle.UnpicklingError(f"text encoding {encoding!r}")
    return text.encode("latin1")


def _plain_dict(*_: Any) -> dict:
    return {}


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "_codecs.encode": _encode,
    "collections.defaultdict": _plain_dict,
    "copyreg._reconstructor": lambda cls, *_: cls(),
    "copy_reg._reconstructor": lambda cls, *_: cls(),
}
_CLASSES: dict[str, type] = {
    "collections.OrderedDict": collections.OrderedDict,
    "numpy.dtype": _DType,
    **{
        f"{module}.{kind.__name__}": kind
        for module in ("builtins", "__builtin__")
        for kind in (set, frozenset, dict, list, tuple, complex)
    },
}


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickles plain values, tensor references and stand-ins; ``left_out`` names the classes it stood in for."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")
        self.left_out: set[str] = set()
        self._known: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Never imports: a known function or class, a storage type, or a new stand-in class."""
        full = f"{module}.{name}"
        if full not in self._known:
            self._known[full] = self._make(module, name, full)
        return self._known[full]

    def persistent_load(self, pid: Any) -> Any:
        """The storage references of torch's format."""
        if not isinstance(pid, tuple) or not pid:
            raise pickle.UnpicklingError("an unknown persistent id")
        if pid[0] == "module":
            return pid[1]
        _, dtype, key, _, numel, *view = pid
        if pid[0] != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("an unknown kind of storage")
        start = int(view[0][1]) if view and view[0] else 0
        return StorageRef(dtype, str(key), int(numel), start)

    def _make(self, module: str, name: str, full: str) -> Any:
        if full in _CLASSES:
            return _CLASSES[full]
        if full in _FUNCTIONS:
            return _Function(_FUNCTIONS[full])
        if module in ("torch", "torch.cuda", "torch.storage") and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        self.left_out.add(full)
        return _Sealed(name, (StandIn,), {})


def plain(value: Any, tensor: Callable[[TensorRef], Any] = lambda _: None) -> Any:
    """``value`` with stand-ins as dicts of their attributes, cycles as None, and ``tensor`` of its tensors."""
    return _plain(value, tensor, frozenset())


def _plain(value: Any, tensor: Callable[[TensorRef], Any], above: frozenset[int]) -> Any:
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
        return {key: _plain(item, tensor, above) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, tensor, above) for item in value]
    return str(value) if isinstance(value, torch.dtype) else None
