"""A table that phases read, laid out once for a shape and filled with the addresses of each pass.

A place in memory is an offset in an arena.  A pass has one tensor for each arena of its own: what is KEPT for the way back,
and what is needed on the way FORWARD or BACKWARD only.  Further arenas are tensors that come from outside.  So the
addresses of a pass are the offsets plus the beginnings of the arenas.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffnas.kernels.native.team import run
from diffnas.kernels.native.terms import Place, bits_of

NUMBERS, TABLE, KEPT, FORWARD, BACKWARD, STATE, STATE_SLOPE, SHARES, SHARE_SLOPES, WEIGHT_SLOPES, ZERO, OUTSIDE = range(
    12
)
"""The arenas: numbers as they are, the table itself, three of the pass, the tensors of every pass, and the first of others."""


class Arenas:
    """The offsets in a table, and which arena each counts from; `places` is the module that names the places.

    `statistics` says whether normalisations take the batch's.
    """

    def __init__(self, places: ModuleType, dtype: torch.dtype, statistics: bool, threads: int) -> None:
        self.places, self.dtype, self.size, self.threads = places, dtype, dtype.itemsize, threads
        self.training = statistics
        self.sizes = [0] * OUTSIDE
        self.offsets: list[int] = [0] * places.HEAD
        self.arenas: list[int] = [NUMBERS] * places.HEAD
        self.outside: list[tuple[Mapping[str, Any], str]] = []

    def laid_out(self) -> None:
        """Ends the layout."""
        self.template = np.array(self.offsets, np.int64)
        self.homes = np.array(self.arenas, np.int64)

    # -- a pass

    def arena(self, arena: int) -> Tensor:
        """A tensor for an arena of a pass."""
        return torch.empty(self.sizes[arena] // self.size, dtype=self.dtype)

    def bases(self, given: Mapping[int, Tensor | None], others: list[int]) -> np.ndarray:
        """Where the arenas of a pass begin: those `given`, what layers hold, and `others`, in this order."""
        found = [0] * OUTSIDE
        for arena, tensor in given.items():
            found[arena] = 0 if tensor is None else tensor.data_ptr()
        found += [held[name].data_ptr() for held, name in self.outside]
        return np.array(found + others, np.int64)

    def table(self, bases: np.ndarray) -> np.ndarray:
        """The table of a pass."""
        table = np.empty_like(self.template)
        bases[TABLE] = table.ctypes.data
        np.add(self.template, bases[self.homes], out=table)
        return table

    def run(self, table: np.ndarray, *names: str) -> None:
        """Runs phases."""
        for name in names:
            run(name, table.ctypes.data, self.threads)

    # -- the layout

    def room(self, arena: int, numbers: int) -> Place:
        """Room for so many numbers."""
        at = self.sizes[arena]
        self.sizes[arena] += -(-numbers * self.size // 64) * 64
        return Place(arena, at)

    def slope(self, numbers: int) -> Place:
        """Room for the gradient to a weight: they lie side by side."""
        at = self.sizes[WEIGHT_SLOPES]
        self.sizes[WEIGHT_SLOPES] += numbers * self.size
        return Place(WEIGHT_SLOPES, at)

    def of(self, held: Mapping[str, Any], name: str) -> Place:
        """The tensor that a layer holds under a name, whichever it is when a pass begins."""
        self.outside.append((held, name))
        return Place(OUTSIDE + len(self.outside) - 1, 0)

    def rows(self, place: int, count: int, width: int) -> int:
        """Adds rows to the table, whose address and number stand at `place` and before it; returns where they begin."""
        begin = len(self.offsets)
        self.offsets += [0] * (count * width)
        self.arenas += [NUMBERS] * (count * width)
        self.put(place - 1, count)
        self.put(place, Place(TABLE, 8 * begin))
        return begin

    def put(self, at: int, what: Place | int) -> None:
        """Fills a place."""
        self.arenas[at], self.offsets[at] = what if isinstance(what, Place) else Place(NUMBERS, int(what))

    def fill(self, row: int, **values: Place | int) -> None:
        """Fills places of a row by their names."""
        for name, what in values.items():
            self.put(row + getattr(self.places, name), what)

    def norm(self, norm: nn.BatchNorm2d, prefix: str = "") -> dict[str, Place | int]:
        """What a normalisation is read from and moves."""
        found: dict[str, Place | int] = {"EPSILON": bits_of(norm.eps), "MOMENTUM": bits_of(norm.momentum or 0.0)}
        if norm.track_running_stats or not self.training:
            found["RUNNING_MEAN"] = self.of(norm._buffers, "running_mean")
            found["RUNNING_VAR"] = self.of(norm._buffers, "running_var")
            found["BATCHES"] = self.of(norm._buffers, "num_batches_tracked")
        return {prefix + name: value for name, value in found.items()}
