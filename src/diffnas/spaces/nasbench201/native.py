"""What leaves a state by compiled kernels: one pass over the images for all ops of all edges, and one back.

For an edge with shares s, where r is the state's ReLU, p its pool and z = conv3x3(r):

    y = s_1 norm(W r) + s_3 norm(z) + s_s x + s_p p

The 1x1 convolution is never written down: the mean of W r is W m and its variance diag(W cov W'), where m and cov are those
of r, so y = r B + ... with B = s_1 W' / std.  The gradient comes back in the same way.  The 3x3 convolutions of all edges
are one convolution of the library.  It can be differentiated once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffnas.kernels import native
from diffnas.kernels.native.terms import DenseEdge

if TYPE_CHECKING:
    from diffnas.kernels.native.dense_table import DenseLayout

POINT, CONV, POOL = "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"
SKIPS = ("skip_connect", "auxiliary_skip")


@dataclass(frozen=True)
class EdgeTerms:
    """The live ops of an edge: the layers of its convolutions (None: not there), and the columns of the shares of all."""

    edge: int
    point: nn.Sequential | None
    conv: nn.Sequential | None
    columns: Mapping[str, int]


class StateTerms:
    """All that leaves a state, edge by edge; `columns` is the number of ops."""

    def __init__(self, edges: Sequence[EdgeTerms], columns: int) -> None:
        self.edges = edges
        self.points = [edge.point for edge in edges if edge.point is not None]
        self.convs = [edge.conv for edge in edges if edge.conv is not None]
        self._described = [described(edge, columns) for edge in edges]
        self._layouts: dict[tuple[object, ...], DenseLayout] = {}

    @property
    def weights(self) -> list[Tensor]:
        """The kernels: those of 1x1 convolutions, then of 3x3 ones."""
        return [layer.get_parameter("1.weight") for layer in (*self.points, *self.convs)]

    def layout(self, x: Tensor, fresh: Sequence[bool]) -> DenseLayout:
        """The table of passes like this one."""
        norms: list[Any] = [layer[2] for layer in (*self.points, *self.convs)]
        of_batch = bool(norms) and (norms[0].training or norms[0].running_mean is None)
        threads, tracked = torch.get_num_threads(), [norm.track_running_stats for norm in norms]
        key = (x.shape, x.dtype, *fresh, of_batch, threads, *tracked)
        if key not in self._layouts:
            self._layouts[key] = native.dense_layout(x, self._described, fresh, of_batch, threads)
        return self._layouts[key]

    def joined(self) -> Tensor:
        """[k C, C, 3, 3]: the kernels of all 3x3 convolutions."""
        kernels = [layer.get_parameter("1.weight").detach() for layer in self.convs]
        return kernels[0] if len(kernels) == 1 else torch.cat(kernels)


def described(edge: EdgeTerms, columns: int) -> DenseEdge:
    """An edge as kernels see it."""
    shares = {name: edge.edge * columns + column for name, column in edge.columns.items()}
    point, conv = ((layer[1], layer[2]) if layer is not None else None for layer in (edge.point, edge.conv))
    skips = tuple(shares[name] for name in SKIPS if name in shares)
    return DenseEdge(point, conv, shares.get(POINT, -1), shares.get(CONV, -1), shares.get(POOL, -1), skips)  # type: ignore[arg-type]


def fits(x: Tensor, edges: Sequence[EdgeTerms]) -> bool:
    """Whether there are kernels for these numbers on this machine."""
    layers = [layer for edge in edges for layer in (edge.point, edge.conv) if layer is not None]
    norms = [layer[2] for layer in layers]
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and x.shape[1] % 4 == 0
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and native.usable()
        and all(layer[1].weight.dtype == x.dtype for layer in layers)
        and all(isinstance(norm, nn.BatchNorm2d) and norm.momentum is not None and not norm.affine for norm in norms)
    )


def mix(x: Tensor, shares: Tensor, terms: StateTerms, sums: Sequence[Tensor | None]) -> Sequence[Tensor]:
    """Adds to `sums` [N, C, H, W], of the nodes that the edges lead to (None: nothing so far), what flows along the edges.

    `x` is the state in channels-last memory, `shares` [E, O] those of all edges of the cell.
    """
    given = [each for each in sums if each is not None]
    fresh = [each is None for each in sums]
    flows: Sequence[Tensor] = _Mix.apply(x, shares, terms, fresh, *terms.weights, *given)
    return flows


def _images(like: Tensor) -> Tensor:
    return torch.empty_like(like, memory_format=torch.channels_last)


class _Mix(torch.autograd.Function):
    """`mix`: what is saved are the state, the 3x3 convolutions, and one tensor of the kernels'."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shares: Tensor, terms: StateTerms, fresh: Sequence[bool], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        layout = terms.layout(x, fresh)
        weights, sums = tensors[: layout.points + layout.convs], tensors[layout.points + layout.convs :]
        if layout.training and x.numel() < 2 * x.shape[1]:
            raise ValueError("Expected more than 1 value per channel when training, got 1")  # as torch says it
        old = iter(sums)
        outputs = [_images(x) if new else next(old) for new in fresh]
        r = x.relu() if weights else x
        z = None
        if terms.convs:
            z = F.conv2d(r, terms.joined(), padding=1).contiguous(memory_format=torch.channels_last)
        kept = layout.forward(x, shares.contiguous(), r, z, outputs)
        ctx.mark_dirty(*sums)
        ctx.terms, ctx.fresh, ctx.layout = terms, fresh, layout
        ctx.save_for_backward(x, shares, kept, z, *weights)
        return tuple(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, shares, kept, z, *weights = ctx.saved_tensors
        layout, c = ctx.layout, x.shape[1]
        slopes = [grad.contiguous(memory_format=torch.channels_last) for grad in grads]
        to_state, to_weights = ctx.needs_input_grad[0], any(ctx.needs_input_grad[4 : 4 + len(weights)])
        r = x.relu() if weights else x
        back = layout.backward((x, shares.contiguous(), kept, r, z), slopes, to_state, to_weights)
        found: list[Tensor | None] = [None] * len(weights)
        if back.to_points is not None:
            found[: layout.points] = back.to_points.view(-1, c, c, 1, 1).unbind()
        dr = dx = None
        if back.dz is not None:
            one, mask = [1, 1], [to_state, to_weights, False]
            dr, dw, _ = torch.ops.aten.convolution_backward(
                back.dz, r, ctx.terms.joined(), None, one, one, one, False, [0, 0], 1, mask
            )
            if to_weights:
                found[layout.points :] = dw.split(c)
        if to_state:
            dr = torch.zeros_like(x) if dr is None else dr.contiguous(memory_format=torch.channels_last)
            dx = back.state(dr)
        old = [grad for grad, new in zip(grads, ctx.fresh, strict=True) if not new]
        return (dx, back.to_shares, None, None, *found, *old)
