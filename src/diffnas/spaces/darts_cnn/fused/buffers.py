"""What the parts of an `Outflow` share: the terms they compute, the state they read, the sums they add to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from diffnas.kernels import pointwise
from diffnas.kernels.depthwise import Source
from diffnas.kernels.pointwise import Affine, Moments, add_mapped, at_least_float32, cast, image, rows
from diffnas.spaces.statistics import RunningStatsUpdates


@dataclass(frozen=True)
class EdgeOp:
    """One op on one edge: its column in the mixture, the edge's place among those that leave the state, its layers."""

    column: int
    edge: int
    op: nn.Module
    convolutions: tuple[nn.Conv2d, ...]
    norms: tuple[nn.BatchNorm2d, ...]

    @classmethod
    def of(cls, column: int, edge: int, op: nn.Module) -> EdgeOp:
        """The layers of `op`."""
        layers = list(op.modules())
        convolutions = tuple(layer for layer in layers if isinstance(layer, nn.Conv2d))
        return cls(
            column, edge, op, convolutions, tuple(layer for layer in layers if isinstance(layer, nn.BatchNorm2d))
        )

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """The weights of its convolutions."""
        return tuple(layer.weight for layer in self.convolutions)


Terms = tuple[EdgeOp, ...]


class Chunk(NamedTuple):
    """Terms `first` to `last` - 1 of a part: one op on neighbouring edges, side by side in one call."""

    first: int
    last: int
    edge: int

    @property
    def width(self) -> int:
        """How many edges."""
        return self.last - self.first


def chunked(terms: Terms, width: int) -> tuple[Chunk, ...]:
    """`terms`, sorted by column and edge, in chunks of at most `width`."""
    found: list[Chunk] = []
    for i, term in enumerate(terms):
        before = terms[i - 1] if i else None
        joins = before is not None and (before.column, before.edge + 1) == (term.column, term.edge)
        if joins and found[-1].width < width:
            found[-1] = found[-1]._replace(last=i + 1)
        else:
            found.append(Chunk(i, i + 1, term.edge))
    return tuple(found)


class State:
    """The state that edges leave, [N, C, H, W], and what several parts need of it."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self._wide: dict[int, Source] = {}

    @cached_property
    def relu(self) -> Tensor:
        """Its ReLU."""
        return self.x.relu()

    def wide(self, width: int) -> Source:
        """Its ReLU `width` times side by side, [N, width * C, H, W]."""
        if width == 1:
            return self._wide.setdefault(1, Source(self.relu))
        if width not in self._wide:
            repeated = torch.cat([rows(self.relu)] * width, dim=1)
            self._wide[width] = Source(image(repeated, self.relu))
        return self._wide[width]

    def gathered(self, grads: Iterable[Tensor | None]) -> Tensor | None:
        """The sum of gradients to `wide` as the gradient to the ReLU; None where they are."""
        totals: dict[int, Tensor] = {}
        for g in grads:
            if g is not None and g.shape[1] in totals:
                totals[g.shape[1]] += g
            elif g is not None:
                totals[g.shape[1]] = g
        c = self.x.shape[1]
        found: Tensor | None = None
        for channels, g in totals.items():
            if channels > c:  # a product is faster than a sum of few
                adder = torch.eye(c, dtype=g.dtype, device=g.device).repeat(channels // c, 1)
                g = image(rows(g) @ adder, g)
            found = g if found is None else found.add_(g)
        return found


class EdgeSums:
    """What flows along each edge that leaves a state: a matrix [P, C] per edge, which neighbours have side by side."""

    def __init__(self, x: Tensor, pixels: int, edges: int, apart: bool) -> None:
        self.channels = x.shape[1]
        if apart:  # a product is slower where the rows of its sum are far from one another
            self.each = [x.new_empty(pixels, self.channels) for _ in range(edges)]
        else:
            self.whole = x.new_empty(pixels, edges * self.channels)
            self.each = list(self.whole.chunk(edges, dim=1))
        self.begun = [False] * edges

    def add(self, terms: Terms, chunks: Sequence[Chunk], ds: Sequence[Tensor], affine: Affine, s: Tensor) -> None:
        """Adds s (A d + b) to the edges of `terms`; `ds` [P, w * K] per chunk, `s` [n]."""
        for term in terms:
            self._begin(term.edge)
        maps = cast(affine.A * s[:, None, None], ds[0])
        for chunk, d in zip(chunks, ds, strict=True):
            add_mapped(self._of(chunk), d, maps[chunk.first : chunk.last])
        if affine.b is not None:
            for term, shift in zip(terms, cast(affine.b * s[:, None], ds[0]), strict=True):
                self.each[term.edge] += shift

    def add_scaled(self, edge: int, f: Tensor, scale: Tensor) -> None:
        """Adds f [P, C] times `scale` [C] or [] to the edge."""
        if self.begun[edge]:
            self.each[edge].addcmul_(f, scale)
        else:
            torch.mul(f, scale, out=self.each[edge])
            self.begun[edge] = True

    def finished(self) -> list[Tensor]:
        """The sums; 0 where nothing was added."""
        for edge in range(len(self.each)):
            self._begin(edge)
        return self.each

    def _begin(self, edge: int) -> None:
        if not self.begun[edge]:
            self.each[edge].zero_()
            self.begun[edge] = True

    def _of(self, chunk: Chunk) -> Tensor:
        if chunk.width == 1:
            return self.each[chunk.edge]
        return self.whole[:, chunk.edge * self.channels : (chunk.edge + chunk.width) * self.channels]


class EdgeGradients:
    """The gradients to the sums of `Sums`, one matrix [P, C] per edge."""

    def __init__(self, each: list[Tensor]) -> None:
        self.each = each
        self._joined: dict[tuple[int, int], Tensor] = {}
        self._totals: dict[int, Tensor] = {}

    def of(self, chunk: Chunk) -> Tensor:
        """Those of a chunk side by side, [P, w * C]."""
        if chunk.width == 1:
            return self.each[chunk.edge]
        key = chunk.edge, chunk.width
        if key not in self._joined:
            self._joined[key] = torch.cat(self.each[chunk.edge : chunk.edge + chunk.width], dim=1)
        return self._joined[key]

    def totals(self, terms: Terms) -> Tensor:
        """Their sums over pixels, [n, C]."""
        for term in terms:
            if term.edge not in self._totals:
                self._totals[term.edge] = at_least_float32(self.each[term.edge]).sum(0)
        return torch.stack([self._totals[term.edge] for term in terms])


@dataclass(frozen=True)
class NeedsGrad:
    """Which gradients a backward is asked for."""

    shares: bool
    state: bool
    weights: bool


@dataclass
class OpGradients:
    """What a backward found: the gradients to the shares [n], to the state and to its ReLU [N, C, H, W] (None where not
    wanted, or none), and to each term's weights."""

    shares: Tensor | None
    x: Tensor | None = None
    relu: Tensor | None = None
    weights: list[tuple[Tensor, ...]] = field(default_factory=list)


class FusedOp(Protocol):
    """See `parts`."""

    terms: Terms

    def forward(self, state: State, s: Tensor, sums: EdgeSums, moves: RunningStatsUpdates) -> list[Tensor]:
        """Adds its op to `sums`; returns what `backward` needs."""

    def backward(
        self, state: State, saved: Sequence[Tensor], s: Tensor, slopes: EdgeGradients, wanted: NeedsGrad
    ) -> OpGradients:
        """The gradients, given `slopes`."""


def normalised(
    norms: Sequence[nn.BatchNorm2d], W: Tensor, moments: Moments | None, moves: RunningStatsUpdates
) -> Affine:
    """The affine maps of `W` [w, C, K] by the batch's `moments` (None: by the running statistics)."""
    if moments is None:
        return pointwise.fold_given(W, *running(norms), norms[0].eps)
    affine = pointwise.fold(W, moments, norms[0].eps)
    moves.add(norms, affine.mean, affine.var, moments.count)
    return affine


def running(norms: Sequence[nn.BatchNorm2d]) -> tuple[Tensor, Tensor]:
    """The running means and variances [w, C]."""
    return torch.stack(_buffers(norms, "running_mean")), torch.stack(_buffers(norms, "running_var"))


def _buffers(norms: Sequence[nn.BatchNorm2d], name: str) -> list[Tensor]:
    return [getattr(norm, name) for norm in norms]
