"""The part that computes a state's convolutions, pools and identities by compiled kernels (see `kernels.native`).

It does what the parts in `ops` do, image by image instead of op by op: an image stays in the cache while all that leaves a
state is computed from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from diffnas.kernels import native
from diffnas.kernels.native.terms import Pair, Term
from diffnas.kernels.pointwise import cast
from diffnas.spaces.darts_cnn.fused.buffers import EdgeGradients, EdgeOp, EdgeSums, NeedsGrad, OpGradients, State, Terms
from diffnas.spaces.darts_cnn.ops import FactorizedReduce
from diffnas.spaces.statistics import RunningStatsUpdates, require_statistics

if TYPE_CHECKING:
    from diffnas.kernels.native.table import Layout

SIDES = (3, 5, 7)
Layouts = dict[tuple[object, ...], "Layout"]


def known(terms: Iterable[EdgeOp]) -> bool:
    """Whether there are kernels for the layers of all terms (halvings aside), whatever their numbers."""
    mine = [term for term in terms if not isinstance(term.op, FactorizedReduce)]
    depthwise = [layer for term in mine for layer in term.convolutions[::2]]
    return all(
        layer.kernel_size[0] in SIDES and layer.kernel_size[0] == layer.kernel_size[1] and layer.dilation[0] in (1, 2)
        for layer in depthwise
    ) and all(norm.momentum is not None and norm.running_var is not None for term in mine for norm in term.norms)


def fits(x: Tensor, terms: Iterable[EdgeOp]) -> bool:
    """Whether this machine has kernels for these numbers; the layers of `terms` are `known`."""
    dtype = x.dtype
    return (
        x.device.type == "cpu"
        and dtype in (torch.float32, torch.float64)
        and x.shape[1] % 4 == 0
        and x.numel() > 0
        and native.usable()
        and all(w.dtype == dtype and w.is_contiguous() for term in terms for w in term.weights)
    )


class Native:
    """All terms of a state but halvings: identities, pools, separable and dilated convolutions, in this order.

    `layouts` are those that were made for earlier passes.
    """

    def __init__(self, terms: Terms, stride: int, layouts: Layouts) -> None:
        self.terms, self.stride, self.layouts = terms, stride, layouts
        self.training = terms[-1].op.training
        self.layout: Layout

    def forward(self, state: State, s: Tensor, sums: EdgeSums, moves: RunningStatsUpdates) -> list[Tensor]:
        """Saves one tensor, in which all that is needed stands."""
        self.layout = self._layout(state.x, len(sums.each))
        if self.training and any(term.norms for term in self.terms):
            require_statistics(self.layout.n * self.layout.pixels)
        kept = self.layout.forward(state.x, cast(s, state.x).contiguous(), sums.each)
        for term in self.terms:
            sums.begun[term.edge] = True
        return [kept]

    def backward(
        self, state: State, saved: Sequence[Tensor], s: Tensor, slopes: EdgeGradients, wanted: NeedsGrad
    ) -> OpGradients:
        """The gradients that are wanted."""
        shares = cast(s, state.x).contiguous()
        to_shares, dx, dw = self.layout.backward(state.x, shares, saved[0], slopes.each, wanted.state, wanted.weights)
        found = OpGradients(to_shares, x=dx)
        if dw is not None:
            flat = iter(torch._utils._unflatten_dense_tensors(dw, [w for term in self.terms for w in term.weights]))
            found.weights = [tuple(next(flat) for _ in term.weights) for term in self.terms]
        return found

    def _layout(self, x: Tensor, edges: int) -> Layout:
        threads, tracked = torch.get_num_threads(), [n.track_running_stats for term in self.terms for n in term.norms]
        key = (x.shape, x.dtype, edges, self.training, threads, *tracked)
        if key not in self.layouts:
            terms = [described(term) for term in self.terms]
            self.layouts[key] = native.layout(x.shape, x.dtype, self.stride, terms, edges, self.training, threads)
        return self.layouts[key]


def described(term: EdgeOp) -> Term:
    """A term as kernels see it."""
    is_max = any(isinstance(layer, nn.MaxPool2d) for layer in term.op.modules())
    layers = zip(term.convolutions[::2], term.convolutions[1::2], term.norms, strict=True) if term.convolutions else ()
    pairs = tuple(Pair(*pair) for pair in layers)
    norm = term.norms[0] if term.norms and not pairs else None
    return Term(term.edge, pairs, norm, is_max, term.column)
