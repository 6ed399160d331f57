"""The parts of what flows out of a state: ops that are computed alike, on all of its edges.

A part works for one pass.  `forward(x, r, s, sums)` adds its ops, by their shares `s` [n], to the sums of the edges, given
the state `x` [N, C, H, W] and its ReLU `r`, and returns the images that its backward needs.  `backward` turns the gradients
of those sums into the gradients of the shares, of `x` and `r`, and of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from diffnas.kernels import pointwise
from diffnas.kernels.depthwise import depthwise, input_gradient, kernel_gradient
from diffnas.kernels.pointwise import Affine, Moments, add_mapped, at_least_float32, image, mapped, products, rows


@dataclass(frozen=True)
class Term:
    """One op on one edge: its column in the mixture, the edge's place among those that leave the state, its layers."""

    column: int
    edge: int
    op: nn.Module
    convolutions: tuple[nn.Conv2d, ...]
    norms: tuple[nn.BatchNorm2d, ...]
    pool: nn.MaxPool2d | nn.AvgPool2d | None

    @classmethod
    def of(cls, column: int, edge: int, op: nn.Module) -> Term:
        """The layers of `op`."""
        layers = list(op.modules())
        convolutions = tuple(layer for layer in layers if isinstance(layer, nn.Conv2d))
        norms = tuple(layer for layer in layers if isinstance(layer, nn.BatchNorm2d))
        pools = [layer for layer in layers if isinstance(layer, nn.MaxPool2d | nn.AvgPool2d)]
        return cls(column, edge, op, convolutions, norms, pools[0] if pools else None)


@dataclass(frozen=True)
class Chunk:
    """Terms `first` to `last` - 1 of a family: one op on neighbouring edges, the first of them `edge`, in one call."""

    first: int
    last: int
    edge: int
    dilation: int

    @property
    def width(self) -> int:
        """Edges side by side."""
        return self.last - self.first

    @property
    def terms(self) -> slice:
        """Its part of the family."""
        return slice(self.first, self.last)


@dataclass(frozen=True)
class Family:
    """Terms that are computed alike, sorted by column and edge; at most `width` neighbouring edges in one call."""

    terms: tuple[Term, ...]
    width: int = 1

    @cached_property
    def chunks(self) -> tuple[Chunk, ...]:
        """The terms in runs of neighbouring edges with the same op."""
        found: list[Chunk] = []
        for i, term in enumerate(self.terms):
            before = self.terms[i - 1] if i else None
            joins = before is not None and (before.column, before.edge + 1) == (term.column, term.edge)
            if joins and found[-1].width < self.width:
                found[-1] = Chunk(found[-1].first, i + 1, found[-1].edge, found[-1].dilation)
            else:
                found.append(Chunk(i, i + 1, term.edge, int(term.convolutions[0].dilation[0])))
        return tuple(found)

    def norm(self, index: int) -> Normalisation:
        """The `index`-th normalisation of its terms."""
        return Normalisation([term.norms[index] for term in self.terms])

    def weights(self, index: int) -> list[Tensor]:
        """The weights of the `index`-th convolution of each term."""
        return [term.convolutions[index].weight for term in self.terms]


class Normalisation:
    """The same layer of each of some terms: their statistics, and whether they or the batch's count."""

    buffers = ("running_mean", "running_var")

    def __init__(self, layers: Sequence[nn.BatchNorm2d]) -> None:
        self.layers, self.batch, self.eps = layers, layers[0].training, layers[0].eps

    def fold(self, W: Tensor, moments: Moments | None) -> Affine:
        """The affine maps of `W` [n, C, K] by the batch's `moments` (None: by the running statistics)."""
        if moments is None:
            return pointwise.fold_given(W, *self.running(), self.eps)
        affine = pointwise.fold(W, moments, self.eps)
        self.move(affine.mean, affine.var, moments.count)
        return affine

    def running(self) -> tuple[Tensor, Tensor]:
        """The running means and variances [n, C]."""
        mean, var = (torch.stack([getattr(layer, name) for layer in self.layers]) for name in self.buffers)
        return mean, var

    def move(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Moves the running statistics as `nn.BatchNorm2d` does, by `mean` and `var` [n, C] of a batch of `count` pixels."""
        if not self.layers[0].track_running_stats:
            return
        step = self.layers[0].momentum
        for name, news in zip(self.buffers, (mean, var * (count / max(count - 1, 1))), strict=True):
            olds = [getattr(layer, name) for layer in self.layers]
            torch._foreach_lerp_(olds, list(news.expand(len(olds), -1).unbind()), step)
        torch._foreach_add_([layer.num_batches_tracked for layer in self.layers], 1)


class Sums:
    """What flows along each edge that leaves a state: a matrix [P, C] per edge, which neighbours have side by side."""

    def __init__(self, x: Tensor, pixels: int, edges: int, width: int) -> None:
        self.channels = x.shape[1]
        if width == 1:  # apart, because a product is slower where the rows of its sum are far from one another
            self.each = [x.new_empty(pixels, self.channels) for _ in range(edges)]
        else:
            self.whole = x.new_empty(pixels, edges * self.channels)
            self.each = list(self.whole.chunk(edges, dim=1))
        self.begun = [False] * edges

    def add(self, family: Family, ds: Sequence[Tensor], affine: Affine, s: Tensor) -> None:
        """Adds s (A d + b) for every term of `family`; `ds` [P, width * K] per chunk, `s` [n]."""
        maps = (affine.A * s[:, None, None]).to(ds[0].dtype)
        for term in family.terms:
            self._begin(term.edge)
        for chunk, d in zip(family.chunks, ds, strict=True):
            add_mapped(self._of(chunk), d, maps[chunk.terms])
        if affine.b is not None:
            for term, shift in zip(family.terms, (affine.b * s[:, None]).to(ds[0].dtype), strict=True):
                self.each[term.edge] += shift

    def add_even(self, term: Term, f: Tensor, scale: Tensor) -> None:
        """Adds f [P, C] times `scale` [C] or [] to the term's edge."""
        if self.begun[term.edge]:
            self.each[term.edge].addcmul_(f, scale)
        else:
            torch.mul(f, scale, out=self.each[term.edge])
            self.begun[term.edge] = True

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

    def __init__(self, each: Sequence[Tensor]) -> None:
        self.each = each
        self._joined: dict[tuple[int, int], Tensor] = {}
        self._totals: dict[int, Tensor] = {}

    def of(self, chunk: Chunk) -> Tensor:
        """Those of a chunk side by side, [P, width * C]."""
        if chunk.width == 1:
            return self.each[chunk.edge]
        key = chunk.edge, chunk.width
        if key not in self._joined:
            self._joined[key] = torch.cat(self.each[chunk.edge : chunk.edge + chunk.width], dim=1)
        return self._joined[key]

    def totals(self, family: Family) -> Tensor:
        """The sums over pixels for each term, [n, C]."""
        for term in family.terms:
            if term.edge not in self._totals:
                self._totals[term.edge] = at_least_float32(self.each[term.edge]).sum(0)
        return torch.stack([self._totals[term.edge] for term in family.terms])


@dataclass(frozen=True)
class Wanted:
    """Which gradients a backward is asked for."""

    state: bool
    weights: bool


@dataclass
class Found:
    """What a backward found: the shares' gradients [n], those to the state and to its ReLU, those to each term's weights."""

    shares: Tensor
    x: list[Tensor] = field(default_factory=list)
    r: list[Tensor] = field(default_factory=list)
    weights: list[tuple[Tensor, ...]] = field(default_factory=list)


class Part(Protocol):
    """See the top of this file."""

    family: Family

    def forward(self, x: Tensor, r: Tensor, s: Tensor, sums: Sums) -> list[Tensor]:
        """Adds its ops to `sums`; returns what `backward` needs."""

    def backward(self, x: Tensor, r: Tensor, saved: Sequence[Tensor], s: Tensor, slopes: Slopes, wanted: Wanted) -> Found:
        """The gradients, given `slopes`: those to the sums of the edges."""


class _Stage:
    """Depthwise convolutions and the normalised 1x1 convolutions after them: the first or second pair of a family."""

    def __init__(self, family: Family, pair: int, stride: int) -> None:
        self.chunks, self.stride = family.chunks, stride if pair == 0 else 1
        kernels = family.weights(2 * pair)
        self.kernels = [kernels[c.first] if c.width == 1 else torch.cat(kernels[c.terms]) for c in self.chunks]
        self.weight = torch.stack(family.weights(2 * pair + 1)).flatten(2)
        self.norm = family.norm(pair)
        self.moments: Moments | None = None
        self.affine: Affine

    def forward(self, input_of: Callable[[int], Tensor]) -> list[Tensor]:
        """The depthwise outputs, an image [N, width * C, H', W'] per chunk; leaves `affine` behind."""
        ds = []
        for i, (kernel, chunk) in enumerate(zip(self.kernels, self.chunks, strict=True)):
            x = input_of(i)
            d = depthwise(x, kernel.to(x.dtype), self.stride, chunk.dilation)
            ds.append(d.contiguous(memory_format=torch.channels_last))
        if self.norm.batch:
            self.moments = pointwise.centred_moments([rows(d) for d in ds], [c.width for c in self.chunks])
        self.affine = self.norm.fold(self.weight, self.moments)
        return ds

    def activated(self, d: Tensor, index: int) -> Tensor:
        """ReLU of the normalised output of chunk `index`, an image."""
        terms = self.chunks[index].terms
        flat = mapped(rows(d), self.affine.A[terms].to(d.dtype))
        if self.affine.b is not None:
            flat += self.affine.b[terms].flatten().to(d.dtype)
        return image(flat.relu_(), d)

    def backward(
        self,
        input_of: Callable[[int], Tensor],
        ds: Sequence[Tensor],
        gs: Sequence[Tensor],
        totals: Tensor,
        s: Tensor | None,
        wanted: Wanted,
    ) -> tuple[Tensor, list[Tensor], list[tuple[Tensor, Tensor]]]:
        """From the gradients `gs` [P, width * C] to s (A d + b), chunk by chunk, and their `totals` [n, C]: those to the
        shares [n], to the inputs (an image per chunk) and to the weights (kernel and 1x1 kernel per term); the last two
        empty where not wanted."""
        Q = torch.cat([products(g, rows(d), c.width) for g, d, c in zip(gs, ds, self.chunks, strict=True)])
        pulled = pointwise.pull(self.weight, self.affine, self.moments, Q, totals, s)
        inputs: list[Tensor] = []
        kernels: list[Tensor] = []
        for i, (d, g, chunk) in enumerate(zip(ds, gs, self.chunks, strict=True)):
            if not (wanted.state or wanted.weights):
                break
            dd = image(pulled.input(g, rows(d), chunk.terms), d)
            x = input_of(i)
            kernel = self.kernels[i].to(x.dtype)
            if wanted.weights:
                found = kernel_gradient(dd, x, kernel, self.stride, chunk.dilation)
                kernels += found.to(self.weight.dtype).chunk(chunk.width)
            if wanted.state:
                inputs.append(input_gradient(dd, x, kernel, self.stride, chunk.dilation))
        return pulled.share.sum(-1), inputs, list(zip(kernels, pulled.weight[..., None, None].unbind(), strict=False))


class Separable:
    """Ops of two depthwise separable convolutions."""

    def __init__(self, family: Family, stride: int) -> None:
        self.family = family
        self.first, self.second = _Stage(family, 0, stride), _Stage(family, 1, stride)

    def forward(self, x: Tensor, r: Tensor, s: Tensor, sums: Sums) -> list[Tensor]:
        """Saves both depthwise outputs and what is between them."""
        wide = _Wide(r, self.family)
        first = self.first.forward(wide.of)
        between = [self.first.activated(d, i) for i, d in enumerate(first)]
        second = self.second.forward(between.__getitem__)
        sums.add(self.family, [rows(d) for d in second], self.second.affine, s)
        return [*first, *between, *second]

    def backward(self, x: Tensor, r: Tensor, saved: Sequence[Tensor], s: Tensor, slopes: Slopes, wanted: Wanted) -> Found:
        """Through the second pair, the ReLU between, and the first pair."""
        n = len(self.family.chunks)
        first, between, second = saved[:n], saved[n : 2 * n], saved[2 * n :]
        gs = [slopes.of(chunk) for chunk in self.family.chunks]
        through = Wanted(wanted.state or wanted.weights, wanted.weights)
        shares, inner, last = self.second.backward(
            between.__getitem__, second, gs, slopes.totals(self.family), s, through
        )
        if not through.state:
            return Found(shares)
        gs = [rows(torch.ops.aten.threshold_backward(g, z, 0)) for g, z in zip(inner, between, strict=True)]
        totals = torch.cat([at_least_float32(g).sum(0).view(c.width, -1) for g, c in zip(gs, self.family.chunks)])
        wide = _Wide(r, self.family)
        _, outer, weights = self.first.backward(wide.of, first, gs, totals, None, wanted)
        pairs = [(*a, *b) for a, b in zip(weights, last, strict=True)]
        return Found(shares, r=wide.gathered(outer), weights=pairs)


class Dilated:
    """Ops of one depthwise separable convolution."""

    def __init__(self, family: Family, stride: int) -> None:
        self.family, self.only = family, _Stage(family, 0, stride)

    def forward(self, x: Tensor, r: Tensor, s: Tensor, sums: Sums) -> list[Tensor]:
        """Saves the depthwise outputs."""
        ds = self.only.forward(_Wide(r, self.family).of)
        sums.add(self.family, [rows(d) for d in ds], self.only.affine, s)
        return ds

    def backward(self, x: Tensor, r: Tensor, saved: Sequence[Tensor], s: Tensor, slopes: Slopes, wanted: Wanted) -> Found:
        """Through the one pair."""
        wide = _Wide(r, self.family)
        gs = [slopes.of(chunk) for chunk in self.family.chunks]
        shares, inner, weights = self.only.backward(wide.of, saved, gs, slopes.totals(self.family), s, wanted)
        return Found(shares, r=wide.gathered(inner), weights=list(weights))


class Halving:
    """`FactorizedReduce` on every edge: its two 1x1 convolutions read the even and the odd pixels of one state."""

    def __init__(self, family: Family) -> None:
        even, odd = (torch.stack(family.weights(i)).flatten(2) for i in range(2))
        n, self.half, self.inputs = even.shape
        self.family, self.norm = family, family.norm(0)
        self.weight = even.new_zeros(n, 2 * self.half, 2 * self.inputs)
        self.weight[:, : self.half, : self.inputs] = even
        self.weight[:, self.half :, self.inputs :] = odd
        self.moments: Moments | None = None
        self.affine: Affine

    def forward(self, x: Tensor, r: Tensor, s: Tensor, sums: Sums) -> list[Tensor]:
        """Saves the even and odd pixels side by side."""
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"halving the resolution needs even sides, not {x.shape[2]} x {x.shape[3]}")
        d = torch.cat([rows(r[:, :, ::2, ::2]), rows(r[:, :, 1::2, 1::2])], dim=1)
        if self.norm.batch:
            self.moments = pointwise.centred_moments([d], [1])
        self.affine = self.norm.fold(self.weight, self.moments)
        sums.add(self.family, [d] * len(self.family.terms), self.affine, s)
        return [d]

    def backward(self, x: Tensor, r: Tensor, saved: Sequence[Tensor], s: Tensor, slopes: Slopes, wanted: Wanted) -> Found:
        """All edges read one matrix, so their gradients to it are summed before they are spread over the pixels."""
        (d,) = saved
        gs = [slopes.each[term.edge] for term in self.family.terms]
        Q = torch.cat([products(g, d, 1) for g in gs])
        pulled = pointwise.pull(self.weight, self.affine, self.moments, Q, slopes.totals(self.family), s)
        found = Found(pulled.share.sum(-1))
        if wanted.weights:
            half, inputs = self.half, self.inputs
            found.weights = [(w[:half, :inputs, None, None], w[half:, inputs:, None, None]) for w in pulled.weight]
        if wanted.state:
            dd = pulled.input(gs[0], d, slice(0, 1))
            for i, g in enumerate(gs[1:], 1):
                dd += pulled.input(g, d, slice(i, i + 1))
            spread = torch.zeros_like(r)
            for at, part in enumerate(dd.chunk(2, dim=1)):
                target = spread[:, :, at::2, at::2]
                target.copy_(image(part.contiguous(), target))
            found.r = [spread]
        return found


class Identity:
    """The state itself on every edge."""

    def __init__(self, family: Family) -> None:
        self.family = family

    def forward(self, x: Tensor, r: Tensor, s: Tensor, sums: Sums) -> list[Tensor]:
        """Saves nothing."""
        for term, share in zip(self.family.terms, s.to(x.dtype), strict=True):
            sums.add_even(term, rows(x), share)
        return []

    def backward(self, x: Tensor, r: Tensor, saved: Sequence[Tensor], s: Tensor, slopes: Slopes, wanted: Wanted) -> Found:
        """The share's gradient is an inner product of images."""
        gs = [slopes.each[term.edge] for term in self.family.terms]
        found = Found(torch.stack([_products(g, rows(x)).sum() for g in gs]))
        if wanted.state:
            total = gs[0] * s[0].to(x.dtype)
            for g, share in zip(gs[1:], s[1:].to(x.dtype), strict=True):
                total.addcmul_(g, share)
            found.x = [image(total, x)]
        return found


class Pool:
    """One pool and its normalisation, the same on every edge but for the running statistics."""

    def __init__(self, family: Family, stride: int) -> None:
        self.family, self.stride = family, stride
        self.norm = family.norm(0)
        self.inv: Tensor
        self.b: Tensor | None = None

    def forward(self, x: Tensor, r: Tensor, s: Tensor, sums: Sums) -> list[Tensor]:
        """Saves the pooled state (centred, where the batch's statistics count) and where its maxima were."""
        pooled, where = self._pool(x)
        pooled = pooled.contiguous(memory_format=torch.channels_last)
        flat = rows(pooled)
        n = len(self.family.terms)
        if self.norm.batch:
            mean = at_least_float32(flat).mean(0)
            exact = at_least_float32(flat.sub_(mean.to(flat.dtype)))
            var = (exact * exact).mean(0)
            self.norm.move(mean, var, len(flat))
            self.inv = torch.rsqrt(var + self.norm.eps).expand(n, -1)
        else:
            mean, var = self.norm.running()
            self.inv = torch.rsqrt(var + self.norm.eps)
            self.b = -mean * self.inv
        for i, (term, scale) in enumerate(zip(self.family.terms, s[:, None] * self.inv, strict=True)):
            sums.add_even(term, flat, scale.to(flat.dtype))
            if self.b is not None:
                sums.each[term.edge] += (s[i] * self.b[i]).to(flat.dtype)
        return [pooled, *where]

    def backward(self, x: Tensor, r: Tensor, saved: Sequence[Tensor], s: Tensor, slopes: Slopes, wanted: Wanted) -> Found:
        """Normalised once for all edges, then pooled back once."""
        pooled, *where = saved
        flat = rows(pooled)
        gs = [slopes.each[term.edge] for term in self.family.terms]
        shares = torch.stack([_products(g, flat) for g in gs]) * self.inv
        q = slopes.totals(self.family)
        if self.b is not None:
            shares = shares + self.b * q
        found = Found(shares.sum(-1))
        if wanted.state:
            scale = s[:, None] * self.inv
            total = gs[0] * scale[0].to(flat.dtype)
            for g, a in zip(gs[1:], scale[1:].to(flat.dtype), strict=True):
                total.addcmul_(g, a)
            if self.b is None:
                total.addcmul_(flat, -((scale * self.inv * shares).mean(0) * (len(gs) / len(flat))).to(flat.dtype))
                total -= ((scale * q).sum(0) / len(flat)).to(flat.dtype)
            found.x = [self._pool_gradient(image(total, pooled), x, where)]
        return found

    @property
    def _sizes(self) -> tuple[list[int], list[int], list[int]]:
        return [3, 3], [self.stride] * 2, [1, 1]

    def _pool(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        if isinstance(self.family.terms[0].pool, nn.MaxPool2d):
            pooled, where = torch.ops.aten.max_pool2d_with_indices(x, *self._sizes)
            return pooled, [where]
        return torch.ops.aten.avg_pool2d(x, *self._sizes, False, False), []

    def _pool_gradient(self, g: Tensor, x: Tensor, where: Sequence[Tensor]) -> Tensor:
        if where:
            return torch.ops.aten.max_pool2d_with_indices_backward(g, x, *self._sizes, [1, 1], False, where[0])
        return torch.ops.aten.avg_pool2d_backward(g, x, *self._sizes, False, False, None)


class _Wide:
    """A state repeated along its channels, as wide as each chunk of a family is."""

    def __init__(self, x: Tensor, family: Family) -> None:
        self.x, self.chunks = x, family.chunks
        self._copies: dict[int, Tensor] = {1: x}

    def of(self, index: int) -> Tensor:
        """The input of chunk `index`: [N, width * C, H, W]."""
        width = self.chunks[index].width
        if width not in self._copies:
            self._copies[width] = self.x.repeat(1, width, 1, 1).contiguous(memory_format=torch.channels_last)
        return self._copies[width]

    def gathered(self, grads: Sequence[Tensor]) -> list[Tensor]:
        """The gradients to the inputs of the chunks as gradients to the state."""
        c = self.x.shape[1]
        found = [g for g in grads if g.shape[1] == c]
        wide: dict[int, Tensor] = {}
        for g in grads:
            if g.shape[1] > c:
                wide[g.shape[1]] = wide[g.shape[1]] + g if g.shape[1] in wide else g
        for width, g in wide.items():
            adder = torch.eye(c, dtype=g.dtype, device=g.device).repeat(width // c, 1)  # a product is faster than a sum
            found.append(image(rows(g) @ adder, g))
        return found


def _products(g: Tensor, f: Tensor) -> Tensor:
    """[C]: the sum over rows of g f."""
    return (at_least_float32(g) * f).sum(0)
