"""The fast supernet: the plain one's modules, names, values and gradients, by other routes.

It overrides only how a cell is computed: state by state (see `outflow`) instead of edge by edge.  Once differentiable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffnas.core.cell import Cell
from diffnas.core.mixture import Mix
from diffnas.core.space import Shape, Size
from diffnas.kernels.gpu.layout import by_pixels
from diffnas.kernels.memory import keep_freed_memory
from diffnas.spaces.channels import interleave
from diffnas.spaces.darts_cnn.fused import gpu, native
from diffnas.spaces.darts_cnn.fused.buffers import EdgeOp
from diffnas.spaces.darts_cnn.fused.edges import FusedEdges, Plan, kind_of
from diffnas.spaces.darts_cnn.fused.gpu import GpuEdges, GpuPlan
from diffnas.spaces.darts_cnn.layout import CellPlan
from diffnas.spaces.darts_cnn.supernet import Extras, MixedCell, Supernet, thinned
from diffnas.spaces.statistics import RunningStatsUpdates

CHANNELS = 16  # what a CPU's convolutions take at a time: fewer cost as much
CACHE = 2**18  # numbers that a CPU's cache holds: smaller images are computed together
EVALUATED = 2**19  # numbers of a state that kernels take at a time where no gradient is wanted


class FusedCell(MixedCell):
    """A `MixedCell` computed state by state: everything that leaves a state at once."""

    def __init__(self, cell: Cell, plan: CellPlan, partial: int = 1, skip_dropout: bool = False) -> None:
        super().__init__(cell, plan, partial, skip_dropout)
        self.leaving = [
            [e for e, (source, _) in enumerate(cell.edges) if source == state]
            for state in range(cell.inputs + len(cell.nodes))
        ]
        order = torch.tensor([e for edges in self.leaving for e in edges])
        self.register_buffer("order", order, persistent=False)
        self.terms = [
            [
                EdgeOp.of(edge.columns[name], place, op)
                for place, edge in enumerate(map(self.edge, edges))
                for name, op in edge.ops.items()
                if kind_of(op) is not None
            ]
            for edges in self.leaving
        ]
        self.known = [native.known(terms) for terms in self.terms]
        self.known_to_gpus = [gpu.known(terms) for terms in self.terms]
        self.foreign = [
            [name for name, op in edge.ops.items() if kind_of(op) is None]
            for edge in map(self.edge, range(len(self.edges)))
        ]
        self._plans: dict[tuple[int, int, bool], Plan] = {}
        self._gpu_plans: dict[int, GpuPlan] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without plans, which hold addresses of this process and of this cell's weights."""
        return {**self.__dict__, "_plans": {}, "_gpu_plans": {}}

    def forward(self, inputs: list[Tensor], mix: Mix, kept_EN: Tensor | None = None) -> Tensor:
        """`inputs`: the outputs of the cells before, oldest first -> [N, len(concat) * C, H', W']."""
        shares_EO = mix.shares() if mix.edge is None else mix.shares() * mix.edge[:, None]
        shares = shares_EO.index_select(0, self.get_buffer("order")).split([len(edges) for edges in self.leaving])
        mixed: dict[int, list[Tensor]] = {node: [] for node in self.cell.nodes}
        passed: dict[int, list[Tensor]] = {node: [] for node in self.cell.nodes}
        states, moves = list[Tensor](), RunningStatsUpdates()
        for state, edges in enumerate(self.leaving):
            if state < self.cell.inputs:
                states.append(self.preprocess[state](inputs[state]))
            else:
                states.append(self._node(mixed[state], passed[state]))
            if not edges:
                continue
            seen, rest = self.split(states[state], state)
            for e, flow in zip(edges, self._flows(seen, shares[state], state, mix, moves), strict=True):
                target = self.cell.edges[e][1]
                mixed[target].append(thinned(flow, kept_EN, e))
                if rest is not None:
                    passed[target].append(thinned(rest if mix.edge is None else mix.edge[e] * rest, kept_EN, e))
        moves.take()
        return torch.cat([states[i] for i in self.cell.concat], dim=1)

    def _node(self, mixed: list[Tensor], passed: list[Tensor]) -> Tensor:
        """The sum of what arrives; channels that passed by are interleaved once, for all edges."""
        total = sum(mixed[1:], mixed[0])
        if not passed:
            return total
        return interleave(torch.cat([total, sum(passed[1:], passed[0])], dim=1), self.partial)

    # What it calls is a function with state of its own, which a tracer cannot follow.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _flows(self, x: Tensor, shares_EO: Tensor, state: int, mix: Mix, moves: RunningStatsUpdates) -> list[Tensor]:
        """What flows along each edge that leaves `state`, whose ops see `x`; `moves` may take steps of statistics."""
        edges = self.leaving[state]
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        with torch.autocast(x.device.type, enabled=False):
            flows = self._computed(x, shares_EO, state, mix, moves)
        found = []
        for place, (e, flow) in enumerate(zip(edges, flows, strict=True)):
            edge, foreign = self.edge(e), self.foreign[e]
            live = [name for name in foreign if mix.live is None or mix.live[e][edge.columns[name]]]
            parts = [shares_EO[place, edge.columns[name]] * edge.ops[name](x) for name in live]
            parts += [] if flow is None else [flow]
            found.append(sum(parts[1:], parts[0]) if parts else x[:, :, :: edge.stride, :: edge.stride] * 0.0)
        return found

    def _computed(
        self, x: Tensor, shares_EO: Tensor, state: int, mix: Mix, moves: RunningStatsUpdates
    ) -> Sequence[Tensor | None]:
        """What the ops that are not foreign make of `x`, edge by edge."""
        edges = len(self.leaving[state])
        if self.known_to_gpus[state] and gpu.fits(x, self.terms[state]):
            of_gpu = self._gpu_plan(state, mix)
            made = GpuEdges.apply(of_gpu, moves, shares_EO, by_pixels(x), *of_gpu.weights) if of_gpu.terms else None
            return [None] * edges if made is None else made.unbind()
        x = x.contiguous(memory_format=torch.channels_last)
        width = max(1, CHANNELS // x.shape[1], CACHE // x.numel()) if x.device.type == "cpu" else edges
        plan = self._plan(state, width, mix, self.known[state] and native.fits(x, self.terms[state]))
        return self._sums(plan, shares_EO, x) if plan.terms else [None] * edges

    def _sums(self, plan: Plan, shares_EO: Tensor, x: Tensor) -> Sequence[Tensor | None]:
        """What the terms of `plan` add up to on each edge; kernels evaluate few images at a time, as they need much memory."""
        each = max(1, EVALUATED // x[0].numel())
        if not plan.native or self.training or torch.is_grad_enabled() or len(x) <= each:
            return FusedEdges.apply(plan, shares_EO, x, *plan.weights)  # type: ignore[no-any-return]
        pieces = [FusedEdges.apply(plan, shares_EO, piece, *plan.weights) for piece in x.split(each)]
        return [torch.cat(flows) for flows in zip(*pieces, strict=True)]

    def _plan(self, state: int, width: int, mix: Mix, native: bool) -> Plan:
        """The plan of the terms of `state` that are live; that of a mixture in which all are is made once."""
        key = state, width, native
        if mix.live is None and key in self._plans:
            return self._plans[key]
        edges, ops = len(self.leaving[state]), len(self.cell.ops)
        plan = Plan(self._live(state, mix), edges, ops, self.stride_of(state), width, native)
        if mix.live is None:
            self._plans[key] = plan
        return plan

    def _gpu_plan(self, state: int, mix: Mix) -> GpuPlan:
        """The same for a GPU."""
        if mix.live is None and state in self._gpu_plans:
            return self._gpu_plans[state]
        edges, ops = len(self.leaving[state]), len(self.cell.ops)
        plan = GpuPlan(self._live(state, mix), edges, ops, self.stride_of(state))
        if mix.live is None:
            self._gpu_plans[state] = plan
        return plan

    def _live(self, state: int, mix: Mix) -> tuple[EdgeOp, ...]:
        """The terms of `state` that are live."""
        edges = self.leaving[state]
        return tuple(term for term in self.terms[state] if mix.live is None or mix.live[edges[term.edge]][term.column])


class FusedSupernet(Supernet):
    """The supernet of fast cells."""

    cell_class = FusedCell

    def __init__(
        self,
        cells: Mapping[str, Cell],
        shape: Shape,
        size: Size,
        stem_multiplier: int = 3,
        skip_dropout: bool = False,
        extras: Extras = Extras(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(cells, shape, size, stem_multiplier, skip_dropout, extras)
        keep_freed_memory()
