"""Windows of a text as a pure function of (seed, name, epoch, step): a resumed run needs no state of a sampler.

Columns are read side by side: tokens are cut into N equal columns of L (what is left over at the end is dropped), and a
window is T rows of all of them, so that the hidden state after one window is the hidden state before the next.  A window of
random length keeps the cuts from falling at the same words in every epoch (Merity et al., 2018).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from diffnas.core.batch import Batch
from diffnas.core.seeds import generator
from diffnas.errors import DataError

Lengths = Literal["search", "train", "fixed"]
HALVED = 0.05  # the share of windows with half the length
SPREAD, SHORTEST, EXCESS = 5, 5, 20  # of lengths in training: deviation, minimum, and how far above bptt they go


class Window(NamedTuple):
    """The rows that a step reads, and the factor of its learning rate."""

    start: int
    length: int
    scale: float


@dataclass(frozen=True)
class TextEpoch:
    """The windows of one epoch over `rows` [L, N]."""

    rows: Tensor
    windows: tuple[Window, ...]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, step: int) -> Batch:
        """The batch of `step`: inputs and targets [T, N], the targets a row later; views, so nothing is copied.

        Its carry is None: whoever steps passes the last one on.  Raises `IndexError` beyond the epoch.
        """
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of an epoch of {len(self)} steps")
        start, length, scale = self.windows[step]
        return Batch(self.rows[start : start + length], self.rows[start + 1 : start + 1 + length], scale)

    def __iter__(self) -> Iterator[Batch]:
        return (self[step] for step in range(len(self)))


class TextFeed:
    """Batches of windows of `tokens` [M] int64 in `batch` columns, on the device where the tokens are.

    `lengths` is one of
    - "search": `bptt` rows, or half as many with probability 0.05;
    - "train": max(5, N(b, 5)) rows, b being `bptt`, or half of it with probability 0.05, and at most `bptt` + 20;
    - "fixed": `bptt` rows, to the last token, for testing.

    The last window of an epoch is what is left; of the first two kinds never a single row.  `scale` is the length drawn over
    `bptt`, for the last window too, as published.  With `beside`, each window begins where that feed's window of the same
    step begins, modulo the rows that can be read, and has `bptt` rows: how a search reads its validation text beside its
    training text.

    The number of windows differs from epoch to epoch: `len(feed.epoch(e))`.  `steps`, as an argument, stops an epoch early;
    as an attribute it is what no epoch exceeds.  Raises `DataError` for a batch, a length or steps that do not fit.
    """

    def __init__(
        self,
        tokens: Tensor,
        batch: int,
        bptt: int,
        *,
        seed: int = 0,
        name: str = "train",
        lengths: Lengths = "fixed",
        steps: int | None = None,
        beside: TextFeed | None = None,
    ) -> None:
        self.batch, self.bptt, self.seed, self.name = batch, bptt, seed, name
        self.lengths, self.beside = lengths, beside
        self._check(tokens, steps)
        self.rows = tokens[: len(tokens) // batch * batch].view(batch, -1).t().contiguous()
        least = {"search": bptt // 2, "train": SHORTEST, "fixed": bptt}[lengths]
        bound = beside.steps if beside is not None else -(-self._end // least)
        self.steps: int = bound if steps is None else min(bound, steps)

    def epoch(self, epoch: int) -> TextEpoch:
        """The windows of `epoch`, all drawn here, on the CPU."""
        return TextEpoch(self.rows, tuple(self._windows(epoch))[: self.steps])

    @property
    def _last(self) -> int:
        """The last row, which is only ever a target."""
        return len(self.rows) - 1

    @property
    def _end(self) -> int:
        """No window begins here or later."""
        return self._last - (self.lengths != "fixed")

    def _windows(self, epoch: int) -> Iterator[Window]:
        if self.beside is not None:
            for window in self.beside._windows(epoch):
                start = window.start % self._last
                yield Window(start, min(self.bptt, self._last - start), 1.0)
            return
        start = 0
        for length in self._drawn(epoch):
            if start >= self._end:
                return
            yield Window(start, min(length, self._last - start), length / self.bptt)
            start += length

    def _drawn(self, epoch: int) -> Iterator[int]:
        if self.lengths == "fixed":
            return repeat(self.bptt)
        stream = generator(self.seed, f"{self.name}.lengths", epoch)
        most = self._end  # each length is at least one row
        halved = torch.rand(most, generator=stream, dtype=torch.float64) < HALVED
        length = torch.where(halved, self.bptt / 2, float(self.bptt))
        if self.lengths == "train":
            length += SPREAD * torch.randn(most, generator=stream, dtype=torch.float64)
            length = length.clamp(SHORTEST, self.bptt + EXCESS)
        return iter(length.long().tolist())

    def _check(self, tokens: Tensor, steps: int | None) -> None:
        name = self.name
        if self.lengths not in get_args(Lengths):
            raise DataError(f"{name}: lengths {self.lengths!r} are none of {', '.join(get_args(Lengths))}")
        if tokens.dtype != torch.int64 or tokens.dim() != 1:
            raise DataError(f"{name}: needs tokens, int64 [M]")
        if self.batch < 1 or self.bptt < 1 + (self.lengths == "search"):
            raise DataError(f"{name}: a batch of {self.batch} columns of {self.bptt} tokens cannot be made")
        if steps is not None and steps < 1:
            raise DataError(f"{name}: {steps} steps are too few")
        needed = 2 + (self.lengths != "fixed")
        if len(tokens) < needed * self.batch:
            reason = f"{len(tokens)} tokens are too few for {self.batch} columns of {needed} or more each"
            raise DataError(f"{name}: {reason}; take a smaller batch, or more text")
