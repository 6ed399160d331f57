"""1x1 convolutions followed by a normalisation and a share, as algebra on small matrices.

A mixed op ends in y = W d (a 1x1 convolution), its normalisation without affine parameters, and a share s; a node adds up
many of these.  Neither y nor its normalised form is ever made.  With the moments of d over batch and pixels, its mean m and
its covariance K, the statistics of y are

    mean = W m        var = diag(W K W')

and with d centred in place the whole chain is one map, s A d with A = W / sigma (s (A d + b) where the statistics are given
instead), so a node is a sum of matrix products.  Backward, with the gradient G to the node, only Q = sum G d' is summed over
pixels; the gradients of the share and of W, and the map that takes (G, d) to the gradient of d, follow from Q on [C, C]
matrices.

Pixels are rows: an image [N, C, H, W] in channels_last is the matrix [P, C] with P = N H W.  Terms (one op on one edge)
are stacked along n; d has K channels, y has C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Of the inputs d, over `count` pixels: their `mean` [n, K] and their `covariance` [n, K, K]."""

    mean: Tensor
    covariance: Tensor
    count: int


@dataclass(frozen=True)
class Affine:
    """The normalised 1x1 convolution y -> A d + b: `A` [n, C, K], `b` [n, C] (None: 0, where d is centred).

    `mean`, `var` and `inv` (1 / sigma) [n, C] are the statistics of y.
    """

    A: Tensor
    b: Tensor | None
    mean: Tensor
    var: Tensor
    inv: Tensor


@dataclass(frozen=True)
class Pulled:
    """What a gradient G to s (A d + b) becomes, term by term.

    `share` [n, C] sums up to the gradient of s.  `weight` [n, C, K] (None: not wanted).  The gradient to d is, row by row of P,
    G `from_g` + d `from_d` + `constant`, with `from_g` [n, C, K], `from_d` [n, K, K] and `constant` [n, K].
    """

    share: Tensor
    weight: Tensor | None
    from_g: Tensor
    from_d: Tensor | None
    constant: Tensor | None

    def input(self, g: Tensor, d: Tensor, first: int, last: int) -> Tensor:
        """The gradient to `d` [P, w * K] from `g` [P, w * C], the terms `first` to `last` - 1 side by side."""
        from_g = cast(self.from_g[first:last], g)
        if self.from_d is None or self.constant is None:
            return mapped(g, from_g.mT)
        constant = cast(self.constant[first:last].flatten(), g)
        if last - first == 1:
            found = torch.addmm(constant, g, from_g[0])
        else:
            found = mapped(g, from_g.mT)
            found += constant
        add_mapped(found, d, cast(self.from_d[first:last], g))
        return found


def centred_moments(d: Tensor, width: int) -> Moments:
    """The mean, and the covariance times P, of `d` [P, w * K], `width` terms side by side.  Centres it in place."""
    mean = at_least_float32(d).mean(0)
    d -= cast(mean, d)
    return Moments(mean.view(width, -1), products(d, d, width), len(d))


def joined(parts: Sequence[Moments]) -> Moments:
    """The moments of `centred_moments`, all terms together and divided by their number."""
    count = parts[0].count
    means = torch.cat([part.mean for part in parts])
    return Moments(means, torch.cat([part.covariance for part in parts]) / count, count)


def at_least_float32(x: Tensor) -> Tensor:
    """`x`, widened where it is of half precision: sums over pixels and differences of them need the digits."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def cast(x: Tensor, like: Tensor) -> Tensor:
    """`x` in the precision of `like`."""
    return x if x.dtype == like.dtype else x.to(like.dtype)


def rows(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [P, C], without a copy where `x` is in channels_last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def image(x: Tensor, like: Tensor) -> Tensor:
    """[P, C] -> [N, C, H, W] in channels_last, the sizes (but C) of `like`; never a copy."""
    n, _, h, w = like.shape
    return x.view(n, h, w, x.shape[1]).permute(0, 3, 1, 2)


def fold(W: Tensor, moments: Moments, eps: float) -> Affine:
    """The map of every term on centred inputs, normalised by the statistics of the batch; `W` [n, C, K]."""
    var = ((W @ moments.covariance) * W).sum(-1).clamp_min(0.0)
    inv = torch.rsqrt(var + eps)
    mean = (W @ moments.mean.unsqueeze(-1)).squeeze(-1)
    return Affine(W * inv.unsqueeze(-1), None, mean, var, inv)


def fold_given(W: Tensor, mean: Tensor, var: Tensor, eps: float) -> Affine:
    """The map of every term, normalised by given statistics [n, C]."""
    inv = torch.rsqrt(var + eps)
    return Affine(W * inv.unsqueeze(-1), -mean * inv, mean, var, inv)


def pull(
    W: Tensor, affine: Affine, moments: Moments | None, Q: Tensor, q: Tensor, s: Tensor | None, weight: bool = True
) -> Pulled:
    """The gradients of s (A d + b) from Q = sum G d' [n, C, K] and q = sum G [n, C]; `s` [n] (None: 1).

    `moments` are those the terms were normalised by; None where the statistics were given, and so have no gradient.
    """
    scale = affine.inv if s is None else affine.inv * s.unsqueeze(-1)
    share = (affine.A * Q).sum(-1)  # the sum of G times the normalised output
    if affine.b is not None:
        share = share + affine.b * q
    from_g = W * scale.unsqueeze(-1)
    if moments is None:
        return Pulled(share, scale.unsqueeze(-1) * Q if weight else None, from_g, None, None)
    back = from_g.mT / moments.count
    from_d = -(back * share.unsqueeze(-2)) @ affine.A
    constant = -(back @ q.unsqueeze(-1)).squeeze(-1)
    to_weight = None
    if weight:
        to_weight = scale.unsqueeze(-1) * (Q - share.unsqueeze(-1) * (affine.A @ moments.covariance))
    return Pulled(share, to_weight, from_g, from_d, constant)


def products(g: Tensor, d: Tensor, width: int) -> Tensor:
    """sum G d' of `width` pairs of matrices side by side: [P, w * C], [P, w * K] -> [w, C, K]."""
    g, d = at_least_float32(g), at_least_float32(d)
    if width == 1:
        return (g.T @ d).unsqueeze(0)
    if d.shape[1] >= _NARROW * width:
        return torch.bmm(_apart(g, width).mT, _apart(d, width))
    whole = (g.T @ d).view(width, g.shape[1] // width, width, d.shape[1] // width)
    return whole.diagonal(dim1=0, dim2=2).permute(2, 0, 1)


def mapped(d: Tensor, maps: Tensor) -> Tensor:
    """Each matrix of `d` [P, w * K] by its map [w, C, K], side by side: [P, w * C]."""
    width, c, k = maps.shape
    if width == 1:
        return d @ maps[0].T
    if k < _NARROW:
        return d @ _diagonal(maps).T
    found = d.new_empty(len(d), width * c)
    torch.bmm(_apart(d, width), maps.mT, out=_apart(found, width))
    return found


def add_mapped(y: Tensor, d: Tensor, maps: Tensor) -> None:
    """Adds `mapped(d, maps)` to `y`."""
    width, _, k = maps.shape
    if width == 1:
        y.addmm_(d, maps[0].T)
    elif k < _NARROW:
        y.addmm_(d, _diagonal(maps).T)
    else:
        _apart(y, width).baddbmm_(_apart(d, width), maps.mT)


_NARROW = 16  # with fewer channels one product with zeros in it is faster than a batch of small ones


def _apart(x: Tensor, width: int) -> Tensor:
    """[P, w * C] as [w, P, C]."""
    return x.view(len(x), width, -1).transpose(0, 1)


def _diagonal(maps: Tensor) -> Tensor:
    """The matrix [w * C, w * K] with the maps on its diagonal."""
    width, c, k = maps.shape
    whole = maps.new_zeros(width, c, width, k)
    whole.diagonal(dim1=0, dim2=2).copy_(maps.permute(1, 2, 0))
    return whole.view(width * c, width * k)
