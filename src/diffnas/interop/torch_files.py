"""Files of `torch.save` with their tensors, read without running them.

What is neither a plain value nor a tensor becomes an `Inert` object: options of a command line, a logger's history, a module.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, BinaryIO

import torch
from torch import Tensor

from diffnas.errors import DataError
from diffnas.interop.unpickle import MAX_BYTES, TORCH_MAGIC, PlainUnpickler, StandIn, Whole, one_line, read_limited

_DTYPES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}


def load_tensors(file: BinaryIO, where: str) -> object:
    """The plain data in a file of `torch.save`, of either layout, with its tensors as `Weight`s.

    Raises `DataError` as `load_pickle` does, but for objects of other classes, which are `Inert`.
    """
    data = read_limited(file, where, MAX_BYTES)
    with one_line(where):
        if data.startswith(b"PK"):
            return _load_zip(data, where)
        return _load_legacy(data, where)


def _load_zip(data: bytes, where: str) -> object:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickles = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
        if len(pickles) != 1 or any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise DataError(f"{where}: is not a file of torch.save")
        root = pickles[0].filename.removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise DataError(f"{where}: was written on a big-endian machine, which is not supported")

        def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
            return _numbers(archive.read(f"{root}data/{key}"), dtype, count)

        return _WeightsUnpickler(Whole(archive.read(pickles[0])), where, storage).load()


def _load_legacy(data: bytes, where: str) -> object:
    """Before PyTorch 1.6: a number, a version, the machine, the object, the storages' keys; then their numbers."""
    stream, storages = Whole(data), dict[str, Tensor]()

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if count * dtype.itemsize > len(data):
            raise ValueError("more numbers than the file has bytes")
        return storages.setdefault(key, torch.zeros(count, dtype=dtype))

    def load() -> Any:
        return _WeightsUnpickler(stream, where, storage).load()

    if load() != TORCH_MAGIC:
        raise DataError(f"{where}: is not a file of torch.save")
    load()  # the version
    machine = load()
    if not isinstance(machine, Mapping) or machine.get("little_endian") is not True:
        raise DataError(f"{where}: was written on a big-endian machine, which is not supported")
    loaded = load()
    for key in load():
        (count,) = struct.unpack("<q", stream.read(8))
        numbers = storages[str(key)]
        numbers.copy_(_numbers(stream.read(numbers.nbytes), numbers.dtype, count))
    return loaded


def _numbers(raw: bytes, dtype: torch.dtype, count: int) -> Tensor:
    """[count] numbers out of their bytes, which must be as many."""
    if len(raw) != count * dtype.itemsize:
        raise ValueError("numbers that do not fit their count")
    return torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)


class _WeightsUnpickler(PlainUnpickler):
    """Answers names of tensors with stand-ins that keep them, and names of anything else with `Inert`."""

    def __init__(self, file: BinaryIO, where: str, storage: Callable[[str, torch.dtype, int], Tensor]) -> None:
        super().__init__(file, where, "latin1")
        self.storage = storage

    def find_class(self, module: str, name: str) -> object:
        """Returns a stand-in for `module.name`: plain data, a part of a tensor, or an inert object."""
        if f"{module}.{name}" in _TENSOR_NAMES:
            return _TENSOR_NAMES[f"{module}.{name}"]
        try:
            return super().find_class(module, name)
        except DataError:
            return Inert

    def persistent_load(self, pid: object) -> object:
        """The numbers of a storage; `Inert` for any other object outside the pickle."""
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and isinstance(pid[1], _Storage)):
            return Inert
        count = pid[4]
        if type(count) is not int or count < 0:
            raise ValueError("a storage without a size")
        numbers = self.storage(str(pid[2]), pid[1].dtype, count)
        if len(pid) > 5 and pid[5] is not None:  # a part of it, in files of the first versions
            _, start, size = pid[5]
            return numbers[start : start + size]
        return numbers


class Inert:
    """An object of a class that is no data: it takes whatever a pickle does with it and does nothing.

    `state` is what it was to hold, by which a module that was saved whole still tells its weights.
    """

    __slots__ = ("state",)
    state: object

    def __new__(cls, *_: object, **__: object) -> Inert:
        """Builds the object from any arguments."""
        made = object.__new__(cls)
        made.state = None
        return made

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, item: object) -> None:
        """Ignores `item`."""

    extend = add = append

    def __call__(self, *_: object, **__: object) -> Inert:
        """Returns another inert object."""
        return Inert()


class Weight:
    """A tensor of a file; unlike a tensor itself, nothing in a pickle can change it."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __setstate__(self, state: object) -> None:
        raise ValueError("a tensor with a state of its own")


class _OldWeight(Weight):
    """A tensor that PyTorch before 0.4 wrapped in a variable; what is set on it (its hooks, ...) is left out."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None: ...


class _Storage(StandIn):
    """A type of storage."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __setstate__(self, state: object) -> None:
        raise ValueError("a type of storage with a state of its own")


class _MakeWeight(StandIn):
    """`torch._utils._rebuild_tensor(storage, offset, shape, stride, ...)`: a part of the numbers of a storage."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, stride: Any, *_: object) -> Weight:
        if not isinstance(storage, Tensor) or not all(type(n) is int and n >= 0 for n in (offset, *shape, *stride)):
            raise ValueError("a tensor without numbers or sizes")
        if prod(shape) > storage.numel():
            raise ValueError("a tensor that is larger than its numbers")
        return Weight(storage.as_strided(shape, stride, offset))  # torch refuses what goes beyond the storage


class _First(StandIn):
    """`torch._utils._rebuild_parameter(tensor, ...)`: the tensor."""

    __slots__ = ()

    def __call__(self, value: object, *_: object) -> object:
        return value


class _Wrapped(StandIn):
    """`torch.nn.parameter.Parameter(tensor)`, `Variable(tensor)` of PyTorch before 0.4: the tensor, which a state follows."""

    __slots__ = ()

    def __call__(self, value: object = None, *_: object) -> object:
        return _OldWeight(value.tensor) if isinstance(value, Weight) else Inert()


class _Typed(StandIn):
    """`torch._tensor._rebuild_from_type_v2(function, type, arguments, state)`: the tensor alone."""

    __slots__ = ()

    def __call__(self, function: object, _type: object, arguments: Any, *_: object) -> object:
        return _MakeWeight()(*arguments) if isinstance(function, _MakeWeight) else Inert()


_TENSOR_NAMES: dict[str, object] = {
    "torch._utils._rebuild_tensor": _MakeWeight(),
    "torch._utils._rebuild_tensor_v2": _MakeWeight(),
    "torch._utils._rebuild_parameter": _First(),
    "torch._utils._rebuild_parameter_with_state": _First(),
    "torch._tensor._rebuild_from_type_v2": _Typed(),
    "torch.nn.parameter.Parameter": _Wrapped(),
    "torch.autograd.variable.Variable": _Wrapped(),
    "torch.Size": tuple,
    **{f"{home}.{kind}Storage": _Storage(dtype) for home in ("torch", "torch.cuda") for kind, dtype in _DTYPES.items()},
}
