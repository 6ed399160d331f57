"""The parts of what flows out of a state: ops that are computed alike, forward and backward.

A part works for one pass.  `forward(state, s, sums, moves)` adds its terms, by their shares `s` [n], to the sums of their
edges and returns the images that its backward needs.  `backward` turns the gradients of those sums into those of the shares,
of the state and of the weights.  Small matrices of all terms are worked on together, images chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from diffnas.kernels import pointwise
from diffnas.kernels.depthwise import Source, depthwise, input_gradient, kernel_gradient
from diffnas.kernels.pointwise import Affine, Moments, add_mapped, at_least_float32, cast, image, mapped, products, rows


@dataclass(frozen=True)
class Term:
    """One op on one edge: its column in the mixture, the edge's place among those that leave the state, its layers."""

    column: int
    edge: int
    op: nn.Module
    convolutions: tuple[nn.Conv2d, ...]
    norms: tuple[nn.BatchNorm2d, ...]

    @classmethod
    def of(cls, column: int, edge: int, op: nn.Module) -> Term:
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


Terms = tuple[Term, ...]


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


class Moves:
    """Steps of running statistics, taken all at once at the end of a pass."""

    def __init__(self) -> None:
        self.layers: list[nn.BatchNorm2d] = []
        self.means: list[Tensor] = []
        self.variances: list[Tensor] = []

    def add(self, layers: Sequence[nn.BatchNorm2d], mean: Tensor, var: Tensor, count: int) -> None:
        """Notes the batch's `mean` and `var` [w, C] over `count` pixels, where the layers keep running statistics.

        Raises `ValueError` where one pixel is all there is, as `nn.BatchNorm2d` does.
        """
        if count < 2:
            raise ValueError("a batch of one image of one pixel has no statistics to normalise by")
        if layers[0].track_running_stats:
            self.layers += layers
            self.means += mean.unbind()
            self.variances += (var * (count / (count - 1))).unbind()

    def take(self) -> None:
        """Moves the running statistics as `nn.BatchNorm2d` does."""
        if not self.layers:
            return
        step = self.layers[0].momentum
        assert step is not None  # a mean over all batches instead; no supernet is built so
        torch._foreach_lerp_(_buffers(self.layers, "running_mean"), self.means, step)
        torch._foreach_lerp_(_buffers(self.layers, "running_var"), self.variances, step)
        torch._foreach_add_(_buffers(self.layers, "num_batches_tracked"), 1)


class State:
    """The state that edges leave, [N, C, H, W], and what several parts need of it."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.relu = x, x.relu()
        self._wide = {1: Source(self.relu)}

    def wide(self, width: int) -> Source:
        """Its ReLU `width` times side by side, [N, width * C, H, W]."""
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


class Sums:
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


class Slopes:
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
class Wanted:
    """Which gradients a backward is asked for."""

    shares: bool
    state: bool
    weights: bool


@dataclass
class Found:
    """What a backward found: the gradients to the shares [n], to the state and to its ReLU [N, C, H, W] (None where not
    wanted, or none), and to each term's weights."""

    shares: Tensor | None
    x: Tensor | None = None
    relu: Tensor | None = None
    weights: list[tuple[Tensor, ...]] = field(default_factory=list)


class Part(Protocol):
    """See the top of this file."""

    terms: Terms

    def forward(self, state: State, s: Tensor, sums: Sums, moves: Moves) -> list[Tensor]:
        """Adds its op to `sums`; returns what `backward` needs."""

    def backward(self, state: State, saved: Sequence[Tensor], s: Tensor, slopes: Slopes, wanted: Wanted) -> Found:
        """The gradients, given `slopes`."""


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

    def forward(self, xs: Sequence[Tensor], moves: Moves) -> list[Tensor]:
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
        wanted: Wanted,
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

    def forward(self, state: State, s: Tensor, sums: Sums, moves: Moves) -> list[Tensor]:
        """Saves both depthwise outputs and what is between them."""
        first = self.first.forward([state.wide(chunk.width).x for chunk in self.chunks], moves)
        between = self.first.activated(first)
        second = self.second.forward(between, moves)
        sums.add(self.terms, self.chunks, [rows(d) for d in second], self.second.affine, s)
        return [*first, *between, *second]

    def backward(self, state: State, saved: Sequence[Tensor], s: Tensor, slopes: Slopes, wanted: Wanted) -> Found:
        """Through the second pair, the ReLU between, and the first pair."""
        n = len(self.chunks)
        first, between, second = saved[:n], saved[n : 2 * n], saved[2 * n :]
        through = Wanted(wanted.shares, wanted.state or wanted.weights, wanted.weights)
        gs, totals = [slopes.of(chunk) for chunk in self.chunks], slopes.totals(self.terms)
        sources = [Source(z) for z in between]
        shares, inner, last = self.second.backward(sources, second, gs, totals, s, through)
        if not through.state:
            return Found(shares)
        gs = [rows(torch.ops.aten.threshold_backward(g, z, 0)) for g, z in zip(inner, between, strict=True)]
        totals = torch.cat([at_least_float32(g).sum(0).view(c.width, -1) for g, c in zip(gs, self.chunks, strict=True)])
        sources = [state.wide(chunk.width) for chunk in self.chunks]
        _, outer, weights = self.first.backward(sources, first, gs, totals, None, wanted)
        found = Found(shares, relu=state.gathered(outer))
        found.weights = [(*a, *b) for a, b in zip(weights, last, strict=True)]
        return found


class Dilated:
    """One depthwise separable convolution."""

    def __init__(self, terms: Terms, stride: int, width: int) -> None:
        self.terms, self.chunks = terms, chunked(terms, width)
        self.only = _Pairs(terms, self.chunks, 0, stride)

    def forward(self, state: State, s: Tensor, sums: Sums, moves: Moves) -> list[Tensor]:
        """Saves the depthwise outputs."""
        ds = self.only.forward([state.wide(chunk.width).x for chunk in self.chunks], moves)
        sums.add(self.terms, self.chunks, [rows(d) for d in ds], self.only.affine, s)
        return ds

    def backward(self, state: State, saved: Sequence[Tensor], s: Tensor, slopes: Slopes, wanted: Wanted) -> Found:
        """Through the one pair."""
        gs, totals = [slopes.of(chunk) for chunk in self.chunks], slopes.totals(self.terms)
        sources = [state.wide(chunk.width) for chunk in self.chunks]
        shares, inner, weights = self.only.backward(sources, saved, gs, totals, s, wanted)
        found = Found(shares)
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

    def forward(self, state: State, s: Tensor, sums: Sums, moves: Moves) -> list[Tensor]:
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

    def backward(self, state: State, saved: Sequence[Tensor], s: Tensor, slopes: Slopes, wanted: Wanted) -> Found:
        """All edges read one matrix, so their gradients to it are summed before they are spread over the pixels."""
        (d,) = saved
        gs = [slopes.each[term.edge] for term in self.terms]
        Q = torch.cat([products(g, d, 1) for g in gs])
        pulled = pointwise.pull(self.weight, self.affine, self.moments, Q, slopes.totals(self.terms), s, wanted.weights)
        found = Found(pulled.share.sum(-1))
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

    def forward(self, state: State, s: Tensor, sums: Sums, moves: Moves) -> list[Tensor]:
        """Saves nothing."""
        for term, share in zip(self.terms, cast(s, state.x), strict=True):
            sums.add_scaled(term.edge, rows(state.x), share)
        return []

    def backward(self, state: State, saved: Sequence[Tensor], s: Tensor, slopes: Slopes, wanted: Wanted) -> Found:
        """The share's gradient is an inner product of images."""
        gs = [slopes.each[term.edge] for term in self.terms]
        flat = rows(state.x)
        found = Found(torch.stack([_products(g, flat).sum() for g in gs]) if wanted.shares else None)
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

    def forward(self, state: State, s: Tensor, sums: Sums, moves: Moves) -> list[Tensor]:
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
            mean, var = _running(self.norms)
            self.inv = torch.rsqrt(var + self.norms[0].eps)
            self.b = -mean * self.inv
        for i, (term, scale) in enumerate(zip(self.terms, s[:, None] * self.inv, strict=True)):
            sums.add_scaled(term.edge, flat, cast(scale, flat))
            if self.b is not None:
                sums.each[term.edge] += cast(s[i] * self.b[i], flat)
        return [pooled, *where]

    def backward(self, state: State, saved: Sequence[Tensor], s: Tensor, slopes: Slopes, wanted: Wanted) -> Found:
        """Normalised once for all edges, then pooled back once."""
        pooled, *where = saved
        flat = rows(pooled)
        gs = [slopes.each[term.edge] for term in self.terms]
        shares = torch.stack([_products(g, flat) for g in gs]) * self.inv
        q = slopes.totals(self.terms)
        if self.b is not None:
            shares = shares + self.b * q
        found = Found(shares.sum(-1))
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
        if where:
            return torch.ops.aten.max_pool2d_with_indices_backward(g, x, *self._sizes, [1, 1], False, where[0])
        return torch.ops.aten.avg_pool2d_backward(g, x, *self._sizes, False, False, None)


def normalised(norms: Sequence[nn.BatchNorm2d], W: Tensor, moments: Moments | None, moves: Moves) -> Affine:
    """The affine maps of `W` [w, C, K] by the batch's `moments` (None: by the running statistics)."""
    if moments is None:
        return pointwise.fold_given(W, *_running(norms), norms[0].eps)
    affine = pointwise.fold(W, moments, norms[0].eps)
    moves.add(norms, affine.mean, affine.var, moments.count)
    return affine


def _running(norms: Sequence[nn.BatchNorm2d]) -> tuple[Tensor, Tensor]:
    """The running means and variances [w, C]."""
    return torch.stack(_buffers(norms, "running_mean")), torch.stack(_buffers(norms, "running_var"))


def _buffers(norms: Sequence[nn.BatchNorm2d], name: str) -> list[Tensor]:
    return [getattr(norm, name) for norm in norms]


def _scaled_sum(gs: Sequence[Tensor], scales: Tensor) -> Tensor:
    """The sum of `gs` [P, C] by `scales` [w] or [w, C]."""
    first, *rest = cast(scales, gs[0])
    total = gs[0] * first
    for g, scale in zip(gs[1:], rest, strict=True):
        total.addcmul_(g, scale)
    return total


def _products(g: Tensor, f: Tensor) -> Tensor:
    """[C]: the sum over rows of g f."""
    return (at_least_float32(g) * f).sum(0)
