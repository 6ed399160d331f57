"""The table that `dense_phases` read: what all edges that leave a state of NAS-Bench-201 compute (see `arenas`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffnas.kernels.native import dense_places as places
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
from diffnas.kernels.native.loops import ADD, STORE
from diffnas.kernels.native.terms import DenseEdge, Place


class DenseLayout(Arenas):
    """The table of all passes through what leaves a state of `shape` [N, C, H, W].

    `fresh` says of each edge whether it is the first to arrive at its node; `of_batch` whether normalisations take the
    batch's statistics.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        edges: Sequence[DenseEdge],
        fresh: Sequence[bool],
        of_batch: bool,
        threads: int,
    ) -> None:
        super().__init__(places, dtype, of_batch, threads)
        self.n, self.c, self.h, self.w = shape
        self.edges = edges
        self.points = sum(edge.point is not None for edge in edges)
        self.convs = sum(edge.conv is not None for edge in edges)
        self.zero = torch.zeros(self.c, dtype=dtype)
        self._head()
        self._rows(fresh)
        self.laid_out()

    # -- a pass

    def forward(self, x: Tensor, shares: Tensor, r: Tensor, z: Tensor | None, outputs: Sequence[Tensor]) -> Tensor:
        """Adds to `outputs` what flows along the edges, or writes it; returns what is kept for the way back."""
        kept, work = self.arena(KEPT), self.arena(FORWARD)
        given = {STATE: x, SHARES: shares, KEPT: kept, FORWARD: work}
        self.run(self.begun(given, (r, z, None), outputs), "dense_survey", "dense_fold", "dense_blend")
        return kept

    def backward(
        self,
        tensors: tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None],
        slopes: Sequence[Tensor],
        to_state: bool,
        to_weights: bool,
    ) -> DenseBackward:
        """Begins the way back, with state, shares, what `forward` kept, r and z, and the gradients to the outputs."""
        return DenseBackward(self, tensors, slopes, to_state, to_weights)

    def begun(
        self, given: Mapping[int, Tensor | None], inner: Sequence[Tensor | None], edges: Sequence[Tensor]
    ) -> np.ndarray:
        """The table of a pass; `inner` are r, z and the gradient to z, `edges` the outputs or their gradients."""
        outside = [0 if tensor is None else tensor.data_ptr() for tensor in (*inner, *reversed(edges))]
        return self.table(self.bases({ZERO: self.zero, **given}, outside))

    # -- the layout

    def _head(self) -> None:
        scratch = self.h * self.w * self.c
        scratch_at = Place(FORWARD, self.room(FORWARD, scratch * self.threads).offset)
        assert self.room(BACKWARD, scratch * self.threads) == (BACKWARD, scratch_at.offset)
        self.fill(
            0, N=self.n, C=self.c, PIXELS=self.h * self.w, H=self.h, WIDTH=self.w, SIZE=self.size, OF_BATCH=self.training,
            POINTS=self.points, X=Place(STATE, 0), DX=Place(STATE_SLOPE, 0), R=self._inner(0), SCRATCH=scratch_at,
            SCRATCH_SIZE=scratch * self.size, ZERO=Place(ZERO, 0), SHARES=Place(SHARES, 0), TO_SHARES=Place(SHARE_SLOPES, 0),
        )  # fmt: skip
        keys = tuple((name, self.size, lanes(self.c, self.size), *constants) for name, *constants in COMMON)
        prepare(keys)
        self.offsets[places.POOL : places.HEAD] = [kernel(*key) for key in keys]
        if any(edge.pool >= 0 for edge in self.edges):
            self.fill(0, POOLED=self.room(KEPT, self.n * scratch))
        square = self.c * self.c
        if self.points and self.training:
            self.fill(
                0, MEANS=self.room(FORWARD, self.n * self.c), MOMENTS=self.room(FORWARD, self.n * square),
                MEAN=self.room(KEPT, self.c), COVARIANCE=self.room(KEPT, square), FROM_D=self.room(BACKWARD, square),
                CONSTANT_D=self.room(BACKWARD, self.c),
            )  # fmt: skip

    def _inner(self, number: int) -> Place:
        """A tensor from outside that comes before those of the edges."""
        return Place(number - 3 - len(self.edges), 0)

    def _rows(self, fresh: Sequence[bool]) -> None:
        begin = self.rows(places.ROWS, len(self.edges), places.EDGE)
        square, points, convs = self.c * self.c, 0, 0
        maps, weighted = self.room(KEPT, self.points * square), self.room(BACKWARD, self.points * square)
        self.fill(0, MAPS=maps, ALL_WEIGHTED=weighted)
        for e, edge in enumerate(self.edges):
            row = begin + e * places.EDGE
            self.fill(
                row, Y=Place(-1 - e, 0), G=Place(-1 - e, 0), MODE=STORE if fresh[e] else ADD,
                CONSTANT=self.room(FORWARD, self.c), SUMS=self.room(BACKWARD, 4 * self.n * self.c),
                SHARE_POINT=edge.point_share, SHARE_CONV=edge.conv_share, SHARE_POOL=edge.pool,
                **dict(zip(("SHARE_SKIP", "SHARE_SKIP_2"), (*edge.skips, -1, -1), strict=False)),
            )  # fmt: skip
            if edge.skips:
                self.fill(row, BY_X=self.room(KEPT, self.c))
            if edge.pool >= 0:
                self.fill(row, BY_P=self.room(KEPT, self.c))
            if edge.point is not None:
                self._point(row, edge.point, points * square * self.size, maps, weighted)
                points += 1
            if edge.conv is not None:
                self._conv(row, edge.conv, convs * self.c * self.size)
                convs += 1

    def _point(self, row: int, layers: tuple[nn.Conv2d, nn.BatchNorm2d], at: int, maps: Place, weighted: Place) -> None:
        conv, norm = layers
        square = self.c * self.c
        self.fill(
            row, POINT=self.of(conv._parameters, "weight"), TO_POINT=self.slope(square),
            MAP=Place(maps.arena, maps.offset + at), WEIGHTED=Place(weighted.arena, weighted.offset + at),
            MAP_TURNED=self.room(FORWARD, square), INVERSE=self.room(KEPT, self.c), MEAN_OUT=self.room(KEPT, self.c),
            PRODUCTS=self.room(BACKWARD, self.n * square), FROM_G=self.room(BACKWARD, square),
            ALONG=self.room(BACKWARD, self.c), **self.norm(norm),
        )  # fmt: skip

    def _conv(self, row: int, layers: tuple[nn.Conv2d, nn.BatchNorm2d], at: int) -> None:
        numbers = self.n * self.c
        self.fill(
            row, Z=Place(self._inner(1).arena, at), DZ=Place(self._inner(2).arena, at), Z_STEP=self.convs * self.c,
            Z_MEAN=self.room(KEPT, self.c), Z_INVERSE=self.room(KEPT, self.c), BY_Z=self.room(FORWARD, self.c),
            **{name: self.room(BACKWARD, self.c) for name in ("DZ_BY_G", "DZ_BY_Z", "DZ_CONSTANT")},
            **self.norm(layers[1], "Z_"),
        )  # fmt: skip
        if self.training:
            self.fill(row, Z_MEANS=self.room(FORWARD, numbers), Z_SQUARES=self.room(FORWARD, numbers))


class DenseBackward:
    """The way back of a pass, as far as the outputs of the 3x3 convolutions, whose own way back is the library's.

    `to_shares` are the gradients of the shares, `to_points` [k C C] those of the kernels of the 1x1 convolutions, `dz` that
    to the outputs of the 3x3 convolutions (None: not wanted, or none there).
    """

    def __init__(
        self,
        layout: DenseLayout,
        tensors: tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None],
        slopes: Sequence[Tensor],
        to_state: bool,
        to_weights: bool,
    ) -> None:
        x, shares, kept, r, z = tensors
        self.layout, self.x = layout, x
        self.work, self.slopes, self.tensors = layout.arena(BACKWARD), slopes, tensors
        self.to_shares = torch.zeros_like(shares)
        self.to_points = layout.arena(WEIGHT_SLOPES) if to_weights else None
        self.dz = torch.empty_like(z) if z is not None and (to_state or to_weights) else None
        self.dx = torch.empty_like(x, memory_format=torch.channels_last) if to_state else None
        given = {
            STATE: x, SHARES: shares, KEPT: kept, SHARE_SLOPES: self.to_shares, STATE_SLOPE: self.dx,
            WEIGHT_SLOPES: self.to_points, FORWARD: self.work, BACKWARD: self.work,
        }  # fmt: skip
        self.table = layout.begun(given, (r, z, self.dz), slopes)
        self.table[places.TO_WEIGHTS] = to_weights
        layout.run(self.table, "dense_weigh", "dense_pull")
        if self.dz is not None:
            layout.run(self.table, "dense_to_conv")

    def state(self, dr: Tensor) -> Tensor:
        """The gradient to the state, from that to its ReLU by the 3x3 convolutions, which is written over."""
        assert self.dx is not None
        self.table[places.DR] = dr.data_ptr()
        self.layout.run(self.table, "dense_pull_state", "dense_to_state")
        return self.dx


COMMON: tuple[tuple[Any, ...], ...] = (
    ("mean_pool",), ("mean_pool_gradient",), ("column_sums",), ("centred",), ("outer",), ("product", STORE, False),
    ("product", ADD, False), ("product", ADD, True), ("moments",), ("to_conv",), ("scaled", STORE), ("scaled", ADD),
    ("masked", STORE), ("through_relu",), ("blend",), ("weighed",), ("summed",), ("fold_state",), ("fold_point",),
    ("fold_conv",), ("fold_share",), ("pull_point",), ("pull_conv",), ("pull_share",), ("pull_state",),
)  # fmt: skip
"""The kernels at the end of the table's head, and their constants."""
