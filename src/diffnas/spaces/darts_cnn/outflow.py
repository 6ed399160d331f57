"""All that flows out of one state of a cell, as one differentiable function: the core of the fast supernet.

Edges that leave one state read the same tensor, so what carries no weights (ReLU, pools, their statistics) runs once.  A
convolutional op ends in a 1x1 convolution, a normalisation and a share, which `kernels.pointwise` folds into one matrix
product, added straight onto the edge's sum: neither the outputs of single ops nor their normalised forms are ever made.
What is kept for the backward are the outputs of the depthwise convolutions.

Neighbouring edges are computed `width` at a time, their channels side by side and their 1x1 kernels as blocks on a diagonal:
one edge on a CPU, whose cache holds one (more where it has fewer than 16 channels); all of a state on a GPU, where launches
cost more than arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from diffnas.kernels.pointwise import rows
from diffnas.spaces.darts_cnn.ops import FactorizedReduce
from diffnas.spaces.darts_cnn.parts import (
    Dilated,
    Family,
    Halving,
    Identity,
    Part,
    Pool,
    Separable,
    Slopes,
    Sums,
    Term,
    Wanted,
)


@dataclass(frozen=True)
class Plan:
    """What flows out of one state in one pass, and over how many of the cell's edges and ops its shares reach."""

    terms: tuple[Term, ...]
    edges: int
    ops: int
    stride: int
    width: int

    @cached_property
    def families(self) -> tuple[Family, ...]:
        """The terms, those that are computed alike together: two depthwise pairs, one, halvings, and each even op."""
        alike: dict[tuple[str, int], list[Term]] = {}
        for term in sorted(self.terms, key=lambda term: (term.column, term.edge)):
            kind = kind_of(term.op)
            alike.setdefault((kind, term.column if kind in ("pool", "identity") else -1), []).append(term)
        widths = {"separable": self.width, "dilated": self.width}
        return tuple(Family(tuple(terms), widths.get(kind, 1)) for (kind, _), terms in alike.items())

    @cached_property
    def weights(self) -> tuple[Tensor, ...]:
        """The weights of all terms, family by family: what `Outflow` takes."""
        return tuple(layer.weight for f in self.families for term in f.terms for layer in term.convolutions)

    @cached_property
    def _places(self) -> dict[torch.device, tuple[Tensor, ...]]:
        return {}

    def places(self, device: torch.device) -> tuple[Tensor, ...]:
        """Per family, where the shares of its terms stand in [E * O]."""
        if device not in self._places:
            lists = [[term.edge * self.ops + term.column for term in f.terms] for f in self.families]
            self._places[device] = tuple(torch.tensor(places, device=device) for places in lists)
        return self._places[device]

    def parts(self) -> list[Part]:
        """A fresh part for each family."""
        return [_PARTS[kind_of(family.terms[0].op)](family, self.stride) for family in self.families]


_PARTS: dict[str, Callable[[Family, int], Part]] = {
    "separable": Separable,
    "dilated": Dilated,
    "halving": lambda family, stride: Halving(family),
    "pool": Pool,
    "identity": lambda family, stride: Identity(family),
}


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


class Outflow(torch.autograd.Function):
    """`Outflow.apply(plan, s, x, *plan.weights)`: shares s [E, O] and the state x [N, C, H, W] -> one image per edge.

    Once differentiable.  Gradients are computed only for what requires them.
    """

    @staticmethod
    def forward(ctx: Any, plan: Plan, s: Tensor, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        """Keeps small matrices in the parts and images among the saved tensors."""
        n, c, h, w = x.shape
        h, w = -(-h // plan.stride), -(-w // plan.stride)
        sums = Sums(x, n * h * w, plan.edges, plan.width)
        ctx.plan, ctx.parts = plan, plan.parts()
        ctx.shares = [s.detach().flatten()[places] for places in plan.places(s.device)]
        r = x.relu()
        saved = [part.forward(x, r, share, sums) for part, share in zip(ctx.parts, ctx.shares, strict=True)]
        ctx.counts = [len(images) for images in saved]
        ctx.save_for_backward(x, *(image for images in saved for image in images), *weights)
        return tuple(each.view(n, h, w, c).permute(0, 3, 1, 2) for each in sums.finished())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        """The gradients to the shares, the state and the weights."""
        plan, needs = ctx.plan, ctx.needs_input_grad
        x, *images = ctx.saved_tensors
        wanted = Wanted(needs[2], any(needs[3:]))
        slopes = Slopes([rows(g.contiguous(memory_format=torch.channels_last)) for g in grads])
        ds = x.new_zeros(plan.edges * plan.ops, dtype=ctx.shares[0].dtype)
        to_x: list[Tensor] = []
        to_r: list[Tensor] = []
        weights: list[Tensor] = []
        r = x.relu()
        at = 0
        for part, share, places, count in zip(ctx.parts, ctx.shares, plan.places(x.device), ctx.counts, strict=True):
            found = part.backward(x, r, images[at : at + count], share, slopes, wanted)
            at += count
            ds[places] = found.shares
            to_x += found.x
            to_r += found.r
            weights += [weight for term in found.weights for weight in term]
        dx = None
        if wanted.state:
            if to_r:
                to_x.append(torch.ops.aten.threshold_backward(_total(to_r), r, 0))
            dx = _total(to_x)
        return None, ds.view(plan.edges, plan.ops), dx, *(weights or [None] * len(plan.weights))


def _total(parts: Sequence[Tensor]) -> Tensor:
    """Their sum, in the memory of the first."""
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total
