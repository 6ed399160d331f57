"""All that flows out of one state of a cell, as one differentiable function: the core of the fast supernet.

Edges that leave one state read the same tensor, so what carries no weights (ReLU, pools, their statistics) runs once.  A
convolutional op ends in a 1x1 convolution, a normalisation and a share, which `kernels.pointwise` folds into one matrix
product, added straight onto the edge's sum: neither the outputs of single ops nor their normalised forms are ever made.
What is kept for the backward are the outputs of the depthwise convolutions.

Neighbouring edges are computed `width` at a time, their channels side by side: as many as a CPU's cache holds; all of a
state on a GPU, where launches cost more than arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from diffnas.core.constants import constant
from diffnas.kernels.pointwise import rows
from diffnas.spaces.darts_cnn.fused.buffers import EdgeGradients, EdgeOp, EdgeSums, FusedOp, NeedsGrad, State, Terms
from diffnas.spaces.darts_cnn.fused.native import Layouts, Native
from diffnas.spaces.darts_cnn.fused.ops import Dilated, Halving, Identity, Pool, Separable
from diffnas.spaces.darts_cnn.ops import FactorizedReduce
from diffnas.spaces.statistics import RunningStatsUpdates


@dataclass(frozen=True)
class Plan:
    """What flows out of one state in one pass, and over how many of the cell's edges and ops its shares reach."""

    terms: tuple[EdgeOp, ...]
    edges: int
    ops: int
    stride: int
    width: int
    native: bool = False
    layouts: Layouts = field(default_factory=dict)

    @cached_property
    def groups(self) -> tuple[Terms, ...]:
        """The terms that are computed alike: each pool, the identity, halvings, two depthwise pairs, one."""
        alike: dict[tuple[int, int], list[EdgeOp]] = {}
        for term in sorted(self.terms, key=lambda term: (term.column, term.edge)):
            kind = str(kind_of(term.op))
            alike.setdefault((list(_PARTS).index(kind), term.column if kind in _EVEN else -1), []).append(term)
        groups = [tuple(alike[key]) for key in sorted(alike)]
        if not self.native:
            return tuple(groups)
        halvings = [group for group in groups if kind_of(group[0].op) == "halving"]
        others = tuple(term for group in groups if group not in halvings for term in group)
        return tuple(group for group in (others, *halvings) if group)

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """The weights of all terms as they are now, group by group: what `Outflow` takes."""
        return tuple(weight for group in self.groups for term in group for weight in term.weights)

    def places(self, device: torch.device) -> Tensor:
        """Where the shares of the terms, group by group, stand in [E * O]."""
        return constant(self._places, torch.int64, device)

    @cached_property
    def _places(self) -> tuple[int, ...]:
        return tuple(term.edge * self.ops + term.column for group in self.groups for term in group)

    @cached_property
    def _kinds(self) -> list[str]:
        return [str(kind_of(group[0].op)) for group in self.groups]

    def parts(self) -> list[FusedOp]:
        """A fresh part for each group."""
        return [
            Native(group, self.stride, self.layouts)
            if self.native and kind != "halving"
            else _PARTS[kind](group, self.stride, self.width)
            for kind, group in zip(self._kinds, self.groups, strict=True)
        ]


_PARTS: dict[str, Callable[[Terms, int, int], FusedOp]] = {
    "identity": lambda terms, stride, width: Identity(terms),
    "pool": lambda terms, stride, width: Pool(terms, stride),
    "halving": lambda terms, stride, width: Halving(terms),
    "separable": Separable,
    "dilated": Dilated,
}
"""How each kind of op is computed, in the order they are."""
_EVEN = ("identity", "pool")  # all edges share one tensor of each such op, so a part holds one op


def kind_of(op: nn.Module) -> str | None:
    """How an op is computed; None where `Outflow` does not know it."""
    if isinstance(op, FactorizedReduce):
        return "halving"
    if isinstance(op, nn.Identity):
        return "identity"
    layers = list(op.modules())
    if any(isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) for layer in layers):
        return "pool"
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    depthwise = [layer.groups == layer.in_channels and max(layer.kernel_size) > 1 for layer in convolutions]
    return {(True, False): "dilated", (True, False, True, False): "separable"}.get(tuple(depthwise))


class FusedEdges(torch.autograd.Function):
    """`Outflow.apply(plan, s, x, *plan.weights)`: shares s [E, O] and the state x [N, C, H, W] -> one image per edge.

    Once differentiable.  Gradients are computed only for what requires them.
    """

    @staticmethod
    def forward(ctx: Any, plan: Plan, s: Tensor, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        """Keeps small matrices in the parts and images among the saved tensors."""
        n, c, h, w = x.shape
        h, w = -(-h // plan.stride), -(-w // plan.stride)
        state, sums, moves = (
            State(x),
            EdgeSums(x, n * h * w, plan.edges, plan.native or plan.width == 1),
            RunningStatsUpdates(),
        )
        ctx.plan, ctx.parts = plan, plan.parts()
        ctx.shares = s.detach().flatten()[plan.places(s.device)].split([len(part.terms) for part in ctx.parts])
        saved = [part.forward(state, share, sums, moves) for part, share in zip(ctx.parts, ctx.shares, strict=True)]
        moves.take()
        ctx.counts = [len(images) for images in saved]
        ctx.save_for_backward(x, *(image for images in saved for image in images), *weights)
        return tuple(each.view(n, h, w, c).permute(0, 3, 1, 2) for each in sums.finished())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        """The gradients to the shares, the state and the weights."""
        plan, needs = ctx.plan, ctx.needs_input_grad
        x, *images = ctx.saved_tensors
        wanted = NeedsGrad(needs[1], needs[2], any(needs[3:]))
        state = State(x)
        slopes = EdgeGradients([rows(g.contiguous(memory_format=torch.channels_last)) for g in grads])
        shares: list[Tensor] = []
        weights: list[Tensor | None] = []
        to_x: Tensor | None = None
        to_relu: Tensor | None = None
        at = 0
        for part, share, count in zip(ctx.parts, ctx.shares, ctx.counts, strict=True):
            found = part.backward(state, images[at : at + count], share, slopes, wanted)
            at += count
            shares += [] if found.shares is None else [found.shares]
            weights += [weight for term in found.weights for weight in term]
            to_x, to_relu = _plus(to_x, found.x), _plus(to_relu, found.relu)
        if to_relu is not None:
            to_x = _plus(to_x, torch.ops.aten.threshold_backward(to_relu, state.relu, 0))
        ds = None
        if wanted.shares:
            ds = shares[0].new_zeros(plan.edges * plan.ops)
            ds[plan.places(x.device)] = torch.cat(shares)
            ds = ds.view(plan.edges, plan.ops)
        return None, ds, to_x, *(weights if wanted.weights else [None] * len(needs[3:]))


def _plus(total: Tensor | None, part: Tensor | None) -> Tensor | None:
    """Their sum, in the memory of the first; None is 0."""
    if total is None or part is None:
        return part if total is None else total
    total += part
    return total
