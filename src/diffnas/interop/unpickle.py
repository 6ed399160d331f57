"""The one unpickler of diffnas: reads plain data out of a pickle and refuses everything else by name.

A pickle is a program.  Here its instructions can only build plain values, containers and numeric numpy arrays: no class
or function of its choice is ever imported, and what it may name is answered by inert stand-ins of this file.  The
stand-ins have no attributes that a BUILD instruction could change, and an array's type is never taken from the file
unchecked, since numpy trusts the state that it is given.

The unpickler is the one that the standard library writes in Python.  The one in C clears as much memory as the largest
memo number in the file says (a file of ten bytes can ask for 64 GiB); this one takes memory only for what is there.
"""

from __future__ import annotations

import io
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, BinaryIO

import numpy as np

from diffnas.errors import DataError

MAX_BYTES = 2**30
"""Refused beyond this size: the largest batch of a known data set (ImageNet32) is under 400 MB."""

_PLAIN_DTYPE = re.compile(
    r"[|<>=]?(b1|[ui][1248]|f[248]|c(8|16)|[SU]\d{1,4})"
)  # read as little-endian unless the state says otherwise
LARGEST_TUPLE = 100_000
"""So many values a tuple may hold, all within it counted: one that holds another twice, and so on, takes for ever to hash."""
_BROKEN = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)
TORCH_MAGIC = 0x1950A86A20F9469CFC6C


def load_pickle(file: BinaryIO, where: str, encoding: str = "bytes", limit: int | None = None) -> object:
    """The plain data in an open pickle; `where` names it in messages.

    `encoding` is that of the strings of Python 2 ("bytes" leaves them bytes, as the keys of CIFAR's batches).  Arrays
    are a subclass of `numpy.ndarray`.  Raises `DataError` with one line when the pickle names anything but containers
    and numeric arrays, is damaged or cut short, or is over `limit` bytes long (`MAX_BYTES`).
    """
    stream = Whole(read_limited(file, where, limit))
    with one_line(where):
        return PlainUnpickler(stream, where, encoding).load()


def load_torch(file: BinaryIO, where: str, limit: int | None = None) -> object:
    """The plain data in a file of `torch.save`, of either layout; every tensor in it becomes an `Omitted`.

    No weights are read and no torch is loaded.  Raises `DataError` as `load_pickle` does.
    """
    data = read_limited(file, where, limit)
    with one_line(where):
        if data.startswith(b"PK"):
            return _TorchUnpickler(Whole(_zipped_pickle(data, where, limit)), where, "bytes").load()
        stream = Whole(data)  # before PyTorch 1.6: a number, a version, the machine, the object; then the weights
        if PlainUnpickler(stream, where, "bytes").load() != TORCH_MAGIC:
            raise DataError(f"{where}: is not a file of torch.save")
        for _ in ("version", "machine"):
            PlainUnpickler(stream, where, "bytes").load()
        return _TorchUnpickler(stream, where, "bytes").load()


def read_limited(file: BinaryIO, where: str, limit: int | None) -> bytes:
    """All bytes of `file`; `DataError` where they are over `limit` (`MAX_BYTES`)."""
    limit = MAX_BYTES if limit is None else limit
    data = file.read(limit + 1)
    if len(data) > limit:
        raise DataError(f"{where}: refused: a pickle of over {limit} bytes")
    return data


def _zipped_pickle(data: bytes, where: str, limit: int | None) -> bytes:
    """The one `data.pkl` in an archive of `torch.save`."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
        if len(members) != 1 or members[0].compress_type != zipfile.ZIP_STORED:
            raise DataError(f"{where}: is not a file of torch.save")
        with archive.open(members[0]) as member:
            return read_limited(member, where, limit)  # type: ignore[arg-type]


@contextmanager
def one_line(where: str) -> Iterator[None]:
    """Turns any error from a broken pickle into one line."""
    try:
        yield
    except DataError:
        raise
    except _BROKEN as error:
        raise DataError(f"{where}: damaged or cut short ({type(error).__name__}: {_safe(str(error))})") from None


class Whole(io.BytesIO):
    """Bytes in memory that end in `EOFError`, where a file would give less than what was asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads `size` bytes, not fewer."""
        data = super().read(size)
        if size is not None and len(data) < size:
            raise EOFError("it ends within a value")
        return data

    def readline(self, size: int | None = -1, /) -> bytes:
        """Reads a line with its end."""
        line = super().readline(size)
        if not line.endswith(b"\n"):
            raise EOFError("it ends within a line")
        return line


def _load_bytearray8(unpickler: Any) -> None:
    (length,) = struct.unpack("<Q", unpickler.read(8))
    unpickler.append(bytearray(unpickler.read(length)))  # the library's own makes room for the length first


def _bounded(instruction: Callable[..., None]) -> Callable[..., None]:
    """The instruction that makes a tuple, refused where the tuple is too large with all that is within it."""

    def load(unpickler: Any) -> None:
        instruction(unpickler)
        made = unpickler.stack[-1]
        within = [unpickler.tuples.get(id(item), (None, 1 + len(item)))[1] for item in made if isinstance(item, tuple)]
        if within:  # kept, so that no other object gets its number
            unpickler.tuples[id(made)] = (made, len(made) + sum(within))
            if unpickler.tuples[id(made)][1] > LARGEST_TUPLE:
                raise ValueError("a tuple of tuples without end")

    return load


_INSTRUCTIONS: dict[int, Callable[..., None]] = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: _load_bytearray8}
for _code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
    _INSTRUCTIONS[_code[0]] = _bounded(_INSTRUCTIONS[_code[0]])
for _code in (pickle.EXT1, pickle.EXT2, pickle.EXT4):  # names by number, from a registry of the process
    del _INSTRUCTIONS[_code[0]]


class PlainUnpickler(pickle._Unpickler):
    """Answers names from `_ALLOWED` and nothing else."""

    dispatch = _INSTRUCTIONS

    def __init__(self, file: BinaryIO, where: str, encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self.where = where
        self.tuples: dict[int, tuple[object, int]] = {}

    def find_class(self, module: str, name: str) -> object:
        """The stand-in for `module.name`; `DataError` for every name that is not data."""
        wanted = f"{module}.{name}"
        if wanted not in _ALLOWED:
            raise DataError(f"{self.where}: refused: it asks for {_safe(wanted)}, which no data set needs")
        return _ALLOWED[wanted]

    def persistent_load(self, pid: object) -> object:
        """Always `DataError`: a reference to an object outside the file."""
        raise DataError(f"{self.where}: refused: it asks for an object outside the file (a persistent id)")


class _TorchUnpickler(PlainUnpickler):
    """Answers the names by which tensors are pickled too, with an `Omitted` in place of each tensor and its numbers."""

    def find_class(self, module: str, name: str) -> object:
        """The stand-in for `module.name`; `DataError` for every name that is neither data nor part of a tensor."""
        return _TENSOR_NAMES.get(f"{module}.{name}") or super().find_class(module, name)

    def persistent_load(self, pid: object) -> object:
        """An `Omitted` for the numbers of a tensor; `DataError` for any other object outside the file."""
        if isinstance(pid, tuple) and pid[:1] == ("storage",):
            return Omitted()
        return super().persistent_load(pid)


class _Dtype:
    """A numeric or fixed-length string dtype, chosen by its checked code; its state may only set the byte order."""

    __slots__ = ("dtype",)

    def __init__(self, code: object) -> None:
        text = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(text, str) or not _PLAIN_DTYPE.fullmatch(text):
            raise ValueError(f"an array of type {code!r} is not plain numbers")
        self.dtype = np.dtype(text.lstrip("|<>=")).newbyteorder(">" if text[0] == ">" else "<")

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise ValueError("an array type with fields is not plain numbers")
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order == ">":
            self.dtype = self.dtype.newbyteorder(">")
        elif order not in ("<", "|"):
            raise ValueError("an array type has no valid byte order")


class _Array(np.ndarray):
    """An array whose pickled state is checked before numpy sees it."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise ValueError("an array without a valid state")
        shape, kind, fortran, raw = state[-4:]
        data, dtype = _checked_array(shape, kind, raw)
        super().__setstate__((1, shape, dtype, bool(fortran), data))  # type: ignore[arg-type]


def _checked_array(shape: object, kind: object, raw: object) -> tuple[bytes, np.dtype]:
    """The bytes and dtype of a pickled array; `ValueError` unless they fit its shape exactly."""
    data = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(kind, _Dtype) or not isinstance(data, (bytes, bytearray)):
        raise ValueError("an array that is not plain numbers")
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("an array without a valid shape")
    if prod(shape) * kind.dtype.itemsize != len(data):
        raise ValueError("an array whose bytes do not fit its shape")
    return bytes(data), kind.dtype


class StandIn:
    """An inert object for names that a pickle may mention but not use."""

    __slots__ = ()


class _MakeDtype(StandIn):
    """`numpy.dtype(code, align, copy)`."""

    __slots__ = ()

    def __call__(self, code: object, *_: object) -> _Dtype:
        return _Dtype(code)


class _MakeArray(StandIn):
    """`numpy.core.multiarray._reconstruct`: an empty array that its state fills."""

    __slots__ = ()

    def __call__(self, *_: object) -> _Array:
        return np.empty(0, np.uint8).view(_Array)


class _MakeFromBuffer(StandIn):
    """`numpy.core.numeric._frombuffer`, which pickles of protocol 5 use."""

    __slots__ = ()

    def __call__(self, raw: object, kind: object, shape: object, order: object = "C") -> _Array:
        array = np.empty(0, np.uint8).view(_Array)
        array.__setstate__((shape, kind, order == "F", raw))
        return array


class _MakeScalar(StandIn):
    """`numpy.core.multiarray.scalar(dtype, bytes)`."""

    __slots__ = ()

    def __call__(self, kind: object, raw: object) -> object:
        data, dtype = _checked_array((), kind, raw)
        return np.frombuffer(data, dtype, count=1)[0]


class _Encode(StandIn):
    """`_codecs.encode(text, "latin1")`, how Python 3 writes bytes for Python 2; no other codec is looked up."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str = "latin1", *_: object) -> bytes:
        if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
            raise ValueError("bytes that are not written as latin1")
        return text.encode("latin1")


class _MakeBytes(StandIn):
    """`bytes` of data that is in the file: never of a length, which would only take memory."""

    __slots__ = ()

    def __call__(self, data: object = b"", *_: object) -> bytes:
        raw = data.encode("latin1") if isinstance(data, str) else data
        if not isinstance(raw, (bytes, bytearray)):
            raise ValueError("bytes that are not in the file")
        return bytes(raw)


class _MakeByteArray(_MakeBytes):
    """`bytearray`, with the same care."""

    __slots__ = ()

    def __call__(self, data: object = b"", *rest: object) -> bytearray:  # type: ignore[override]
        return bytearray(super().__call__(data, *rest))


class _MakeTuple(StandIn):
    """`tuple` of values that are no tuples, as instructions make those without a call."""

    __slots__ = ()

    def __call__(self, items: object = (), *_: object) -> tuple[object, ...]:
        if not isinstance(items, (list, tuple)) or any(isinstance(item, tuple) for item in items):
            raise ValueError("a tuple that is made of neither a list nor values")
        return tuple(items)


class Omitted(StandIn):
    """A tensor that was not read."""

    __slots__ = ()


class _MakeOmitted(StandIn):
    """A function that makes a tensor or its numbers, of whatever arguments."""

    __slots__ = ()

    def __call__(self, *_: object) -> Omitted:
        return Omitted()


def _safe(text: str) -> str:
    """Text from a file, shortened and with control characters escaped, so that a message cannot steer a terminal."""
    return text[:200].encode("unicode_escape").decode("ascii")


_CONTAINERS: dict[str, object] = {
    "set": set,
    "frozenset": frozenset,
    "list": list,
    "dict": dict,
    "tuple": _MakeTuple(),
    "complex": complex,
    "bytes": _MakeBytes(),
    "bytearray": _MakeByteArray(),
}
_ALLOWED: dict[str, object] = {
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _Encode(),
    "numpy.dtype": _MakeDtype(),
    "numpy.ndarray": StandIn(),  # the first argument of _reconstruct
}
for _module in ("builtins", "__builtin__"):
    _ALLOWED |= {f"{_module}.{_name}": _kind for _name, _kind in _CONTAINERS.items()}
for _module in ("numpy.core", "numpy._core"):
    _ALLOWED |= {
        f"{_module}.multiarray._reconstruct": _MakeArray(),
        f"{_module}.multiarray.scalar": _MakeScalar(),
        f"{_module}.numeric._frombuffer": _MakeFromBuffer(),
    }
_KINDS = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_TENSOR_NAMES: dict[str, object] = {
    "torch._utils._rebuild_tensor": _MakeOmitted(),
    "torch._utils._rebuild_tensor_v2": _MakeOmitted(),
    "torch._utils._rebuild_parameter": _MakeOmitted(),
    **{f"torch.{kind}Storage": StandIn() for kind in _KINDS},
}
