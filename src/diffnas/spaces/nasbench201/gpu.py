"""What leaves a state by few launches of a GPU (see `kernels.gpu`), as one differentiable function.

The state's ReLU, the state itself and its pool are images, and so are the outputs of the 3x3 convolutions, which the library
computes for all edges at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from diffnas.kernels import gpu
from diffnas.kernels.gpu.flow import Flow
from diffnas.kernels.gpu.layout import COPY, MEAN, Image, Layout, Term
from diffnas.spaces.nasbench201.native import CONV, POINT, POOL, SKIPS, EdgeTerms
from diffnas.spaces.statistics import RunningStatsUpdates


def fits(x: Tensor, edges: Sequence[EdgeTerms]) -> bool:
    """Whether there are kernels for these numbers on this device."""
    layers = [layer for edge in edges for layer in (edge.point, edge.conv) if layer is not None]
    norms = [layer[2] for layer in layers]
    return gpu.fits(x, [layer.get_parameter("1.weight") for layer in layers]) and all(
        isinstance(norm, nn.BatchNorm2d) and norm.momentum is not None and not norm.affine for norm in norms
    )


class GpuTerms:
    """All that leaves a state, as images and terms; `columns` is the number of ops."""

    def __init__(self, edges: Sequence[EdgeTerms], columns: int) -> None:
        self.edges, self.columns = list(edges), columns
        self.points = [edge.point for edge in edges if edge.point is not None]
        self.convs = [edge.conv for edge in edges if edge.conv is not None]
        self.images: list[Image] = []
        self.terms: list[Term] = []
        self.norms: list[nn.BatchNorm2d | None] = []
        if self.points or self.convs:
            self._image(Image(), POINT)
        for image, names in ((Image(COPY), SKIPS), (Image(MEAN), (POOL,))):
            if any(name in edge.columns for edge in edges for name in names):
                self._image(image, *names)
        self.first = len(self.images)  # of the images that convolutions make
        for edge in edges:
            if edge.conv is not None:
                self._image(Image(COPY), CONV, among=[edge])
        self._layouts: dict[int, Layout] = {}

    @property
    def weights(self) -> list[Tensor]:
        """The kernels: those of 1x1 convolutions, then of 3x3 ones."""
        return [layer.get_parameter("1.weight") for layer in (*self.points, *self.convs)]

    def given(self, like: Tensor, channels: int) -> Tensor | None:
        """[2, T, C]: the running means and variances (None: the batch's count)."""
        norms = [norm for norm in self.norms if norm is not None]
        if not norms or norms[0].training or norms[0].running_mean is None:
            return None
        zero = like.new_zeros(channels)
        rows = [
            [zero if norm is None else norm.get_buffer(name) for norm in self.norms]
            for name in ("running_mean", "running_var")
        ]
        return torch.stack([torch.stack(row) for row in rows])

    def note(self, flow: Flow, moves: RunningStatsUpdates) -> None:
        """Notes how running statistics are to move."""
        for t, norm in enumerate(self.norms if flow.given is None else ()):
            if norm is not None and norm.track_running_stats:
                moves.note(norm, *flow.statistics(t))

    def layout(self, channels: int) -> Layout:
        """The tables that kernels read."""
        if channels not in self._layouts:
            sizes = [channels * channels] * len(self.points)
            self._layouts[channels] = Layout(self.images, self.terms, 0, len(self.edges), channels, sizes)
        return self._layouts[channels]

    def _image(self, image: Image, *names: str, among: Iterable[EdgeTerms] | None = None) -> None:
        """Adds an image, and a term for each of the ops `names` on each edge."""
        for place, edge in enumerate(self.edges):
            for name in names if among is None or edge in among else ():
                if name in edge.columns:
                    self._term(len(self.images), place, edge, name)
        self.images.append(image)

    def _term(self, image: int, place: int, edge: EdgeTerms, name: str) -> None:
        layer = {POINT: edge.point, CONV: edge.conv}.get(name)
        weight = len(self.terms) if name == POINT else None  # its terms come first
        norm = None if layer is None else layer[2]
        share = edge.edge * self.columns + edge.columns[name]
        self.terms.append(Term(image, place, share, weight, normed=norm is not None))
        self.norms.append(norm)  # type: ignore[arg-type]


class GpuMix(torch.autograd.Function):
    """`GpuMix.apply(terms, moves, x, shares, *terms.weights)`: the state x [N, C, H, W], shares [E, O] -> [e, N, C, H, W].

    Of the edges that leave the state there are e, of the cell E.  Once differentiable.
    """

    @staticmethod
    def forward(
        ctx: Any, terms: GpuTerms, moves: RunningStatsUpdates, x: Tensor, shares: Tensor, *weights: Tensor
    ) -> Tensor:
        """Keeps small matrices in the flow and images among the saved tensors."""
        if x.numel() < 2 * x.shape[1] and any(norm is not None for norm in terms.norms):
            raise ValueError("Expected more than 1 value per channel when training, got 1")  # as torch says it
        c, like, points = x.shape[1], weights[0] if weights else shares, len(terms.points)
        flat = terms.layout(c).flat(weights[:points], like)
        given = terms.given(like, c)
        eps = next((norm.eps for norm in terms.norms if norm is not None), 1e-5)
        flow = Flow(terms.layout(c), x, 1, flat, shares.to(flat.dtype).flatten(), given, eps)
        flow.expand(flow.source(x), None, 0, terms.first, 1)
        joined = torch.cat(weights[points:]).to(x.dtype) if terms.convs else x.new_empty(0)
        if terms.convs:
            z = F.conv2d(_relu(flow), joined, padding=1).permute(0, 2, 3, 1).contiguous()
            flow.expand(z.unflatten(3, (-1, c)).permute(3, 0, 1, 2, 4), None, terms.first, len(terms.images), 1)
        found = flow.mix()
        terms.note(flow, moves)
        ctx.save_for_backward(x, joined, flow.d, flow.where, *weights)
        ctx.flow, ctx.terms, ctx.shape = flow.without_images(), terms, shares.shape
        return found.permute(0, 1, 4, 2, 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        """The gradients to the state, the shares and the weights."""
        x, joined, d, where, *weights = ctx.saved_tensors
        terms, flow, points = ctx.terms, ctx.flow.with_images(d, where), len(ctx.terms.points)
        to_state, to_shares, to_weights = (
            ctx.needs_input_grad[2],
            ctx.needs_input_grad[3],
            any(ctx.needs_input_grad[4:]),
        )
        nothing, g = flow.flat.new_empty(0), g.permute(0, 1, 3, 4, 2).flatten(1, 3).contiguous()
        shares = torch.zeros_like(flow.shares) if to_shares else nothing
        flat = torch.empty_like(flow.flat) if to_weights else nothing
        flow.pull(g, 0, len(terms.terms), flat, shares)
        found: list[Tensor | None] = [None] * len(weights)
        dx = None
        if to_weights:
            found[:points] = flow.layout.apart(flat, weights[:points])
        if to_state or (to_weights and terms.convs):
            slope = torch.empty_like(d)
            flow.slopes(g, 0, slope)
            if terms.convs:
                dw = _through_convolutions(flow, slope, joined, terms.first, to_state, to_weights)
                found[points:] = [None] * len(terms.convs) if dw is None else dw.to(weights[0]).split(x.shape[1])
            if to_state:
                dx = flow.state_slope(slope[: terms.first], flow.source(x), None, 0, 1)[0].permute(0, 3, 1, 2)
        return None, None, dx, shares.view(ctx.shape) if to_shares else None, *found


def _relu(flow: Flow) -> Tensor:
    """[N, C, H, W]: the first image, the state's ReLU."""
    return flow.d[0].view(flow.out).permute(0, 3, 1, 2)


def _through_convolutions(
    flow: Flow, slope: Tensor, joined: Tensor, first: int, to_state: bool, to_weights: bool
) -> Tensor | None:
    """The gradient to the `joined` kernels of the 3x3 convolutions; adds that to their input to the first image's `slope`."""
    n, h, w, c = flow.out
    dz = slope[first:].view(-1, n, h, w, c).permute(1, 2, 3, 0, 4).reshape(n, h, w, -1).permute(0, 3, 1, 2)
    one, asked = [1, 1], [to_state, to_weights, False]
    dr, dw, _ = torch.ops.aten.convolution_backward(
        dz, _relu(flow), joined, None, one, one, one, False, [0, 0], 1, asked
    )
    if to_state:
        slope[0] += dr.permute(0, 2, 3, 1).reshape(-1, c)
    return dw if to_weights else None
