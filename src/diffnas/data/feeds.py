"""Batches as a pure function of (seed, name, epoch, step): a resumed run needs no state of a sampler."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from diffnas.core.batch import Batch
from diffnas.core.parts import part_of_step
from diffnas.core.seeds import generator
from diffnas.data.augment import Augment, Draws
from diffnas.data.images import Fetch, Images
from diffnas.data.permutations import beginnings
from diffnas.data.stream import Streamed
from diffnas.errors import DataError

Order = Literal["shuffle", "fresh", "cycle", "sequential"]


@dataclass(frozen=True)
class EpochFeed:
    """The batches of one epoch of M samples: what fetches them, `labels` [M] in order and their draws, on the device.

    With a `share` (rank, size) they are the parts of a process.
    """

    fetch: Fetch
    labels: Tensor
    draws: Draws | None
    augment: Augment
    batch: int
    share: tuple[int, int] = (0, 1)

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch)

    def __getitem__(self, step: int) -> Batch:
        """The batch of `step`: inputs [N, C, H, W] float32 channels_last, targets [N]; `IndexError` beyond the epoch.

        Nothing here waits for the device, and nothing is a Python loop over images.  Streamed images that cannot be read
        are left out.
        """
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of an epoch of {len(self)} steps")
        part, place = part_of_step(step, self.batch, len(self.labels), *self.share)
        draws, labels = None if self.draws is None else self.draws[place], self.labels[place]
        pixels, kept = self.fetch(step)
        if kept is not None:
            draws, labels = None if draws is None else draws[kept], labels[kept]
        return Batch(self.augment.apply(pixels, draws), labels, part=part if self.share[1] > 1 else None)

    def __iter__(self) -> Iterator[Batch]:
        batches = (self[step] for step in range(len(self)))
        return (batch for batch in batches if len(batch.targets))  # of some none could be read


class Sampler:
    """The order in which epochs visit `count` samples, or those at `indices` [M] int64.

    `order` is one of
    - "shuffle": each epoch visits every sample once in a new order; the last batch may be smaller;
    - "fresh": each step draws `batch` distinct samples anew, as DARTS does by making a new shuffled iterator per step;
    - "cycle": shuffled rounds one after another without a seam at the end of an epoch, full batches always;
    - "sequential": as stored and not augmented, for testing.

    `steps` is the number of batches of an epoch: needed for "cycle", at most the default ceil(M / batch) for "shuffle" and
    "sequential".  Raises `DataError` for a batch, steps or indices that do not fit.
    """

    def __init__(
        self,
        count: int,
        indices: Tensor | None,
        batch: int,
        *,
        seed: int,
        name: str,
        order: str = "shuffle",
        steps: int | None = None,
    ) -> None:
        self.count, self.batch = count, batch
        self.indices = torch.arange(count) if indices is None else indices.cpu()
        self.seed, self.name, self.order = seed, name, order
        self._check(steps)
        self.steps = steps if steps is not None else -(-len(self.indices) // batch)

    def __len__(self) -> int:
        return self.steps

    def _positions(self, epoch: int) -> Tensor:
        """Returns the positions of `indices` that an epoch visits, in order: [M] int64 on the CPU."""
        count, wanted = len(self.indices), self.steps * self.batch
        if self.order == "sequential":
            return torch.arange(count)[:wanted]
        if self.order == "cycle":
            first = epoch * wanted
            rounds = range(first // count, (first + wanted - 1) // count + 1)
            shuffled = torch.cat([self._shuffled(turn) for turn in rounds])
            return shuffled[first % count :][:wanted]
        stream = generator(self.seed, f"{self.name}.order", epoch)
        if self.order == "fresh":
            return beginnings(count, self.batch, self.steps, stream).flatten()
        return self._shuffled(epoch)[:wanted]

    def _shuffled(self, turn: int) -> Tensor:
        stream = generator(self.seed, f"{self.name}.order", turn)
        return torch.randperm(len(self.indices), generator=stream)

    def _check(self, steps: int | None) -> None:
        count, name = len(self.indices), self.name
        if self.order not in get_args(Order):
            raise DataError(f"{name}: order {self.order!r} is none of {', '.join(get_args(Order))}")
        if self.indices.dtype != torch.int64 or self.indices.dim() != 1 or not count:
            raise DataError(f"{name}: needs one or more indices, int64 [M]")
        if int(self.indices.min()) < 0 or int(self.indices.max()) >= self.count:
            raise DataError(f"{name}: an index is outside of the {self.count} samples")
        endless = self.order in ("fresh", "cycle")
        if self.batch < 1 or (endless and self.batch > count):
            raise DataError(f"{name}: a batch of {self.batch} cannot be drawn from {count} samples")
        if steps is None and self.order == "cycle":
            raise DataError(f"{name}: order cycle needs the steps of an epoch")
        if steps is not None and (steps < 1 or (not endless and (steps - 1) * self.batch >= count)):
            raise DataError(f"{name}: {steps} batches of {self.batch} do not fit {count} samples")


class Feed(Sampler):
    """Batches of (a part of) a set of images, on the device where the images are; orders are those of `Sampler`."""

    def __init__(
        self,
        images: Images | Streamed,
        indices: Tensor | None,
        batch: int,
        augment: Augment,
        *,
        seed: int,
        name: str,
        order: Order = "shuffle",
        steps: int | None = None,
    ) -> None:
        super().__init__(len(images), indices, batch, seed=seed, name=name, order=order, steps=steps)
        self.images, self.augment, self.share = images, augment, (0, 1)

    def shared(self, rank: int, size: int) -> Feed:
        """Returns the same feed with the part of process `rank` of `size` of every batch."""
        own = copy(self)
        own.share = (rank, size)
        return own

    def epoch(self, epoch: int) -> EpochFeed:
        """The batches of `epoch`: all its random numbers are drawn here and moved to the device once."""
        device, side = self.images.device, self.images.shape[-1]
        index = self.indices[self._positions(epoch)].to(device)
        draws, views = None, None
        if self.order != "sequential":
            # a stream of its own, so that the order of the samples does not decide their crops
            stream = generator(self.seed, f"{self.name}.augment", epoch)
            draws = self.augment.draw(len(index), side, stream).to(device) if self.augment.random else None
            views = (self.seed, f"{self.name}.view", epoch)
        labels = self.images.labels.index_select(0, index)
        fetch = self.images.fetcher(index, self.batch, views, self.share)
        return EpochFeed(fetch, labels, draws, self.augment, self.batch, self.share)
