"""The fast supernet: the plain one's modules, names, values and gradients, by other routes.

It overrides only how a cell is computed: state by state instead of edge by edge, so that what carries no weights runs once
per state; convolutions of few channels side by side; a convolution's share as the scale of its normalisation; images with
the channels of a pixel side by side in memory, which a CPU's convolutions and normalisations read faster.  Ordinary
operations all of them, so it can be differentiated twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffnas.core.cell import Cell
from diffnas.core.mixture import Mix
from diffnas.core.space import Shape, Size
from diffnas.kernels.gpu.layout import by_pixels
from diffnas.kernels.memory import keep_freed_memory
from diffnas.spaces.channels import interleave
from diffnas.spaces.nasbench201 import gpu, native
from diffnas.spaces.nasbench201.gpu import GpuMix, GpuTerms
from diffnas.spaces.nasbench201.supernet import MixedCell, Supernet
from diffnas.spaces.statistics import RunningStatsUpdates

CHANNELS = 16  # what a CPU's convolutions take at a time: fewer cost as much
KEPT = 64  # mixtures whose live ops are remembered: methods that sample have ever new ones
CACHE = 2**18  # numbers that a CPU's cache holds: smaller images are computed together

Shares = Sequence[Sequence[Tensor]]
"""The share [] of each op on each edge."""


class State:
    """The inputs that ops read from a state [N, C, H, W]."""

    def __init__(self, x: Tensor) -> None:
        self.x = x.contiguous(memory_format=torch.channels_last)

    @cached_property
    def relu(self) -> Tensor:
        """The ReLU of the state."""
        return self.x.relu()

    @cached_property
    def pooled(self) -> Tensor:
        """The averages over 3x3 pixels; on a CPU the library is faster at convolutions than at pools."""
        if self.x.device.type != "cpu":
            return F.avg_pool2d(self.x, 3, 1, padding=1, count_include_pad=False)
        channels, height, width = self.x.shape[1:]
        sums = F.conv2d(self.x, self.x.new_ones(channels, 1, 3, 3), padding=1, groups=channels)
        return sums * window_weights(height, width, self.x.dtype)


@cache
def window_weights(height: int, width: int, dtype: torch.dtype) -> Tensor:
    """[H, W]: one over the number of pixels of the image that a 3x3 window around each covers."""
    covered = [torch.tensor([min(i, 1) + 1 + min(n - 1 - i, 1) for i in range(n)]) for n in (height, width)]
    return 1.0 / (covered[0][:, None] * covered[1]).to(dtype)


class Arriving:
    """The sums of the flows that arrive at each node."""

    def __init__(self) -> None:
        self.sums: dict[int, Tensor] = {}

    def add(self, node: int, flow: Tensor, scale: Tensor | None = None) -> None:
        """Adds `flow`, times `scale` []."""
        if node not in self.sums:
            self.sums[node] = flow if scale is None else flow * scale
        else:
            total = self.sums[node]
            self.sums[node] = total + flow if scale is None else torch.addcmul(total, flow, scale)


class FusedCell(MixedCell):
    """A `MixedCell` computed state by state."""

    def __init__(self, cell: Cell, channels: int, partial: int = 1, running: bool = True) -> None:
        super().__init__(cell, channels, partial, running)
        self.leaving = [
            [e for e, (source, _) in enumerate(cell.edges) if source == state] for state in (0, *cell.nodes)
        ]

        self.by_live: dict[Any, list[native.StateTerms]] = {}
        self.by_live_on_gpus: dict[Any, list[GpuTerms]] = {}

    def forward(self, x: Tensor, mix: Mix) -> Tensor:
        """The value of the last node."""
        shares_EO = mix.shares() if mix.edge is None else mix.shares() * mix.edge[:, None]
        terms = self._terms(mix)
        few = gpu.fits(self.split(x)[0], [edge for state in terms for edge in state.edges])
        moves = RunningStatsUpdates()
        compiled = not few and native.fits(self.split(x)[0], [edge for state in terms for edge in state.edges])
        shares = [] if few or compiled else [row.unbind() for row in shares_EO.unbind()]
        mixed, passed = Arriving(), Arriving()
        for state, edges in enumerate(self.leaving):
            if state:
                x = mixed.sums[state]
                if self.partial > 1:
                    x = interleave(torch.cat([x, passed.sums[state]], dim=1), self.partial)
            seen, rest = self.split(x)
            if edges and few:
                self._mix_on_gpu(seen, shares_EO, state, mix, mixed, moves)
            elif edges and compiled:
                nodes = [self.cell.edges[e][1] for e in edges]
                before = [mixed.sums.get(node) for node in nodes]
                after = native.mix(seen.contiguous(memory_format=torch.channels_last), shares_EO, terms[state], before)
                mixed.sums.update(zip(nodes, after, strict=True))
            elif edges:
                self._mix(State(seen), edges, shares, mix, mixed)
            if rest is not None:
                for e in edges:
                    passed.add(self.cell.edges[e][1], rest, None if mix.edge is None else mix.edge[e])
        moves.take()
        return x

    # What it calls is a function with state of its own, which a tracer cannot follow.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _mix_on_gpu(
        self, x: Tensor, shares: Tensor, state: int, mix: Mix, mixed: Arriving, moves: RunningStatsUpdates
    ) -> None:
        """Adds what the ops on the edges that leave `state` make of what they see of it, `x`."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        terms = self._gpu_terms(mix)[state]
        with torch.autocast(x.device.type, enabled=False):
            flows = GpuMix.apply(terms, moves, by_pixels(x), shares, *terms.weights).unbind() if terms.terms else []
        for e, flow in zip(self.leaving[state], flows or [x * 0.0] * len(self.leaving[state]), strict=True):
            mixed.add(self.cell.edges[e][1], flow)

    def _gpu_terms(self, mix: Mix) -> list[GpuTerms]:
        """What leaves each state with the ops that are live."""
        if mix.live not in self.by_live_on_gpus:
            if len(self.by_live_on_gpus) >= KEPT:
                self.by_live_on_gpus.clear()
            made = [GpuTerms(state.edges, len(self.cell.ops)) for state in self._terms(mix)]
            self.by_live_on_gpus[mix.live] = made
        return self.by_live_on_gpus[mix.live]

    def _terms(self, mix: Mix) -> list[native.StateTerms]:
        """What leaves each state with the ops that are live."""
        if mix.live not in self.by_live:
            if len(self.by_live) >= KEPT:
                self.by_live.clear()
            self.by_live[mix.live] = [
                native.StateTerms([self._edge_terms(e, mix) for e in edges], len(self.cell.ops))
                for edges in self.leaving
            ]
        return self.by_live[mix.live]

    def _edge_terms(self, e: int, mix: Mix) -> native.EdgeTerms:
        ops = self.edge(e).ops
        live = {name: o for o, name in enumerate(self.cell.ops) if name in ops and (mix.live is None or mix.live[e][o])}
        point, conv = (ops[name] if name in live else None for name in (native.POINT, native.CONV))
        return native.EdgeTerms(e, point, conv, live)  # type: ignore[arg-type]

    def _mix(self, state: State, edges: Sequence[int], shares: Shares, mix: Mix, mixed: Arriving) -> None:
        """Adds what the ops of `edges`, which leave `state`, make of it."""
        for o, name in enumerate(self.cell.ops):
            live = [e for e in edges if name in self.edge(e).ops and (mix.live is None or mix.live[e][o])]
            if name.startswith("nor_conv"):
                for chunk in chunked(live, width(state.x)):
                    layers = [self.edge(e).ops[name] for e in chunk]
                    flows = convolved(state.relu, layers, [shares[e][o] for e in chunk])
                    for e, flow in zip(chunk, flows, strict=True):
                        mixed.add(self.cell.edges[e][1], flow)
            else:
                for e in live:
                    flow = state.pooled if name == "avg_pool_3x3" else state.x
                    mixed.add(self.cell.edges[e][1], flow, shares[e][o])
        for e in edges:
            if self.cell.edges[e][1] not in mixed.sums:  # so far nothing
                mixed.add(self.cell.edges[e][1], state.x * 0.0)


def width(x: Tensor) -> int:
    """Returns how many convolutions of `x` run together: few on a CPU; all on a GPU, where launches cost more."""
    return max(1, CHANNELS // x.shape[1], CACHE // x.numel()) if x.device.type == "cpu" else CHANNELS


def chunked(edges: Sequence[int], size: int) -> list[Sequence[int]]:
    """Yields `edges` in chunks of `size`."""
    return [edges[i : i + size] for i in range(0, len(edges), size)]


def convolved(relu: Tensor, layers: Sequence[nn.Module], shares: Sequence[Tensor]) -> Sequence[Tensor]:
    """Computes the outputs of `layers` (ReLU, convolution, normalisation), of one kernel size, times their shares."""
    norms = [norm for layer in layers for norm in layer.children() if isinstance(norm, nn.BatchNorm2d)]
    kernels: list[Tensor] = [layer.get_parameter("1.weight") for layer in layers]
    kernel = kernels[0] if len(kernels) == 1 else torch.cat(kernels)
    z = F.conv2d(relu, kernel, padding=kernel.shape[-1] // 2)
    scale = torch.stack(list(shares)).repeat_interleave(z.shape[1] // len(layers))
    return normalised(z, norms, scale).chunk(len(layers), dim=1)


def normalised(z: Tensor, norms: Sequence[nn.BatchNorm2d], scale: Tensor) -> Tensor:
    """`z` [N, w * C, H, W] normalised, each C channels as one of `norms` does, times `scale` [w * C]."""
    first = norms[0]
    training = first.training or first.running_mean is None
    if first.running_mean is None or (first.training and not first.track_running_stats):
        return F.batch_norm(z, None, None, scale, None, training, 0.0, first.eps)
    means, variances = ([getattr(norm, name) for norm in norms] for name in ("running_mean", "running_var"))
    mean, variance = (kept[0] if len(kept) == 1 else torch.cat(kept) for kept in (means, variances))
    assert first.momentum is not None  # a mean over all batches instead; no supernet is built so
    z = F.batch_norm(z, mean, variance, scale, None, training, first.momentum, first.eps)
    if training:
        if len(norms) > 1:  # what moved is the joined copy
            torch._foreach_copy_(means, list(mean.chunk(len(norms))))
            torch._foreach_copy_(variances, list(variance.chunk(len(norms))))
        torch._foreach_add_([norm.get_buffer("num_batches_tracked") for norm in norms], 1)
    return z


class FusedSupernet(Supernet):
    """The supernet of fast cells."""

    cell_class = FusedCell

    def __init__(self, cell: Cell, shape: Shape, size: Size, running: bool = True) -> None:
        super().__init__(cell, shape, size, running)
        keep_freed_memory()

    def forward(self, x: Tensor, mixture: Mapping[str, Mix]) -> Tensor:
        """Computes the logits with `mixture`, a `Mix` for `cell`."""
        return super().forward(x.contiguous(memory_format=torch.channels_last), mixture)
