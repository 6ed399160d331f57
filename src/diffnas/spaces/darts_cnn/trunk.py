"""How cells are chained: which reduce, how many channels each has, and what fits its inputs to it.

Supernets and networks share this plan.  Cells at one third and two thirds of the depth are reduction cells: they double
the channels and halve the resolution.  An input that comes from before a reduction is halved on its way in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from diffnas.spaces.darts_cnn.ops import FactorizedReduce, ReLUConvBN
from diffnas.spaces.darts_cnn.space import reductions


@dataclass(frozen=True)
class CellPlan:
    """One cell of the chain: its kind, its channels, and per input (channels, halvings still to be done)."""

    kind: str
    channels: int
    inputs: tuple[tuple[int, int], ...]

    @property
    def stride(self) -> int:
        """The stride of the edges that leave the cell's inputs."""
        return 2 if self.kind == "reduce" else 1


def plan_cells(
    layers: int, channels: int, stem: Sequence[tuple[int, int]], outputs: Mapping[str, int]
) -> tuple[list[CellPlan], int]:
    """The chain, and the channels it ends with.

    `stem` gives (channels, halvings so far) of the states before the first cell, as many as a cell has inputs;
    `outputs[kind]` is the number of nodes that a cell of this kind concatenates.
    """
    history, plans = list(stem), []
    for index in range(layers):
        kind = "reduce" if index in reductions(layers) else "normal"
        channels *= 2 if kind == "reduce" else 1
        level = history[-1][1]
        plans.append(CellPlan(kind, channels, tuple((width, level - halved) for width, halved in history)))
        history = [*history[1:], (outputs[kind] * channels, level + (kind == "reduce"))]
    return plans, history[-1][0]


def preprocess(plan: CellPlan, affine: bool) -> nn.ModuleList:
    """One module per input of the cell: a 1x1 convolution, or a halving where the input is twice as large."""
    layers: list[nn.Module] = []
    for width, halvings in plan.inputs:
        if halvings > 1:
            raise ValueError("inputs: a cell cannot read across two reductions; use fewer inputs or more layers")
        fit = FactorizedReduce if halvings else ReLUConvBN
        layers.append(fit(width, plan.channels, affine=affine))
    return nn.ModuleList(layers)
