"""Processes that compute together: a sum over all of them, a word from the first, and who is one.

`world()` is the one that this process belongs to; alone it does nothing, and torch.distributed is not loaded.  All processes
run the same program on the same seed, each on its part of every batch, so whatever they decide they decide alike.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from diffnas.errors import ProcessLost, RunError
from diffnas.runtime.launched import Place, place_of, seconds
from diffnas.runtime.network import choose_network
from diffnas.runtime.watch import Watch, quoted

T = TypeVar("T")
FOREVER = timedelta(days=7)  # of a sum: the watch decides sooner


class World:
    """One process alone: `rank` 0 of `size` 1; `local` is its number on its machine."""

    rank, size, local = 0, 1, 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Returns the sums of `tensors` over all processes, by one message."""
        return list(tensors)

    def add(self, tensor: Tensor) -> Tensor:
        """Returns the sum of one tensor over all processes."""
        return tensor.clone()

    def all(self, value: T) -> list[T]:
        """The values of all processes, plain data and tensors, by rank."""
        return [value]

    def numbers(self, own: int) -> list[int]:
        """The whole numbers of all processes, by rank."""
        return [own]

    def of_first(self, make: Callable[[], T]) -> T:
        """What `make` returns in the first process; elsewhere it is not called."""
        return make()

    @contextmanager
    def hurried(self, hurried: bool = True) -> Iterator[None]:
        """Runs a block in which the others give this process up when it is late, or else wait much longer for it."""
        yield

    def go_on_with(self, command: str) -> None:
        """Notes the command that goes on with what is computed, which is said where a process is lost."""


class Joined(World):
    """One of several processes, joined by torch.distributed."""

    def __init__(self, place: Place, watch: Watch) -> None:
        self.rank, self.size, self.local, self.watch = place.rank, place.size, place.local, watch

    def sum(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Returns the sums of `tensors` over all processes: one flat message in their widest precision."""
        wide = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
        with torch.no_grad():
            flat = _flatten_dense_tensors([t if t.dtype == wide else t.to(wide) for t in tensors])
            self._reduce(flat)
            pieces = _unflatten_dense_tensors(flat, tensors)
            return [piece if t.dtype == wide else piece.to(t.dtype) for piece, t in zip(pieces, tensors, strict=True)]

    def add(self, tensor: Tensor) -> Tensor:
        """Returns the sum of one tensor over all processes."""
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        self._reduce(total)
        return total

    def all(self, value: T) -> list[T]:
        """The values of all processes, plain data and tensors, by rank."""
        own = _packed(value)
        lengths = self.numbers(len(own))
        longest = max(lengths)
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(own)] = own
        every = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
        with self.watch.waiting():
            torch.distributed.all_gather(every, padded)
        return [_unpacked(each[:length]) for each, length in zip(every, lengths, strict=True)]

    def numbers(self, own: int) -> list[int]:
        """The whole numbers of all processes, by rank."""
        every = torch.zeros(self.size, dtype=torch.int64)
        every[self.rank] = own
        self._reduce(every)
        found: list[int] = every.tolist()
        return found

    def of_first(self, make: Callable[[], T]) -> T:
        """What `make` returns in the first process, sent to all; the others wait as long as it takes."""
        own, length = None, torch.zeros(1, dtype=torch.int64)
        if self.first:
            with self.hurried(False):
                made = make()
            own = _packed(made)
            length[0] = len(own)
        self._reduce(length)
        message = torch.empty(int(length), dtype=torch.uint8) if own is None else own
        with self.watch.waiting():
            torch.distributed.broadcast(message, 0)
        return made if self.first else _unpacked(message)

    @contextmanager
    def hurried(self, hurried: bool = True) -> Iterator[None]:
        """Runs a block in which the others give this process up when it is late, or else wait much longer for it."""
        before, self.watch.hurried = self.watch.hurried, hurried
        try:
            yield
        finally:
            self.watch.hurried = before

    def go_on_with(self, command: str) -> None:
        """Notes the command that goes on with what is computed, which is said where a process is lost."""
        self.watch.go_on = command

    def _reduce(self, tensor: Tensor) -> None:
        with self.watch.waiting():
            torch.distributed.all_reduce(tensor)


def _packed(value: Any) -> Tensor:
    """Plain data and tensors as bytes [K] uint8."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _unpacked(message: Tensor) -> Any:
    """What `_packed` was given; nothing in it is executed."""
    return torch.load(io.BytesIO(message.numpy().tobytes()), map_location="cpu", weights_only=True)


_world = World()
_times = count()  # how often the processes were joined: what was written before must not be read again


def world() -> World:
    """The processes that this one computes with."""
    return _world


@contextmanager
def joined(cleared: Callable[[], object] = lambda: None) -> Iterator[World]:
    """Runs a block as one of the processes that were launched together; alone, or within another such block, as it is.

    Where the block fails the others are told why.  `cleared` is called before a process is ended from without.  Raises
    `RunError` where not all processes come, and `ProcessLost` where one is lost.
    """
    global _world
    place = place_of()
    if place.size == 1 or _world.size > 1:
        yield _world
        return
    watch = _met(place, cleared)
    _world = Joined(place, watch)
    try:
        with _world.hurried(), watch.waiting():
            _connect(place, watch)
        yield _world
        with watch.waiting():
            torch.distributed.barrier()
    except ProcessLost:
        watch.end("")
        raise
    except BaseException as error:
        watch.end(quoted(error))
        raise
    else:
        watch.end("")
        torch.distributed.destroy_process_group()
    finally:
        _world = World()


def _met(place: Place, cleared: Callable[[], object]) -> Watch:
    """Meets the other processes, and begins to watch over them."""
    import torch.distributed as dist

    patience = max(seconds(), 60.0)
    try:
        name = f"diffnas/{place.attempt}/{next(_times)}"
        store = dist.PrefixStore(name, _served(place, patience))  # type: ignore[attr-defined]
        watch = Watch(store, place, seconds(), cleared)
        met = watch.meet(patience)
    except (RuntimeError, ValueError, OSError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunError(f"{place.host}:{place.port}: the first process cannot be reached there ({line:.200})") from error
    if len(met) < place.size:
        missing = ", ".join(str(rank) for rank in range(place.size) if rank not in met)
        raise RunError(
            f"{len(met)} of {place.size} processes came to {place.host}:{place.port} within {patience:.0f} s;"
            f" missing: {missing}"
        )
    watch.start(name)
    return watch


@cache
def _served(place: Place, patience: float) -> Any:
    """What all processes can write to and read; it is kept, for a script may join them several times."""
    serves = place.serves and place.rank == 0
    return torch.distributed.TCPStore(  # type: ignore[attr-defined]
        place.host, place.port, place.size, serves, timedelta(seconds=patience), False
    )


def _connect(place: Place, watch: Watch) -> None:
    """Connects all processes; sums of tensors on GPUs go by NCCL, all others by gloo."""
    import torch.distributed as dist

    watch.machines = choose_network(watch.shared, place)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(place.local % torch.cuda.device_count())
    group = dist.PrefixStore("group", watch.shared)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=group, rank=place.rank, world_size=place.size, timeout=FOREVER)
