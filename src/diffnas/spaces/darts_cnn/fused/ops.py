"""The parts of what flows out of a state: ops that are computed alike, forward and backward.

A part works for one pass.  `forward(state, s, sums, moves)` adds its terms, by their shares `s` [n], to the sums of their
edges and returns the images that its backward needs.  `backward` turns the gradients of those sums into those of the shares,
of the state and of the weights.  Small matrices of all terms are worked on together, images chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from diffnas.kernels import pointwise
from diffnas.kernels.depthwise import Source, depthwise, input_gradient, kernel_gradient
from diffnas.kernels.pointwise import Affine, Moments, at_least_float32, cast, image, mapped, products, rows
from diffnas.spaces.darts_cnn.fused.buffers import (
    Chunk,
    EdgeGradients,
    EdgeSums,
    NeedsGrad,
    OpGradients,
    State,
    Terms,
    chunked,
    normalised,
    running,
)
from diffnas.spaces.statistics import RunningStatsUpdates


class _Pairs:
    """Depthwise convolutions and the normalised 1x1 convolutions after them, one pair per term."""

    def __init__(self, terms: Terms, chunks: Sequence[Chunk], first: int, stride: int) -> None:
        self.chunks, self.stride = chunks, stride
        self.dilations = [int(terms[chunk.first].convolutions[first].dilation[0]) for chunk in chunks]
        kernels = [term.convolutions[first].weight for term in terms]
        self.kernels = [kernels[c.first] if c.width == 1 else torch.cat(kernels[c.first : c.last]) for c in chunks]
        self.weight = torch.stack([term.convolutions[first + 1].weight for term in terms]).flatten(2)
        self.norms = [term.norms[first // 2] for term in terms]
        self.moments: Moments | None = None
        self.affine: Affine

    def forward(self, xs: Sequence[Tensor], moves: RunningStatsUpdates) -> list[Tensor]:
        """The depthwise outputs, an image per chunk (centred, where the batch counts); leaves `affine` behind."""
        ds, moments = [], []
        for x, kernel, dilation, chunk in zip(xs, self.kernels, self.dilations, self.chunks, strict=True):
            d = depthwise(x, cast(kernel, x), self.stride, dilation).contiguous(memory_format=torch.channels_last)
            if self.norms[0].training:
                moments.append(pointwise.centred_moments(rows(d), chunk.width))
            ds.append(d)
        self.moments = pointwise.joined(moments) if moments else None
        self.affine = normalised(self.norms, self.weight, self.moments, moves)
        return ds

    def activated(self, ds: Sequence[Tensor]) -> list[Tensor]:
        """ReLU of the normalised outputs, an image per chunk."""
        A = cast(self.affine.A, ds[0])
        flats = [mapped(rows(d), A[c.first : c.last]) for d, c in zip(ds, self.chunks, strict=True)]
        if self.affine.b is not None:
            for flat, c in zip(flats, self.chunks, strict=True):
                flat += cast(self.affine.b[c.first : c.last].flatten(), flat)
        return [image(flat.relu_(), d) for flat, d in zip(flats, ds, strict=True)]

    def backward(
        self,
        sources: Sequence[Source],
        ds: Sequence[Tensor],
        gs: Sequence[Tensor],
        totals: Tensor,
        s: Tensor | None,
        wanted: NeedsGrad,
    ) -> tuple[Tensor, Iterator[Tensor | None], list[tuple[Tensor, Tensor]]]:
        """From the gradients `gs` [P, w * C] to s (A d + b), chunk by chunk, and their `totals` [n, C]: those to the shares
        [n]; those to the inputs, image by image as they are asked for, in the course of which the last result, the gradients
        to the weights (kernel and 1x1 kernel per term), fills."""
        flats = [rows(d) for d in ds]
        Q = torch.cat([products(g, d, c.width) for g, d, c in zip(gs, flats, self.chunks, strict=True)])
        pulled = pointwise.pull(self.weight, self.affine, self.moments, Q, totals, s, wanted.weights)
        weights: list[tuple[Tensor, Tensor]] = []

        def inputs() -> Iterator[Tensor | None]:
            for i, chunk in enumerate(self.chunks):
                x, kernel = sources[i].x, cast(self.kernels[i], gs[i])
                dd = image(pulled.input(gs[i], flats[i], chunk.first, chunk.last), ds[i])
                if pulled.weight is not None:
                    found = kernel_gradient(dd, sources[i], kernel, self.stride, self.dilations[i])
                    points = pulled.weight[chunk.first : chunk.last, ..., None, None].unbind()
                    weights.extend(zip(cast(found, self.weight).chunk(chunk.width), points, strict=True))
                yield input_gradient(dd, x, kernel, self.stride, self.dilations[i]) if wanted.state else None

        return pulled.share.sum(-1), inputs(), weights


class Separable:
    """Two depthwise separable convolutions."""

    def __init__(self, terms: Terms, stride: int, width: int) -> None:
        self.terms, self.chunks = terms, chunked(terms, width)
        self.first, self.second = _Pairs(terms, self.chunks, 0, stride), _Pairs(terms, self.chunks, 2, 1)

    def forward(self, state: State, s: Tensor, sums: EdgeSums, moves: RunningStatsUpdates) -> list[Tensor]:
        """Saves both depthwise outputs and what is between them."""
        first = self.first.forward([state.wide(chunk.width).x for chunk in self.chunks], moves)
        between = self.first.activated(first)
        second = self.second.forward(between, moves)
        sums.add(self.terms, self.chunks, [rows(d) for d in second], self.second.affine, s)
        return [*first, *between, *second]

    def backward(
        self, state: State, saved: Sequence[Tensor], s: Tensor, slopes: EdgeGradients, wanted: NeedsGrad
    ) -> OpGradients:
        """Through the second pair, the ReLU between, and the first pair."""
        n = len(self.chunks)
        first, between, second = saved[:n], saved[n : 2 * n], saved[2 * n :]
        through = NeedsGrad(wanted.shares, wanted.state or wanted.weights, wanted.weights)
        gs, totals = [slopes.of(chunk) for chunk in self.chunks], slopes.totals(self.terms)
        sources = [Source(z) for z in between]
        shares, inner, last = self.second.backward(sources, second, gs, totals, s, through)
        if not through.state:
            return OpGradients(shares)
        gs = [rows(torch.ops.aten.threshold_backward(g, z, 0)) for g, z in zip(inner, between, strict=True)]
        totals = torch.cat([at_least_float32(g).sum(0).view(c.width, -1) for g, c in zip(gs, self.chunks, strict=True)])
        sources = [state.wide(chunk.width) for chunk in self.chunks]
        _, outer, weights = self.first.backward(sources, first, gs, totals, None, wanted)
        found = OpGradients(shares, relu=state.gathered(outer))
        found.weights = [(*a, *b) for a, b in zip(weights, last, strict=True)]
        return found


class Dilated:
    """One depthwise separable convolution."""

    def __init__(self, terms: Terms, stride: int, width: int) -> None:
        self.terms, self.chunks = terms, chunked(terms, width)
        self.only = _Pairs(terms, self.chunks, 0, stride)

    def forward(self, state: State, s: Tensor, sums: EdgeSums, moves: RunningStatsUpdates) -> list[Tensor]:
        """Saves the depthwise outputs."""
        ds = self.only.forward([state.wide(chunk.width).x for chunk in self.chunks], moves)
        sums.add(self.terms, self.chunks, [rows(d) for d in ds], self.only.affine, s)
        return ds

    def backward(
        self, state: State, saved: Sequence[Tensor], s: Tensor, slopes: EdgeGradients, wanted: NeedsGrad
    ) -> OpGradients:
        """Through the one pair."""
        gs, totals = [slopes.of(chunk) for chunk in self.chunks], slopes.totals(self.terms)
        sources = [state.wide(chunk.width) for chunk in self.chunks]
        shares, inner, weights = self.only.backward(sources, saved, gs, totals, s, wanted)
        found = OpGradients(shares)
        if wanted.state or wanted.weights:
            found.relu = state.gathered(inner)
            found.weights = list(weights)
        return found


class Halving:
    """`FactorizedReduce` on every edge: its two 1x1 convolutions read the even and the odd pixels of one state."""

    def __init__(self, terms: Terms) -> None:
        even, odd = (torch.stack([term.convolutions[i].weight for term in terms]).flatten(2) for i in range(2))
        n, self.half, self.inputs = even.shape
        self.terms, self.norms = terms, [term.norms[0] for term in terms]
        self.weight = even.new_zeros(n, 2 * self.half, 2 * self.inputs)
        self.weight[:, : self.half, : self.inputs] = even
        self.weight[:, self.half :, self.inputs :] = odd
        self.moments: Moments | None = None
        self.affine: Affine

    def forward(self, state: State, s: Tensor, sums: EdgeSums, moves: RunningStatsUpdates) -> list[Tensor]:
        """Saves the even and odd pixels side by side."""
        r = state.relu
        if r.shape[2] % 2 or r.shape[3] % 2:
            raise ValueError(f"halving the resolution needs even sides, not {r.shape[2]} x {r.shape[3]}")
        d = torch.cat([rows(r[:, :, ::2, ::2]), rows(r[:, :, 1::2, 1::2])], dim=1)
        if self.norms[0].training:
            self.moments = pointwise.joined([pointwise.centred_moments(d, 1)])
        self.affine = normalised(self.norms, self.weight, self.moments, moves)
        chunks = [Chunk(i, i + 1, term.edge) for i, term in enumerate(self.terms)]
        sums.add(self.terms, chunks, [d] * len(chunks), self.affine, s)
        return [d]

    def backward(
        self, state: State, saved: Sequence[Tensor], s: Tensor, slopes: EdgeGradients, wanted: NeedsGrad
    ) -> OpGradients:
        """All edges read one matrix, so their gradients to it are summed before they are spread over the pixels."""
        (d,) = saved
        gs = [slopes.each[term.edge] for term in self.terms]
        Q = torch.cat([products(g, d, 1) for g in gs])
        pulled = pointwise.pull(self.weight, self.affine, self.moments, Q, slopes.totals(self.terms), s, wanted.weights)
        found = OpGradients(pulled.share.sum(-1))
        if pulled.weight is not None:
            half, inputs = self.half, self.inputs
            found.weights = [(w[:half, :inputs, None, None], w[half:, inputs:, None, None]) for w in pulled.weight]
        if wanted.state:
            dd = pulled.input(gs[0], d, 0, 1)
            for i, g in enumerate(gs[1:], 1):
                dd += pulled.input(g, d, i, i + 1)
            found.relu = torch.zeros_like(state.relu)
            for at, half_of_dd in enumerate(dd.chunk(2, dim=1)):
                pixels = found.relu[:, :, at::2, at::2]
                pixels.copy_(image(half_of_dd.contiguous(), pixels))
        return found


class Identity:
    """The state itself on every edge."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms

    def forward(self, state: State, s: Tensor, sums: EdgeSums, moves: RunningStatsUpdates) -> list[Tensor]:
        """Saves nothing."""
        for term, share in zip(self.terms, cast(s, state.x), strict=True):
            sums.add_scaled(term.edge, rows(state.x), share)
        return []

    def backward(
        self, state: State, saved: Sequence[Tensor], s: Tensor, slopes: EdgeGradients, wanted: NeedsGrad
    ) -> OpGradients:
        """The share's gradient is an inner product of images."""
        gs = [slopes.each[term.edge] for term in self.terms]
        flat = rows(state.x)
        found = OpGradients(torch.stack([_products(g, flat).sum() for g in gs]) if wanted.shares else None)
        if wanted.state:
            found.x = image(_scaled_sum(gs, s), state.x)
        return found


class Pool:
    """A pool and its normalisation, the same on every edge but for the running statistics."""

    def __init__(self, terms: Terms, stride: int) -> None:
        self.terms, self.stride = terms, stride
        self.is_max = any(isinstance(layer, nn.MaxPool2d) for layer in terms[0].op.modules())
        self.norms = [term.norms[0] for term in terms]
        self.inv: Tensor
        self.b: Tensor | None = None

    def forward(self, state: State, s: Tensor, sums: EdgeSums, moves: RunningStatsUpdates) -> list[Tensor]:
        """Saves the pooled state (centred, where the batch's statistics count) and where its maxima were."""
        pooled, where = self._pool(state.x)
        pooled = pooled.contiguous(memory_format=torch.channels_last)
        flat = rows(pooled)
        if self.norms[0].training:
            mean = at_least_float32(flat).mean(0)
            flat -= cast(mean, flat)
            exact = at_least_float32(flat)
            var = (exact * exact).mean(0)
            every = len(self.terms), -1
            moves.add(self.norms, mean.expand(every), var.expand(every), len(flat))
            self.inv = torch.rsqrt(var + self.norms[0].eps).expand(every)
        else:
            mean, var = running(self.norms)
            self.inv = torch.rsqrt(var + self.norms[0].eps)
            self.b = -mean * self.inv
        for i, (term, scale) in enumerate(zip(self.terms, s[:, None] * self.inv, strict=True)):
            sums.add_scaled(term.edge, flat, cast(scale, flat))
            if self.b is not None:
                sums.each[term.edge] += cast(s[i] * self.b[i], flat)
        return [pooled, *where]

    def backward(
        self, state: State, saved: Sequence[Tensor], s: Tensor, slopes: EdgeGradients, wanted: NeedsGrad
    ) -> OpGradients:
        """Normalised once for all edges, then pooled back once."""
        pooled, *where = saved
        flat = rows(pooled)
        gs = [slopes.each[term.edge] for term in self.terms]
        shares = torch.stack([_products(g, flat) for g in gs]) * self.inv
        q = slopes.totals(self.terms)
        if self.b is not None:
            shares = shares + self.b * q
        found = OpGradients(shares.sum(-1))
        if wanted.state:
            scale = s[:, None] * self.inv
            total = _scaled_sum(gs, scale)
            if self.b is None:
                total.addcmul_(flat, cast(-(scale * self.inv * shares).sum(0) / len(flat), flat))
                total -= cast((scale * q).sum(0) / len(flat), flat)
            found.x = self._pool_gradient(image(total, pooled), state.x, where)
        return found

    @property
    def _sizes(self) -> tuple[list[int], list[int], list[int]]:
        return [3, 3], [self.stride] * 2, [1, 1]

    def _pool(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        if self.is_max:
            pooled, where = torch.ops.aten.max_pool2d_with_indices(x, *self._sizes)
            return pooled, [where]
        return torch.ops.aten.avg_pool2d(x, *self._sizes, False, False), []

    def _pool_gradient(self, g: Tensor, x: Tensor, where: Sequence[Tensor]) -> Tensor:
        slope: Tensor
        if where:
            slope = torch.ops.aten.max_pool2d_with_indices_backward(g, x, *self._sizes, [1, 1], False, where[0])
        else:
            slope = torch.ops.aten.avg_pool2d_backward(g, x, *self._sizes, False, False, None)
        return slope


def _scaled_sum(gs: Sequence[Tensor], scales: Tensor) -> Tensor:
    """The sum of `gs` [P, C] by `scales` [w] or [w, C]."""
    first, *rest = cast(scales, gs[0])
    total: Tensor = gs[0] * first
    for g, scale in zip(gs[1:], rest, strict=True):
        total.addcmul_(g, scale)
    return total


def _products(g: Tensor, f: Tensor) -> Tensor:
    """[C]: the sum over rows of g f."""
    return (at_least_float32(g) * f).sum(0)
