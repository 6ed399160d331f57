"""The supernet of DARTS, written to be read: the truth that faster versions are tested against (Liu et al., 2019).

Every edge computes all of its allowed ops and adds them up by the shares of the mixture:

    edge(x) = sum_o op_EO[e, o] * op_o(x)        node = sum of its edges        cell = concatenation of its nodes
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from diffnas.core.cell import Cell
from diffnas.core.mixture import Mix
from diffnas.core.space import Shape, Size
from diffnas.spaces.darts_cnn.ops import OPS
from diffnas.spaces.darts_cnn.trunk import CellPlan, plan_cells, preprocess


class MixedEdge(nn.Module):
    """All allowed ops of one edge: [N, C, H, W] -> [N, C, H/stride, W/stride].

    `none` adds nothing and is not built; its share still counts in whatever made the mixture.
    """

    def __init__(self, ops: tuple[str, ...], allowed: tuple[bool, ...], channels: int, stride: int) -> None:
        super().__init__()
        self.columns = {name: o for o, name in enumerate(ops) if allowed[o] and name != "none"}
        built = {name: OPS[name](channels, stride, False, "plain") for name in self.columns}
        self.ops = nn.ModuleDict(built)
        self.stride = stride

    def forward(self, x: Tensor, op_O: Tensor) -> Tensor:
        """The sum of the ops' outputs, weighted by `op_O` [O]."""
        terms = [op_O[self.columns[name]] * op(x) for name, op in self.ops.items()]
        return sum(terms[1:], terms[0]) if terms else x[:, :, :: self.stride, :: self.stride] * 0.0


class MixedCell(nn.Module):
    """One cell of the supernet: its inputs, fitted to its channels, then its nodes, in order."""

    def __init__(self, cell: Cell, plan: CellPlan) -> None:
        super().__init__()
        self.cell = cell
        self.preprocess = preprocess(plan, affine=False)
        strides = [plan.stride if source < cell.inputs else 1 for source, _ in cell.edges]
        self.edges = nn.ModuleList(
            MixedEdge(cell.ops, allowed, plan.channels, stride)
            for allowed, stride in zip(cell.allowed, strides, strict=True)
        )

    def forward(self, inputs: list[Tensor], mix: Mix) -> Tensor:
        """`inputs`: the outputs of the cells before, oldest first -> [N, len(concat) * C, H', W']."""
        shares_EO = mix.shares()
        states = [fit(x) for fit, x in zip(self.preprocess, inputs, strict=True)]
        for node in self.cell.nodes:
            flows = []
            for e in self.cell.edges_into(node):
                flow = self.edges[e](states[self.cell.edges[e][0]], shares_EO[e])
                flows.append(flow if mix.edge is None else mix.edge[e] * flow)
            states.append(sum(flows[1:], flows[0]))
        return torch.cat([states[i] for i in self.cell.concat], dim=1)


class Supernet(nn.Module):
    """`supernet(x, mixture)`: images [N, C_in, H, W] -> logits [N, classes].

    The stem's normalisation is the only affine one.  Sides must be divisible by 4 (two halvings).
    """

    def __init__(self, cells: Mapping[str, Cell], shape: Shape, size: Size, stem_multiplier: int = 3) -> None:
        super().__init__()
        width = stem_multiplier * size.channels
        inputs = next(iter(cells.values())).inputs
        self.stem = nn.Sequential(
            nn.Conv2d(shape.channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        outputs = {kind: len(cell.concat) for kind, cell in cells.items()}
        plans, last = plan_cells(size.layers, size.channels, [(width, 0)] * inputs, outputs)
        self.inputs = inputs
        self.kinds = [plan.kind for plan in plans]
        self.cells = nn.ModuleList(MixedCell(cells[plan.kind], plan) for plan in plans)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, shape.classes)

    def forward(self, x: Tensor, mixture: Mapping[str, Mix]) -> Tensor:
        """Spends `mixture`, a `Mix` for `normal` and one for `reduce`."""
        history = [self.stem(x)] * self.inputs
        for kind, cell in zip(self.kinds, self.cells, strict=True):
            history = [*history[1:], cell(history, mixture[kind])]
        return self.classifier(self.pool(history[-1]).flatten(1))
