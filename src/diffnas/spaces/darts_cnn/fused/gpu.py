"""All that flows out of a state by few launches of a GPU (see `kernels.gpu`), as one differentiable function."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from diffnas.kernels import gpu
from diffnas.kernels.gpu.flow import Flow, separable_backward, separable_forward
from diffnas.kernels.gpu.layout import COPY, MAX, MEAN, Image, Layout, Term
from diffnas.spaces.darts_cnn.fused.buffers import EdgeOp
from diffnas.spaces.darts_cnn.fused.edges import kind_of
from diffnas.spaces.statistics import RunningStatsUpdates, require_statistics


def known(terms: Iterable[EdgeOp]) -> bool:
    """Whether there are kernels for the layers of all terms, whatever their numbers."""
    layers = [layer for term in terms for layer in (*term.convolutions, *term.norms)]
    square = (layer.kernel_size[0] == layer.kernel_size[1] for layer in layers if isinstance(layer, nn.Conv2d))
    norms = (layer for layer in layers if isinstance(layer, nn.BatchNorm2d))
    return all(square) and all(n.momentum is not None and n.running_var is not None and not n.affine for n in norms)


def fits(x: Tensor, terms: Sequence[EdgeOp]) -> bool:
    """Whether there are kernels for these numbers on this device; the layers of `terms` are `known`."""
    weights = [weight for term in terms for weight in term.weights]
    return gpu.fits(x, weights) and all(weight.is_contiguous() for weight in weights)


class _Norm(NamedTuple):
    """A term's normalisation and which of its channels the term has: all (None), the first or the second half."""

    layer: nn.BatchNorm2d | None
    half: int | None = None


@dataclass
class GpuPlan:
    """What flows out of one state in one pass, and over how many of the cell's edges and ops its shares reach."""

    terms: tuple[EdgeOp, ...]
    edges: int
    ops: int
    stride: int
    layouts: dict[int, Layout] = field(default_factory=dict)

    @cached_property
    def ordered(self) -> list[EdgeOp]:
        """The terms in the order of their weights."""
        kinds = ("separable", "dilated", "halving", "pool", "identity")
        return sorted(self.terms, key=lambda term: kinds.index(str(kind_of(term.op))))

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """The weights of all terms as they are now."""
        return tuple(weight for term in self.ordered for weight in term.weights)

    @property
    def training(self) -> bool:
        """Whether normalisations take the batch's statistics."""
        return any(norm.training for term in self.terms for norm in term.norms)

    @cached_property
    def halves(self) -> bool:
        """Whether a term reads even and odd pixels apart."""
        return any(kind_of(term.op) == "halving" for term in self.terms)

    def layout(self, channels: int) -> Layout:
        """The tables that kernels read."""
        if channels not in self.layouts:
            images, terms = self._parts.images, self._parts.terms
            sizes = [weight.numel() for weight in self.weights]
            self.layouts[channels] = Layout(images, terms, self._parts.inner, self.edges, channels, sizes)
        return self.layouts[channels]

    def note(self, flow: Flow, moves: RunningStatsUpdates) -> None:
        """Notes how running statistics are to move."""
        norms = [norm for norm in self._parts.norms if norm.layer is not None] if self.training else []
        if norms:
            require_statistics(flow.pixels)
        for t, (layer, half) in enumerate(self._parts.norms if norms else []):
            if layer is not None and layer.track_running_stats:
                mean, var = (_halved(row, half) for row in flow.statistics(t))
                moves.note(layer, mean, var, half)

    def given(self, like: Tensor, channels: int) -> Tensor | None:
        """[2, T, C]: the running means and variances (None: the batch's count)."""
        if self.training:
            return None
        found = like.new_zeros(2, len(self._parts.norms), channels)
        for t, (layer, half) in enumerate(self._parts.norms):
            if layer is not None:
                _halved(found[0, t], half).copy_(_halved(layer.get_buffer("running_mean"), half))
                _halved(found[1, t], half).copy_(_halved(layer.get_buffer("running_var"), half))
        return found

    @cached_property
    def eps(self) -> float:
        """What is added to variances."""
        return next((norm.eps for term in self.terms for norm in term.norms), 1e-5)

    @cached_property
    def _parts(self) -> _Parts:
        return _Parts(self)


class _Parts:
    """The images and terms of a plan: first pairs of separable convolutions, what has one image, second pairs."""

    def __init__(self, plan: GpuPlan) -> None:
        self.images: list[Image] = []
        self.terms: list[Term] = []
        self.norms: list[_Norm] = []
        self.ops, at, places = plan.ops, 0, {}
        for term in plan.ordered:
            places[term] = at
            at += len(term.weights)
        groups: dict[Any, list[EdgeOp]] = {}
        for term in plan.ordered:
            name = str(kind_of(term.op))
            groups.setdefault((name, _is_max(term)) if name == "pool" else name, []).append(term)
        separable = groups.get("separable", [])
        self.inner = len(separable)
        for row, term in enumerate(separable):
            self._pair(term, places[term], 0, row)
        for term in groups.get("dilated", []):
            self._pair(term, places[term], 0, None)
        halving = groups.get("halving", [])
        for half in (0, 1) if halving else ():
            self._shared(Image(offset=half), [(term, places[term] + half, half) for term in halving])
        steady = ("pool", True), ("pool", False), "identity"
        for key, kind in zip(steady, (MAX, MEAN, COPY), strict=True):
            if key in groups:
                self._shared(Image(kind), [(term, None, None) for term in groups[key]])
        for term in separable:
            self._pair(term, places[term] + 2, 1, None)

    def _pair(self, term: EdgeOp, place: int, which: int, row: int | None) -> None:
        """A depthwise convolution, its 1x1 convolution and normalisation; `row` of an inner one."""
        conv = term.convolutions[2 * which]
        dilation = conv.dilation[0]
        self.images.append(Image(side=conv.kernel_size[0], dilation=int(dilation), kernel=place))
        self._term(term, place + 1, None, term.norms[which], row)

    def _shared(self, image: Image, terms: Iterable[tuple[EdgeOp, int | None, int | None]]) -> None:
        """An image that several edges take."""
        self.images.append(image)
        for term, point, half in terms:
            self._term(term, point, half, term.norms[0] if term.norms else None, None)

    def _term(
        self, term: EdgeOp, point: int | None, half: int | None, norm: nn.BatchNorm2d | None, row: int | None
    ) -> None:
        share = term.edge * self.ops + term.column
        image, normed = len(self.images) - 1, norm is not None
        inner = row is not None
        self.terms.append(
            Term(image, row if row is not None else term.edge, -1 if inner else share, point, half, normed)
        )
        self.norms.append(_Norm(norm, half))


class GpuEdges(torch.autograd.Function):
    """`GpuEdges.apply(plan, moves, s, x, *plan.weights)`: shares s [E, O] and the state x [N, C, H, W] -> [E, N, C, H, W].

    Once differentiable.  Gradients are computed only for what requires them.
    """

    @staticmethod
    def forward(ctx: Any, plan: GpuPlan, moves: RunningStatsUpdates, s: Tensor, x: Tensor, *weights: Tensor) -> Tensor:
        """Keeps small matrices in the flow and images among the saved tensors."""
        c, h, w = x.shape[1:]
        if plan.halves and (h % 2 or w % 2):
            raise ValueError(f"halving the resolution needs even sides, not {h} x {w}")
        layout, like = plan.layout(c), weights[0] if weights else s
        flat = layout.flat(weights, like)
        flow = Flow(layout, x, plan.stride, flat, s.to(flat.dtype).flatten(), plan.given(like, c), plan.eps)
        found, between = separable_forward(flow, x)
        plan.note(flow, moves)
        ctx.save_for_backward(x, between, flow.d, flow.where, *weights)
        ctx.flow, ctx.shape = flow.without_images(), s.shape
        return found.permute(0, 1, 4, 2, 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        """The gradients to the shares, the state and the weights."""
        x, between, d, where, *weights = ctx.saved_tensors
        needs, flow = ctx.needs_input_grad, ctx.flow.with_images(d, where)
        g = g.permute(0, 1, 3, 4, 2).contiguous()
        shares, dx, flat = separable_backward(flow, x, between, g, needs[2], needs[3], any(needs[4:]))
        to_weights = [None] * len(weights) if flat is None else flow.layout.apart(flat, weights)
        return None, None, None if shares is None else shares.view(ctx.shape), dx, *to_weights


def _is_max(term: EdgeOp) -> bool:
    return any(isinstance(layer, nn.MaxPool2d) for layer in term.op.modules())


def _halved(row: Tensor, half: int | None) -> Tensor:
    return row if half is None else row.chunk(2)[half]
