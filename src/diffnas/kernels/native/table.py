"""The table that phases read: laid out once for a state's shape, then filled with the addresses of a pass.

A place in memory is an offset in an arena.  A pass has one tensor for each arena of its own: what is KEPT for the way back,
and what is needed on the way FORWARD or BACKWARD only.  Further arenas are tensors that come from outside (the state,
weights, running statistics, edges).  So the addresses of a pass are the offsets plus the beginnings of the arenas.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffnas.kernels.native import places
from diffnas.kernels.native.compiled import kernel, lanes
from diffnas.kernels.native.team import run
from diffnas.kernels.native.terms import Pair, Place, Term, bits_of, reach

NUMBERS, TABLE, KEPT, FORWARD, BACKWARD, STATE, STATE_SLOPE, SHARES, SHARE_SLOPES, WEIGHT_SLOPES, ZERO, OUTSIDE = range(
    12
)
"""The arenas: numbers as they are, the table itself, three of the pass, the tensors of every pass, and the first of others."""


class Layout:
    """The table of all passes through what leaves a state of `shape` [N, C, H, W].

    Of `terms`, identities come first, then pools, then terms of two pairs, then terms of one.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        stride: int,
        terms: Sequence[Term],
        edges: int,
        training: bool,
        threads: int,
    ) -> None:
        self.n, self.c, self.h, self.w = shape
        self.dtype, self.size, self.stride, self.threads = dtype, dtype.itemsize, stride, threads
        self.lanes = lanes(self.c, self.size)
        self.out = -(-self.h // stride), -(-self.w // stride)
        self.pixels = self.out[0] * self.out[1]
        self.terms, self.edges, self.training = terms, edges, training
        self.sizes = [0] * OUTSIDE
        self.offsets: list[int] = [0] * places.HEAD
        self.arenas: list[int] = [NUMBERS] * places.HEAD
        self.outside: list[tuple[Mapping[str, Any], str]] = []
        self.zero = torch.zeros(self.c, dtype=dtype)
        self._fresh = [True] * edges
        self.images, self.means = self.n * self.pixels * self.c, self.n * self.c
        self._head()
        self._evens()
        self._pairs()
        self.template = np.array(self.offsets, np.int64)
        self.homes = np.array(self.arenas, np.int64)

    # -- a pass

    def forward(self, x: Tensor, shares: Tensor, edges: Sequence[Tensor]) -> Tensor:
        """Writes what flows to the `edges`; returns what is kept for the way back."""
        kept, work = self._arena(KEPT), self._arena(FORWARD)
        bases = self._bases(x, shares, edges)
        bases[KEPT], bases[FORWARD] = kept.data_ptr(), work.data_ptr()
        table = self._table(bases)
        self._run(table, "turn_kernels", "first", "fold_first")
        if self.twice:
            self._run(table, "second", "fold_second")
        self._run(table, "add")
        return kept

    def backward(
        self, x: Tensor, shares: Tensor, kept: Tensor, slopes: Sequence[Tensor], to_state: bool, to_weights: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The gradients to the shares, to the state, and to all weights, one after the other (None: not wanted)."""
        work, to_shares = self._arena(BACKWARD), torch.empty_like(shares)
        dx = torch.empty_like(x) if to_state else None
        dw = self._arena(WEIGHT_SLOPES) if to_weights else None
        bases = self._bases(x, shares, slopes)
        bases[KEPT], bases[SHARE_SLOPES] = kept.data_ptr(), to_shares.data_ptr()
        bases[FORWARD] = bases[BACKWARD] = work.data_ptr()  # both begin with scratch memory
        bases[STATE_SLOPE] = 0 if dx is None else dx.data_ptr()
        bases[WEIGHT_SLOPES] = 0 if dw is None else dw.data_ptr()
        table = self._table(bases)
        table[places.TO_STATE], table[places.TO_WEIGHTS] = to_state, to_weights
        self._run(table, "products", "pull_last")
        if to_state or to_weights:
            if self.twice:
                self._run(table, "inner", "pull_first")
            self._run(table, "outermost")
        if to_weights:
            self._run(table, "gather_kernels")
        return to_shares, dx, dw

    def _arena(self, arena: int) -> Tensor:
        return torch.empty(self.sizes[arena] // self.size, dtype=self.dtype)

    def _bases(self, x: Tensor, shares: Tensor, edges: Sequence[Tensor]) -> np.ndarray:
        bases = [0] * OUTSIDE
        bases[STATE], bases[SHARES], bases[ZERO] = x.data_ptr(), shares.data_ptr(), self.zero.data_ptr()
        bases += [held[name].data_ptr() for held, name in self.outside]
        bases += [tensor.data_ptr() for tensor in reversed(edges)]  # edge 0 is the last
        return np.array(bases, np.int64)

    def _table(self, bases: np.ndarray) -> np.ndarray:
        table = np.empty_like(self.template)
        bases[TABLE] = table.ctypes.data
        np.add(self.template, bases[self.homes], out=table)
        return table

    def _run(self, table: np.ndarray, *names: str) -> None:
        for name in names:
            run(name, table.ctypes.data, self.threads)

    # -- the layout

    def _room(self, arena: int, numbers: int) -> Place:
        """Room for so many numbers."""
        at = self.sizes[arena]
        self.sizes[arena] += -(-numbers * self.size // 64) * 64
        return Place(arena, at)

    def _of(self, held: Mapping[str, Any], name: str) -> Place:
        """The tensor that a layer holds under a name, whichever it is when a pass begins."""
        self.outside.append((held, name))
        return Place(OUTSIDE + len(self.outside) - 1, 0)

    def _rows(self, place: int, count: int, width: int) -> int:
        """Adds rows to the table, whose address and number stand at `place` and before it; returns where they begin."""
        begin = len(self.offsets)
        self.offsets += [0] * (count * width)
        self.arenas += [NUMBERS] * (count * width)
        self._put(place - 1, count)
        self._put(place, Place(TABLE, 8 * begin))
        return begin

    def _put(self, at: int, what: Place | int) -> None:
        self.arenas[at], self.offsets[at] = what if isinstance(what, Place) else Place(NUMBERS, int(what))

    def _fill(self, row: int, **values: Place | int) -> None:
        """Fills places of a row by their names."""
        for name, what in values.items():
            self._put(row + getattr(places, name), what)

    def _head(self) -> None:
        border = max((reach(pair) for term in self.terms for pair in term.pairs), default=0)
        bordered, whole = (self.h + 2 * border) * (self.w + 2 * border) * self.c, self.h * self.w * self.c
        scratch = -(-(2 * bordered + max(whole, bordered)) // 32) * 32
        self.twice = sum(len(term.pairs) == 2 for term in self.terms)
        scratch_at = Place(FORWARD, self._room(FORWARD, scratch * self.threads).offset)
        assert self._room(BACKWARD, scratch * self.threads) == (BACKWARD, scratch_at.offset)
        self._fill(
            0, N=self.n, H=self.h, WIDTH=self.w, C=self.c, STRIDE=self.stride, HO=self.out[0], WO=self.out[1], BORDER=border,
            SIZE=self.size, CENTRED=self.training, TWICE=self.twice, SCRATCH=scratch_at, SCRATCH_SIZE=scratch * self.size,
            X=Place(STATE, 0), DX=Place(STATE_SLOPE, 0), ZERO=Place(ZERO, 0),
            SHARES=Place(SHARES, 0), TO_SHARES=Place(SHARE_SLOPES, 0),
        )  # fmt: skip
        self.offsets[places.PAD : places.HEAD] = _common(self.size, self.lanes)
        edges = self._rows(places.EDGE_ROWS, self.edges, places.EDGE)
        self.totals = [self._room(BACKWARD, self.means) for _ in range(self.edges)]
        for edge in range(self.edges):
            self._edge(edges + edge * places.EDGE, edge, "E_IMAGE")
            self._fill(edges + edge * places.EDGE, E_TOTAL=self.totals[edge])

    def _edge(self, row: int, edge: int, name: str) -> None:
        """Marks a place for what comes from outside last, edge by edge."""
        self._fill(row, **{name: Place(-1 - edge, 0)})

    def _norm(self, norm: nn.BatchNorm2d, prefix: str) -> dict[str, Place | int]:
        """What a normalisation is read from and moves."""
        found: dict[str, Place | int] = {"EPSILON": bits_of(norm.eps), "MOMENTUM": bits_of(norm.momentum or 0.0)}
        if norm.track_running_stats or not self.training:
            found["RUNNING_MEAN"] = self._of(norm._buffers, "running_mean")
            found["RUNNING_VAR"] = self._of(norm._buffers, "running_var")
            found["BATCHES"] = self._of(norm._buffers, "num_batches_tracked")
        return {prefix + name: value for name, value in found.items()}

    def _evens(self) -> None:
        evens = [(i, term) for i, term in enumerate(self.terms) if not term.pairs]
        rows = self._rows(places.EVEN_ROWS, len(evens), places.EVEN)
        groups: dict[int, list[int]] = {}
        for i, term in evens:
            if term.norm is not None:
                groups.setdefault(term.group, []).append(i)
        pools = self._rows(places.POOL_ROWS, len(groups), places.POOL_ROW)
        pooled: dict[int, Place] = {}
        for k, (group, members) in enumerate(groups.items()):
            pooled[group] = self._pool(pools + k * places.POOL_ROW, members)
        for i, term in evens:
            row = rows + i * places.EVEN
            self._edge(row, term.edge, "E_TARGET")
            self._edge(row, term.edge, "E_GRADIENT")
            self._fill(
                row, SOURCE=Place(STATE, 0) if term.norm is None else pooled[term.group], FACTOR=self._room(KEPT, self.c),
                E_SHIFT=self._room(FORWARD, self.means), E_SHARE_AT=i, E_FRESH=self._first(term.edge),
                E_TOTALS=self.totals[term.edge], RESULT=self._room(BACKWARD, self.means), E_INVERSE=self._room(KEPT, self.c),
                SKIPS=term.norm is None, **({} if term.norm is None else self._norm(term.norm, "E_")),
            )  # fmt: skip

    def _pool(self, row: int, members: Sequence[int]) -> Place:
        """Lays out a pool for the terms of numbers `members`, which follow one another; returns where its image is."""
        is_max, image = self.terms[members[0]].is_max, self._room(KEPT, self.images)
        name = "max_pool" if is_max else "mean_pool"
        where = self._room(KEPT, -(-self.images // self.size)) if is_max else 0
        self._fill(
            row, POOL=kernel(name, self.size, self.lanes), POOL_GRADIENT=kernel(f"{name}_gradient", self.size, self.lanes),
            POOLED=image, WHERE=where, P_MEANS=self._room(KEPT, self.means), SQUARES=self._room(FORWARD, self.means),
            OWN=self._room(BACKWARD, self.c), OWN_SHIFT=self._room(BACKWARD, self.means), BEGIN=members[0],
            COUNT=len(members),
        )  # fmt: skip
        return image

    def _first(self, edge: int) -> bool:
        """Whether nothing was written to the edge yet; then something is."""
        fresh, self._fresh[edge] = self._fresh[edge], False
        return fresh

    def _pairs(self) -> None:
        deep = [(i, term) for i, term in enumerate(self.terms) if term.pairs]
        rows = self._rows(places.TERM_ROWS, len(deep), places.TERM)
        for t, (i, term) in enumerate(deep):
            for side, pair in enumerate(term.pairs):
                self._pair(rows + t * places.TERM + side * places.PAIR, i, term, pair, side)

    def _pair(self, row: int, i: int, term: Term, pair: Pair, side: int) -> None:
        k, last = pair.depthwise.kernel_size[0], side == len(term.pairs) - 1
        stride, dilation = pair.depthwise.stride[0], int(pair.depthwise.dilation[0])
        square, taps = self.c * self.c, k * k
        correlate, gradient, back = _convolution(self.size, self.lanes, k, stride, dilation)
        self._fill(
            row, CORRELATE=correlate, KERNEL_GRADIENT=gradient, INPUT_GRADIENT=back, REACH=reach(pair), DILATION=dilation,
            TAPS=taps, KERNEL=self._of(pair.depthwise._parameters, "weight"), TURNED_KERNEL=self._room(KEPT, taps * self.c),
            FLIPPED_KERNEL=self._room(KEPT, taps * self.c), PARTS=self._room(BACKWARD, self.n * taps * self.c),
            TO_KERNEL=self._slope(taps * self.c), IMAGES=self._room(KEPT, self.images), MEANS=self._room(KEPT, self.means),
            MOMENTS=self._room(FORWARD, self.n * square), MAP=self._room(KEPT, square), SHIFT=self._room(KEPT, self.means),
            SHARE_AT=i if last else -1, FRESH=self._first(term.edge) if last else 0,
            PRODUCTS=self._room(BACKWARD, self.n * square), FROM_D=self._room(BACKWARD, square),
            FROM_G=self._room(BACKWARD, square), CONSTANT=self._room(BACKWARD, self.means),
            NOTES=self._room(BACKWARD, 2 * self.c), POINT=self._of(pair.point._parameters, "weight"),
            TO_POINT=self._slope(square), FOLDED=self._room(KEPT, square), COVARIANCE=self._room(KEPT, square),
            INVERSE=self._room(KEPT, self.c), TOTALS=self.totals[term.edge] if last else self._room(BACKWARD, self.means),
            **self._norm(pair.norm, ""),
        )  # fmt: skip
        if last:
            self._edge(row, term.edge, "TARGET")
            self._edge(row, term.edge, "GRADIENT")
        else:
            self._fill(row, GRADIENT=self._room(BACKWARD, self.images))

    def _slope(self, numbers: int) -> Place:
        """Room for the gradient to a weight: they lie side by side."""
        at = self.sizes[WEIGHT_SLOPES]
        self.sizes[WEIGHT_SLOPES] += numbers * self.size
        return Place(WEIGHT_SLOPES, at)


@functools.cache
def _common(size: int, lanes: int) -> list[int]:
    """The kernels at the end of the table's head."""
    from diffnas.kernels.native.loops import ADD, RELU, STORE

    return [
        kernel("padded_relu", size, lanes),
        kernel("column_sums", size, lanes),
        kernel("centre", size, lanes),
        kernel("outer", size, lanes),
        kernel("product", size, lanes, STORE, False),
        kernel("product", size, lanes, ADD, False),
        kernel("product", size, lanes, RELU, False),
        kernel("product", size, lanes, STORE, True),
        kernel("scaled", size, lanes, STORE),
        kernel("scaled", size, lanes, ADD),
        kernel("column_products", size, lanes),
        kernel("masked", size, lanes, ADD),
        *(kernel(name, size, lanes) for name in ("turned", "gathered", "fold", "pull", "fold_even", "fold_pool")),
        *(kernel(name, size, lanes) for name in ("pull_even", "pull_pool")),
    ]


@functools.cache
def _convolution(size: int, lanes: int, k: int, stride: int, dilation: int) -> tuple[int, int, int]:
    """A depthwise convolution, the gradient to its kernel, and that to its input."""
    return (
        kernel("depthwise", size, lanes, k, stride, dilation),
        kernel("kernel_gradient", size, lanes, k),
        kernel("depthwise", size, lanes, k, 1, dilation),
    )
