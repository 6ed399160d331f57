"""The parts of a batch that processes share, and random numbers that do not depend on how it is shared.

A number that is drawn for a sample is drawn for all samples of the whole batch, by every process alike, and each keeps those
of its own: the generators of all processes stay in step, and the sample gets what it gets in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd
from typing_extensions import override

from diffnas.errors import PluginError

LEAST = 2  # samples of a part: batch normalisation can make nothing of a single one


@dataclass(frozen=True)
class Part:
    """The samples `start` to `start + count` of a batch of `whole` samples, which lie along the dimension `dim`.

    Without samples (`count` 0) a process computes on the first `stand_in` ones, so that it takes part in all that
    processes do together, and they count for nothing.
    """

    start: int
    count: int
    whole: int
    dim: int = 0
    stand_in: int = 0

    @property
    def place(self) -> tuple[int, int]:
        """Where the samples that it computes on begin and end."""
        return (self.start, self.start + self.count) if self.count else (0, self.stand_in)

    @property
    def weight(self) -> float:
        """Its share of the whole batch."""
        return self.count / self.whole


def part_of(whole: int, rank: int, size: int, dim: int = 0) -> Part:
    """The part of process `rank` of `size`: equal ones as far as they go, and none of fewer than two samples.

    Of a batch too small for that, the first processes get parts and the others none.
    """
    sharing = min(size, max(1, whole // LEAST))
    if rank >= sharing:
        return Part(whole, 0, whole, dim, min(whole, LEAST))
    start, stop = whole * rank // sharing, whole * (rank + 1) // sharing
    return Part(start, stop - start, whole, dim)


def part_of_step(step: int, batch: int, total: int, rank: int, size: int) -> tuple[Part, slice]:
    """The part of a process in the batch of `step`, of `total` samples in batches of `batch`, and its place among all."""
    first = step * batch
    part = part_of(min(batch, total - first), rank, size)
    start, stop = part.place
    return part, slice(first + start, first + stop)


_now: Part | None = None  # of the batch that is computed on; autograd's threads must see it too, so no context variable


@contextmanager
def within(part: Part | None) -> Iterator[None]:
    """Runs a block that computes on `part` of a batch."""
    global _now
    before, _now = _now, part
    try:
        yield
    finally:
        _now = before


def current() -> Part | None:
    """The part that is computed on, None for a whole batch."""
    return _now


def drawn(draw: Callable[[tuple[int, ...]], Tensor], shape: tuple[int, ...], dim: int = 0) -> Tensor:
    """Returns `draw(shape)`; of a part of a batch, its share of what is drawn for the whole; `dim` counts samples."""
    part = _now
    if part is None:
        return draw(shape)
    whole = draw((*shape[:dim], part.whole, *shape[dim + 1 :]))
    return whole.narrow(dim, part.place[0], shape[dim])


def dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """`F.dropout` of `x` [N, ...]."""
    if _now is None or not training or not probability:
        return F.dropout(x, probability, training)

    def noise(shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1.0 - probability)

    return x * drawn(noise, tuple(x.shape)) / (1.0 - probability)


class Dropout(nn.Dropout):
    """`nn.Dropout` of inputs [N, ...] whose numbers do not depend on how a batch is shared."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        """Drops single numbers while training."""
        return dropout(input, self.p, self.training)


def share_noise(module: nn.Module) -> None:
    """Makes every `nn.Dropout` in `module` one whose numbers do not depend on how a batch is shared.

    Raises `PluginError` for other layers of dropout, which have no such form.
    """
    for name, layer in module.named_modules():
        if type(layer) is nn.Dropout:
            layer.__class__ = Dropout
        elif isinstance(layer, _DropoutNd) and not isinstance(layer, Dropout) and layer.p:
            raise PluginError(
                f"{name}: {type(layer).__name__} cannot be shared by processes; use nn.Dropout, or one process"
            )
