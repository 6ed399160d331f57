"""The constants of the space, and how cells are chained: which reduce, how many channels each has, what its inputs need.

Supernets and networks share this plan.  Cells at one third and two thirds of the depth are reduction cells: they double
the channels and halve the resolution.  An input that comes from before a reduction is halved on its way in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OPS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
KINDS = ("normal", "reduce")
PUBLISHED_OPS = (*OPS, "sep_conv_7x7", "conv_7x1_1x7")  # what published cells use besides
SEARCHED_OPS = [*PUBLISHED_OPS, "auxiliary_skip", "noise"]  # what supernets may hold; plug-ins add theirs


def reductions(layers: int) -> tuple[int, ...]:
    """The indices of the reduction cells in a chain of `layers` cells: at one third and two thirds."""
    return tuple(sorted({layers // 3, 2 * layers // 3}))


@dataclass(frozen=True)
class CellPlan:
    """A cell in the chain: its kind, its channels, and per input (channels, halvings still to be done)."""

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
