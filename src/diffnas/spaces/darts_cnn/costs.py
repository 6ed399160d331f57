"""What every op costs in networks of the space, by the rule of `core.count`: CIFAR stem, nothing after pooling ops."""

from __future__ import annotations

from functools import cache

import torch

from diffnas.core.count import Unit, count
from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.space import Shape, Size
from diffnas.spaces.darts_cnn.network import Network
from diffnas.spaces.darts_cnn.ops import OPS
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.darts_cnn.trunk import plan_cells


def op_costs(space: DartsCNN, shape: Shape, unit: Unit, size: Size) -> dict[str, list[list[float]]]:
    """[E, O] per kind: the cost of every op of every edge, summed over the cells of the kind; `size.partial` plays no part."""
    cells, side = space.cells, shape.side
    costs = {kind: [[0.0] * len(cell.ops) for _ in cell.edges] for kind, cell in cells.items()}
    outputs = {kind: len(cell.concat) for kind, cell in cells.items()}
    plans, _ = plan_cells(size.layers, size.channels, [(size.channels, 0)] * space.inputs, outputs)
    for plan in plans:
        for (source, _), row in zip(cells[plan.kind].edges, costs[plan.kind], strict=True):
            stride, seen = (plan.stride, side) if source < space.inputs else (1, side // plan.stride)
            for o, op in enumerate(space.ops):
                row[o] += _cost(op, plan.channels, stride, seen, unit)
        side //= plan.stride
    return costs


def fixed_cost(space: DartsCNN, shape: Shape, unit: Unit, size: Size) -> float:
    """The cost of what every network of this size has: stem, inputs of the cells, classifier."""
    nodes = {kind: Nodes(((),) * len(cell.nodes), cell.concat, cell.inputs) for kind, cell in space.cells.items()}
    with torch.device("meta"):
        network = Network(Genotype(space.name, nodes), shape, size.channels, size.layers)
    return float(getattr(count(network, (shape.channels, shape.side, shape.side)), unit))


@cache
def _cost(op: str, channels: int, stride: int, side: int, unit: Unit) -> float:
    with torch.device("meta"):
        layer = OPS[op](channels, stride, True, "none")
    return float(getattr(count(layer, (channels, side, side)), unit))
