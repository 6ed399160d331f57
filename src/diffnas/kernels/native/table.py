"""The table that `phases` read: what all edges that leave a state of the DARTS space compute (see `arenas`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffnas.kernels.native import places
from diffnas.kernels.native.ahead import prepare
from diffnas.kernels.native.arenas import (
    BACKWARD,
    FORWARD,
    KEPT,
    SHARE_SLOPES,
    SHARES,
    STATE,
    STATE_SLOPE,
    WEIGHT_SLOPES,
    ZERO,
    Arenas,
)
from diffnas.kernels.native.compiled import kernel, lanes
from diffnas.kernels.native.loops import ADD, RELU, STORE
from diffnas.kernels.native.terms import Pair, Place, Term, reach


class Layout(Arenas):
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
        super().__init__(places, dtype, training, threads)
        self.n, self.c, self.h, self.w = shape
        self.stride, self.terms, self.edges = stride, terms, edges
        self.lanes = lanes(self.c, self.size)
        self.out = -(-self.h // stride), -(-self.w // stride)
        self.pixels = self.out[0] * self.out[1]
        self.zero = torch.zeros(self.c, dtype=dtype)
        self._fresh = [True] * edges
        self.images, self.means = self.n * self.pixels * self.c, self.n * self.c
        self._prepare()
        self._head()
        self._evens()
        self._pairs()
        self.laid_out()

    # -- a pass

    def forward(self, x: Tensor, shares: Tensor, edges: Sequence[Tensor]) -> Tensor:
        """Writes what flows to the `edges`; returns what is kept for the way back."""
        kept, work = self.arena(KEPT), self.arena(FORWARD)
        table = self._begun({STATE: x, SHARES: shares, KEPT: kept, FORWARD: work}, edges)
        self.run(table, "turn_kernels", "first", "fold_first")
        if self.twice:
            self.run(table, "second", "fold_second")
        self.run(table, "add")
        return kept

    def backward(
        self, x: Tensor, shares: Tensor, kept: Tensor, slopes: Sequence[Tensor], to_state: bool, to_weights: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The gradients to the shares, to the state, and to all weights, one after the other (None: not wanted)."""
        work, to_shares = self.arena(BACKWARD), torch.empty_like(shares)
        dx = torch.empty_like(x) if to_state else None
        dw = self.arena(WEIGHT_SLOPES) if to_weights else None
        given = {STATE: x, SHARES: shares, KEPT: kept, SHARE_SLOPES: to_shares, STATE_SLOPE: dx, WEIGHT_SLOPES: dw}
        # both ways begin with scratch memory
        table = self._begun(given | {FORWARD: work, BACKWARD: work}, slopes)
        table[places.TO_STATE], table[places.TO_WEIGHTS] = to_state, to_weights
        self.run(table, "products", "pull_last")
        if to_state or to_weights:
            if self.twice:
                self.run(table, "inner", "pull_first")
            self.run(table, "outermost")
        if to_weights:
            self.run(table, "gather_kernels")
        return to_shares, dx, dw

    def _begun(self, given: Mapping[int, Tensor | None], edges: Sequence[Tensor]) -> np.ndarray:
        others = [tensor.data_ptr() for tensor in reversed(edges)]  # edge 0 is the last
        return self.table(self.bases({ZERO: self.zero, **given}, others))

    # -- the layout

    def _head(self) -> None:
        border = max((reach(pair) for term in self.terms for pair in term.pairs), default=0)
        bordered, whole = (self.h + 2 * border) * (self.w + 2 * border) * self.c, self.h * self.w * self.c
        scratch = -(-(2 * bordered + max(whole, bordered)) // 32) * 32
        self.twice = sum(len(term.pairs) == 2 for term in self.terms)
        scratch_at = Place(FORWARD, self.room(FORWARD, scratch * self.threads).offset)
        assert self.room(BACKWARD, scratch * self.threads) == (BACKWARD, scratch_at.offset)
        self.fill(
            0, N=self.n, H=self.h, WIDTH=self.w, C=self.c, STRIDE=self.stride, HO=self.out[0], WO=self.out[1], BORDER=border,
            SIZE=self.size, CENTRED=self.training, TWICE=self.twice, SCRATCH=scratch_at, SCRATCH_SIZE=scratch * self.size,
            X=Place(STATE, 0), DX=Place(STATE_SLOPE, 0), ZERO=Place(ZERO, 0),
            SHARES=Place(SHARES, 0), TO_SHARES=Place(SHARE_SLOPES, 0),
        )  # fmt: skip
        self.offsets[places.PAD : places.HEAD] = [self._kernel(*each) for each in COMMON]
        edges = self.rows(places.EDGE_ROWS, self.edges, places.EDGE)
        self.totals = [self.room(BACKWARD, self.means) for _ in range(self.edges)]
        for edge in range(self.edges):
            self._edge(edges + edge * places.EDGE, edge, "E_IMAGE")
            self.fill(edges + edge * places.EDGE, E_TOTAL=self.totals[edge])

    def _kernel(self, name: Any, *constants: Any) -> int:
        return kernel(name, self.size, self.lanes, *constants)

    def _prepare(self) -> None:
        """Has the kernels compiled that this machine has never seen."""
        layers = [pair.depthwise for term in self.terms for pair in term.pairs]
        kinds = {(conv.kernel_size[0], conv.stride[0], int(conv.dilation[0])) for conv in layers}
        names = [*COMMON, *(each for kind in sorted(kinds) for each in _convolution(*kind))]
        prepare(tuple((name, self.size, self.lanes, *constants) for name, *constants in names))

    def _edge(self, row: int, edge: int, name: str) -> None:
        """Marks a place for what comes from outside last, edge by edge."""
        self.fill(row, **{name: Place(-1 - edge, 0)})

    def _evens(self) -> None:
        evens = [(i, term) for i, term in enumerate(self.terms) if not term.pairs]
        rows = self.rows(places.EVEN_ROWS, len(evens), places.EVEN)
        groups: dict[int, list[int]] = {}
        for i, term in evens:
            if term.norm is not None:
                groups.setdefault(term.group, []).append(i)
        pools = self.rows(places.POOL_ROWS, len(groups), places.POOL_ROW)
        pooled: dict[int, Place] = {}
        for k, (group, members) in enumerate(groups.items()):
            pooled[group] = self._pool(pools + k * places.POOL_ROW, members)
        for i, term in evens:
            row = rows + i * places.EVEN
            self._edge(row, term.edge, "E_TARGET")
            self._edge(row, term.edge, "E_GRADIENT")
            self.fill(
                row, SOURCE=Place(STATE, 0) if term.norm is None else pooled[term.group], FACTOR=self.room(KEPT, self.c),
                E_SHIFT=self.room(FORWARD, self.means), E_SHARE_AT=i, E_FRESH=self._first(term.edge),
                E_TOTALS=self.totals[term.edge], RESULT=self.room(BACKWARD, self.means), E_INVERSE=self.room(KEPT, self.c),
                SKIPS=term.norm is None, **({} if term.norm is None else self.norm(term.norm, "E_")),
            )  # fmt: skip

    def _pool(self, row: int, members: Sequence[int]) -> Place:
        """Lays out a pool for the terms of numbers `members`, which follow one another; returns where its image is."""
        is_max, image = self.terms[members[0]].is_max, self.room(KEPT, self.images)
        name = "max_pool" if is_max else "mean_pool"
        where = self.room(KEPT, -(-self.images // self.size)) if is_max else 0
        self.fill(
            row, POOL=self._kernel(name), POOL_GRADIENT=self._kernel(f"{name}_gradient"),
            POOLED=image, WHERE=where, P_MEANS=self.room(KEPT, self.means), SQUARES=self.room(FORWARD, self.means),
            OWN=self.room(BACKWARD, self.c), OWN_SHIFT=self.room(BACKWARD, self.means), BEGIN=members[0],
            COUNT=len(members),
        )  # fmt: skip
        return image

    def _first(self, edge: int) -> bool:
        """Whether nothing was written to the edge yet; then something is."""
        fresh, self._fresh[edge] = self._fresh[edge], False
        return fresh

    def _pairs(self) -> None:
        deep = [(i, term) for i, term in enumerate(self.terms) if term.pairs]
        rows = self.rows(places.TERM_ROWS, len(deep), places.TERM)
        for t, (i, term) in enumerate(deep):
            for side, pair in enumerate(term.pairs):
                self._pair(rows + t * places.TERM + side * places.PAIR, i, term, pair, side)

    def _pair(self, row: int, i: int, term: Term, pair: Pair, side: int) -> None:
        k, last = pair.depthwise.kernel_size[0], side == len(term.pairs) - 1
        stride, dilation = pair.depthwise.stride[0], int(pair.depthwise.dilation[0])
        square, taps = self.c * self.c, k * k
        correlate, gradient, back = (self._kernel(*each) for each in _convolution(k, stride, dilation))
        self.fill(
            row, CORRELATE=correlate, KERNEL_GRADIENT=gradient, INPUT_GRADIENT=back, REACH=reach(pair), DILATION=dilation,
            TAPS=taps, KERNEL=self.of(pair.depthwise._parameters, "weight"), TURNED_KERNEL=self.room(KEPT, taps * self.c),
            FLIPPED_KERNEL=self.room(KEPT, taps * self.c), PARTS=self.room(BACKWARD, self.n * taps * self.c),
            TO_KERNEL=self.slope(taps * self.c), IMAGES=self.room(KEPT, self.images), MEANS=self.room(KEPT, self.means),
            MOMENTS=self.room(FORWARD, self.n * square), MAP=self.room(KEPT, square), SHIFT=self.room(KEPT, self.means),
            SHARE_AT=i if last else -1, FRESH=self._first(term.edge) if last else 0,
            PRODUCTS=self.room(BACKWARD, self.n * square), FROM_D=self.room(BACKWARD, square),
            FROM_G=self.room(BACKWARD, square), CONSTANT=self.room(BACKWARD, self.means),
            NOTES=self.room(BACKWARD, 2 * self.c), POINT=self.of(pair.point._parameters, "weight"),
            TO_POINT=self.slope(square), FOLDED=self.room(KEPT, square), COVARIANCE=self.room(KEPT, square),
            INVERSE=self.room(KEPT, self.c), TOTALS=self.totals[term.edge] if last else self.room(BACKWARD, self.means),
            **self.norm(pair.norm, ""),
        )  # fmt: skip
        if last:
            self._edge(row, term.edge, "TARGET")
            self._edge(row, term.edge, "GRADIENT")
        else:
            self.fill(row, GRADIENT=self.room(BACKWARD, self.images))


COMMON = (
    ("padded_relu",), ("column_sums",), ("centre",), ("outer",), ("product", STORE, False), ("product", ADD, False),
    ("product", RELU, False), ("product", STORE, True), ("scaled", STORE), ("scaled", ADD), ("column_products",),
    ("masked", ADD), ("turned",), ("gathered",), ("fold",), ("pull",), ("fold_even",), ("fold_pool",), ("pull_even",),
    ("pull_pool",),
)  # fmt: skip
"""The kernels at the end of the table's head, and their constants."""


def _convolution(k: int, stride: int, dilation: int) -> tuple[tuple[str | int, ...], ...]:
    """A depthwise convolution, the gradient to its kernel, and that to its input."""
    return ("depthwise", k, stride, dilation), ("kernel_gradient", k), ("depthwise", k, 1, dilation)
