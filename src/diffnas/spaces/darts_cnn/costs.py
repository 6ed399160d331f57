"""The cost of every op in networks of the space, by the rule of `core.count`: nothing after pooling ops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

import torch

from diffnas.core.cell import Cell
from diffnas.core.count import Resources, Unit, count, resources
from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.space import Shape, Size
from diffnas.spaces.darts_cnn.layout import plan_cells
from diffnas.spaces.darts_cnn.network import Network
from diffnas.spaces.darts_cnn.ops import OPS
from diffnas.spaces.darts_cnn.stem import Stem


def op_costs(
    cells: Mapping[str, Cell], shape: Shape, unit: Unit, size: Size, stem: Stem = "cifar"
) -> dict[str, list[list[float]]]:
    """[E, O] per kind: the cost of every op of every edge, summed over the cells of the kind; `size.partial` plays no part."""
    costs = {kind: [[0.0] * len(cell.ops) for _ in cell.edges] for kind, cell in cells.items()}
    for kind, places in _edges(cells, shape, size, stem):
        for row, place in zip(costs[kind], places, strict=True):
            for o, op in enumerate(cells[kind].ops):
                row[o] += _cost(op, *place, unit)
    return costs


def op_resources(
    cells: Mapping[str, Cell], shape: Shape, size: Size, stem: Stem = "cifar"
) -> dict[str, list[list[list[Resources]]]]:
    """[cells, E, O] per kind: the cost of every op in every cell by the rule of SNAS's code."""
    rows: dict[str, list[list[list[Resources]]]] = {kind: [] for kind in cells}
    for kind, places in _edges(cells, shape, size, stem):
        rows[kind].append([[_resources(op, *place) for op in cells[kind].ops] for place in places])
    return rows


def _edges(
    cells: Mapping[str, Cell], shape: Shape, size: Size, stem: Stem
) -> Iterator[tuple[str, list[tuple[int, int, int]]]]:
    """Yields for every cell of the chain its kind and the (channels, stride, side of what they read) of its edges."""
    side, inputs = shape.side // (1 if stem == "cifar" else 8), next(iter(cells.values())).inputs
    outputs = {kind: len(cell.concat) for kind, cell in cells.items()}
    plans, _ = plan_cells(size.layers, size.channels, [(size.channels, 0)] * inputs, outputs)
    for plan in plans:
        within, after = (plan.channels, plan.stride, side), (plan.channels, 1, side // plan.stride)
        yield plan.kind, [within if source < inputs else after for source, _ in cells[plan.kind].edges]
        side //= plan.stride


def fixed_cost(
    name: str, cells: Mapping[str, Cell], shape: Shape, unit: Unit, size: Size, stem: Stem = "cifar"
) -> float:
    """The cost of what every network of this size has: stem, inputs of the cells, classifier."""
    nodes = {kind: Nodes(((),) * len(cell.nodes), cell.concat, cell.inputs) for kind, cell in cells.items()}
    with torch.device("meta"):
        network = Network(Genotype(name, nodes), shape, size.channels, size.layers, stem)
    return float(getattr(count(network, (shape.channels, shape.side, shape.side)), unit))


@cache
def _cost(op: str, channels: int, stride: int, side: int, unit: Unit) -> float:
    with torch.device("meta"):
        layer = OPS[op](channels, stride, True, "none")
    return float(getattr(count(layer, (channels, side, side)), unit))


@cache
def _resources(op: str, channels: int, stride: int, side: int) -> Resources:
    with torch.device("meta"):
        return resources(OPS[op](channels, stride, False, "plain"), (channels, side, side))
