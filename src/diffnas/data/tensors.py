"""Tensors of registered data sets in memory, and their batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from diffnas.core.batch import Batch
from diffnas.core.seeds import generator
from diffnas.data.feeds import Sampler
from diffnas.data.registered import TENSORS, TensorSet, read_parts
from diffnas.errors import DataError

Augmentation = Callable[[Tensor, Generator], Tensor]


@dataclass(frozen=True)
class Samples:
    """Inputs [M, *sizes] float32 and targets [M, ...]."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def first(self, count: int | None) -> Samples:
        """The first `count` samples (None: all)."""
        return Samples(self.inputs[:count], self.targets[:count])

    def to(self, device: torch.device | str) -> Samples:
        """Returns the same samples on `device`."""
        return Samples(self.inputs.to(device), self.targets.to(device))


def read_tensors(name: str, path: str | Path | None) -> dict[str, Samples]:
    """Reads the parts of the registered data set `name`: "train", "test", and perhaps "valid".

    Raises `DataError` where reading fails, or gives something else than the data set says of itself.
    """
    tensors, at = TENSORS[name], f"data set {name}"
    parts = read_parts(tensors, None if path is None else Path(path).expanduser())
    return {role: _samples(tensors, f"{at}: {role}", pair) for role, pair in parts.items()}


def _samples(tensors: TensorSet, at: str, pair: tuple[Tensor, Tensor]) -> Samples:
    sizes = tensors.shape.sizes
    if not (isinstance(pair, tuple) and len(pair) == 2 and all(map(_is_dense, pair))):
        raise DataError(f"{at} must be a pair of tensors, inputs and targets, neither sparse nor on the device meta")
    inputs, targets = (_single(part) for part in pair)
    if inputs.dim() != len(sizes) + 1 or tuple(inputs.shape[1:]) != sizes or not len(inputs):
        wanted = ", ".join(map(str, ["M", *sizes]))
        raise DataError(f"{at} inputs are {list(inputs.shape)}; they must be [{wanted}], and at least one")
    inputs = inputs if inputs.is_complex() else inputs.to(torch.float32)
    if inputs.is_complex() or not torch.isfinite(inputs).all():
        raise DataError(f"{at} inputs are not finite real numbers everywhere")
    if not torch.isfinite(targets).all():
        raise DataError(f"{at} targets are not finite everywhere")
    if targets.shape[:1] != inputs.shape[:1]:
        raise DataError(f"{at} targets are {list(targets.shape)}; there must be {len(inputs)}, one for each input")
    if tensors.classes and (targets.dtype != torch.int64 or targets.dim() != 1):
        raise DataError(f"{at} targets are {targets.dtype} {list(targets.shape)}; classes are int64 [M]")
    if tensors.classes and not (int(targets.min()) >= 0 and int(targets.max()) < len(tensors.classes)):
        raise DataError(f"{at} targets must be from 0 to {len(tensors.classes) - 1}, the numbers of the classes")
    return Samples(inputs, targets)


def _described(thing: Any) -> str:
    return str(list(thing.shape)) if isinstance(thing, Tensor) else type(thing).__name__


def _is_dense(part: Any) -> bool:
    return isinstance(part, Tensor) and part.layout == torch.strided and not part.is_meta


def _single(part: Tensor) -> Tensor:
    """Returns the tensor without a graph, and float64 as float32, as networks compute."""
    return part.detach().to(torch.float32 if part.dtype == torch.float64 else part.dtype)


@dataclass(frozen=True)
class TensorEpoch:
    """The batches of one epoch: `index` [M] in order, and what a batch of training goes through."""

    samples: Samples
    index: Tensor
    batch: int
    seed: int
    name: str
    epoch: int
    augment: Augmentation | None

    def __len__(self) -> int:
        return -(-len(self.index) // self.batch)

    def __getitem__(self, step: int) -> Batch:
        """The batch of `step`; `IndexError` beyond the epoch."""
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of an epoch of {len(self)} steps")
        at = self.index[step * self.batch : (step + 1) * self.batch]
        inputs = self.samples.inputs.index_select(0, at)
        if self.augment is not None:
            inputs = self.augment(inputs, generator(self.seed, f"{self.name}.augment", self.epoch, step))
            if not isinstance(inputs, Tensor) or inputs.shape[:1] != at.shape:
                said = "augment must return the inputs of its batch, changed"
                raise DataError(f"{said}: a tensor of {len(at)} samples, not {_described(inputs)}")
        return Batch(inputs, self.samples.targets.index_select(0, at))

    def __iter__(self) -> Iterator[Batch]:
        return (self[step] for step in range(len(self)))


class TensorFeed(Sampler):
    """Batches of (a part of) a set of tensors, on the device where they are; orders are those of `Sampler`.

    Each batch goes through `augment`, unless the order is "sequential".
    """

    def __init__(
        self,
        samples: Samples,
        indices: Tensor | None,
        batch: int,
        *,
        seed: int,
        name: str,
        order: str = "shuffle",
        steps: int | None = None,
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__(len(samples), indices, batch, seed=seed, name=name, order=order, steps=steps)
        self.samples = samples
        self.augment = None if order == "sequential" else augment

    def epoch(self, epoch: int) -> TensorEpoch:
        """The batches of `epoch`."""
        index = self.indices[self._positions(epoch)].to(self.samples.inputs.device)
        return TensorEpoch(self.samples, index, self.batch, self.seed, self.name, epoch, self.augment)
