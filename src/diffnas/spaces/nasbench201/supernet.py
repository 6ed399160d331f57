"""The supernet of NAS-Bench-201, written to be read: the truth that the fast one is tested against.

Every edge computes all of its allowed ops and adds them up by the shares of the mixture:

    edge(x) = sum_o op_EO[e, o] * op_o(x)        node = sum of its edges        cell = its last node
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from diffnas.core.cell import Cell
from diffnas.core.mixture import Mix
from diffnas.core.space import Shape, Size
from diffnas.spaces.channels import interleave
from diffnas.spaces.nasbench201.layout import KIND, STAGES
from diffnas.spaces.nasbench201.ops import OPS
from diffnas.spaces.nasbench201.trunk import Trunk


class MixedEdge(nn.Module):
    """All allowed ops of one edge: [N, C, H, W] -> [N, C, H, W].

    `none` adds nothing and is not built; its share still counts in whatever made the mixture.
    """

    def __init__(self, ops: tuple[str, ...], allowed: tuple[bool, ...], channels: int, running: bool) -> None:
        super().__init__()
        self.columns = {name: o for o, name in enumerate(ops) if allowed[o] and name != "none"}
        self.ops = nn.ModuleDict({name: OPS[name](channels, False, running) for name in self.columns})

    def forward(self, x: Tensor, op_O: Tensor, live: Sequence[bool] | None = None) -> Tensor:
        """The sum of the ops' outputs, weighted by `op_O` [O]; those that are not `live` do not run."""
        names = [name for name in self.ops if live is None or live[self.columns[name]]]
        terms = [op_O[self.columns[name]] * self.ops[name](x) for name in names]
        return sum(terms[1:], terms[0]) if terms else x * 0.0


class MixedCell(nn.Module):
    """A cell of the supernet: [N, C, H, W] -> [N, C, H, W].

    With `partial` K > 1, the ops of every edge see the first C/K channels; the others pass by, and the K groups of channels
    are interleaved (Xu et al., PC-DARTS, 2020, equation 2).
    """

    def __init__(self, cell: Cell, channels: int, partial: int = 1, running: bool = True) -> None:
        super().__init__()
        self.cell, self.partial = cell, partial
        self.edges = nn.ModuleList(
            MixedEdge(cell.ops, allowed, channels // partial, running) for allowed in cell.allowed
        )

    def forward(self, x: Tensor, mix: Mix) -> Tensor:
        """The value of the last node."""
        shares_EO = mix.shares()
        states = [x]
        for node in self.cell.nodes:
            flows = []
            for e in self.cell.edges_into(node):
                seen, passed = self.split(states[self.cell.edges[e][0]])
                mixed = self.edge(e)(seen, shares_EO[e], None if mix.live is None else mix.live[e])
                flow = mixed if passed is None else interleave(torch.cat([mixed, passed], dim=1), self.partial)
                flows.append(flow if mix.edge is None else mix.edge[e] * flow)
            states.append(sum(flows[1:], flows[0]))
        return states[-1]

    def edge(self, e: int) -> MixedEdge:
        """Returns edge `e`."""
        edge = self.edges[e]
        assert isinstance(edge, MixedEdge)
        return edge

    def split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Splits a state into the channels that the ops see and those that bypass them (None: none)."""
        if self.partial == 1:
            return x, None
        seen, passed = x.tensor_split([x.shape[1] // self.partial], dim=1)
        return seen, passed


class Supernet(Trunk):
    """`supernet(x, mixture)`: images [N, C_in, H, W] -> logits [N, classes].

    `running` False: the cells' normalisations keep no running statistics and always use the batch's.
    """

    cell_class: ClassVar[type[MixedCell]] = MixedCell

    def __init__(self, cell: Cell, shape: Shape, size: Size, running: bool = True) -> None:
        super().__init__(
            shape, size.channels, size.layers, lambda width: self.cell_class(cell, width, size.partial, running)
        )

    def forward(self, x: Tensor, mixture: Mapping[str, Mix]) -> Tensor:
        """Computes the logits with `mixture`, a `Mix` for `cell`."""
        return self.walk(x, [mixture[KIND].cell(index) for index in range(STAGES * self.layers)])
