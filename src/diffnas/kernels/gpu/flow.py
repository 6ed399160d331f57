"""A pass through what leaves a state, and the way back: which kernel is launched when.

images = expand(state)      terms = fold(their statistics)                        inner terms, once more:
sources = images MAP        images' = expand(relu(sources + SHIFT))               terms' = fold(...)
edges = mix(images, images')
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from diffnas.kernels.gpu import layout as at
from diffnas.kernels.gpu import ops
from diffnas.kernels.gpu.layout import Layout, parts


class Flow:
    """What one pass keeps: the tensors of a state `x` [N, C, H, W] and of all that is made from it.

    `flat` holds the weights (see `Layout.flat`), `shares` all shares of the edges, `given` [2, T, C] the statistics to
    normalise by (None: the batch's); `rows` is how many pixels one program sums up.
    """

    def __init__(
        self,
        layout: Layout,
        x: Tensor,
        stride: int,
        flat: Tensor,
        shares: Tensor,
        given: Tensor | None,
        eps: float,
        rows: int = at.ROWS,
    ) -> None:
        n, c, h, w = x.shape
        self.layout, self.stride, self.flat, self.shares = layout, stride, flat, shares
        self.given, self.eps, self.rows = given, eps, rows
        self.images, self.terms, self.edges = layout.tables(x.device)
        self.out = n, -(-h // stride), -(-w // stride), c
        self.pixels = n * self.out[1] * self.out[2]
        self.first = layout.images - layout.inner  # of the images that are not made of the state itself
        self.d = x.new_empty(layout.images, self.pixels, c)
        self.where = x.new_empty(layout.maxima, self.pixels, c, dtype=torch.uint8)
        self.matrices = flat.new_empty(4, layout.terms, c, c)
        self.vectors = flat.new_empty(6, layout.terms, c)

    def with_images(self, d: Tensor, where: Tensor) -> Flow:
        """The same pass with these images."""
        flow = copy.copy(self)
        flow.d, flow.where = d, where
        return flow

    def without_images(self) -> Flow:
        """The same pass without its images, which autograd keeps, or makes again."""
        return self.with_images(self.d.new_empty(0), self.where.new_empty(0))

    def source(self, x: Tensor) -> Tensor:
        """The state as a source of images, [1, N, H, W, C]."""
        return x.permute(0, 2, 3, 1)[None]

    # -- forward

    def expand(self, source: Tensor, shift: Tensor | None, first: int, last: int, stride: int) -> None:
        """Makes the images from `first` to `last` - 1 of `source` [S, N, H, W, C], and the maps of their terms."""
        means, squares = self.make(source, shift, first, last, stride)
        ops.fold(
            means, squares, self.flat, self.terms, self.shares, self.given, self.layout.begin(first),
            self.layout.begin(last), first, self.pixels, self.rows, self.eps, self.matrices, self.vectors,
        )  # fmt: skip

    def make(self, source: Tensor, shift: Tensor | None, first: int, last: int, stride: int) -> tuple[Tensor, Tensor]:
        """Makes images; returns the means and the sums of squares of their runs of pixels."""
        c, runs = self.layout.channels, parts(self.pixels, self.rows)
        means = self.flat.new_empty(runs, last - first, c)
        squares = self.flat.new_empty(runs, last - first, c, c)
        images, d = self.images[first:last], self.d[first:last]
        ops.expand(source, shift, self.flat, images, stride, self.rows, d, self.where, means, squares)
        return means, squares

    def between(self) -> Tensor:
        """What inner terms make of their images, without its shift: [inner, N, H, W, C]."""
        inner = self.layout.inner
        maps = self.matrices[at.MAP, :inner].to(self.d.dtype)
        return torch.bmm(self.d[:inner], maps).view(inner, *self.out)

    @property
    def inner_shift(self) -> Tensor:
        """[inner, C]: what completes `between`."""
        return self.vectors[at.SHIFT, : self.layout.inner]

    def mix(self) -> Tensor:
        """What flows along each edge, [E, N, H, W, C]."""
        found = self.d.new_empty(self.layout.edges, self.pixels, self.layout.channels)
        ops.mix(self.d, self.matrices, self.vectors, self.terms, self.edges, found)
        return found.view(-1, *self.out)

    def statistics(self, term: int) -> tuple[Tensor, Tensor]:
        """The mean and the unbiased variance [C] of what a term puts out, before it is normalised."""
        return self.vectors[at.YMEAN, term], self.vectors[at.YVAR, term]

    # -- backward

    def pull(self, g: Tensor, first: int, last: int, to_flat: Tensor, to_shares: Tensor) -> None:
        """From the gradients `g` [., P, C] to what terms `first` to `last` - 1 put out: those of weights and shares."""
        c, runs = self.layout.channels, parts(self.pixels, self.rows)
        outer = self.flat.new_empty(runs, last - first, c, c)
        totals = self.flat.new_empty(runs, last - first, c)
        ops.products(g, self.d, self.vectors, self.terms, first, self.rows, outer, totals)
        ops.pull(
            outer, totals, self.flat, self.terms, self.shares, self.given, first, self.pixels, self.matrices,
            self.vectors, to_flat, to_shares,
        )  # fmt: skip

    def slopes(self, g: Tensor, first: int, out: Tensor) -> None:
        """Writes the gradients to the images from `first` on, as many as `out` [n, P, C] has."""
        ops.slopes(g, self.d, self.matrices, self.vectors, self.images, self.terms, first, out)

    def kernel_slopes(
        self, slope: Tensor, source: Tensor, shift: Tensor | None, first: int, stride: int, out: Tensor
    ) -> None:
        """Writes the gradients to the depthwise kernels of the images from `first` on, from those to the images."""
        images, taps = self.images[first : first + len(slope)], self.layout.side**2
        ops.kernel_slopes(slope, source, shift, images, stride, self.rows, taps, out)

    def state_slope(self, slope: Tensor, source: Tensor, shift: Tensor | None, first: int, stride: int) -> Tensor:
        """The gradient to the `source` of the images from `first` on, from those to the images."""
        found = torch.empty(source.shape, dtype=source.dtype, device=source.device)
        images = self.images[first : first + len(slope)]
        ops.state_slope(slope, source, shift, self.where, self.flat, images, stride, found)
        return found


def separable_forward(flow: Flow, x: Tensor) -> tuple[Tensor, Tensor]:
    """What flows along each edge, [E, N, H, W, C], and what stands `between` the images of inner terms."""
    flow.expand(flow.source(x), None, 0, flow.first, flow.stride)
    between = flow.d.new_empty(0)
    if flow.layout.inner:
        between = flow.between()
        flow.expand(between, flow.inner_shift, flow.first, flow.layout.images, 1)
    return flow.mix(), between


def separable_backward(
    flow: Flow, x: Tensor, between: Tensor, g: Tensor, to_shares: bool, to_state: bool, to_weights: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients to the shares, the state [N, C, H, W] and `flat` (None: not wanted) from `g` [E, N, H, W, C]."""
    layout, inner, first = flow.layout, flow.layout.inner, flow.first
    nothing = flow.flat.new_empty(0)
    flat_slope = torch.empty_like(flow.flat) if to_weights else nothing
    share_slopes = torch.zeros_like(flow.shares) if to_shares else nothing
    runs = flow.flat.new_empty(parts(flow.pixels, flow.rows), layout.taps) if to_weights else nothing
    g = g.flatten(1, 3)
    flow.pull(g, inner, layout.terms, flat_slope, share_slopes)
    dx = None
    if to_state or to_weights:
        slope = flow.d.new_empty(flow.d.shape)
        flow.slopes(g, inner, slope[inner:])
        source = flow.source(x)
        if inner:
            last, shift = slope[first:], flow.inner_shift
            if to_weights:
                flow.kernel_slopes(last, between, shift, first, 1, runs)
            inside = flow.state_slope(last, between, shift, first, 1).flatten(1, 3)
            flow.pull(inside, 0, inner, flat_slope, nothing)
            flow.slopes(inside, 0, slope[:inner])
        if to_weights and layout.taps:
            flow.kernel_slopes(slope[:first], source, None, 0, flow.stride, runs)
        if to_state:
            dx = flow.state_slope(slope[:first], source, None, 0, flow.stride)[0].permute(0, 3, 1, 2)
        if to_weights and layout.taps:
            torch.sum(runs, 0, out=flat_slope[: layout.taps])
    return share_slopes if to_shares else None, dx, flat_slope if to_weights else None
