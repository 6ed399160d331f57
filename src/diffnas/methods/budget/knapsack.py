"""The strongest cells within a limit on their cost: exact, by dynamic programming over edges and nodes.

A cell's strength is the sum of the strengths of its (edge, op) entries, so that without a limit the strongest cell is the
one that `engine.strongest` derives.  Of all choices for the nodes seen so far only those are kept that no other beats in both
cost and strength (the Pareto front): whatever the other nodes choose, the best whole is among their continuations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from diffnas.core.cell import Cell
from diffnas.core.genotype import Nodes

Rows = Sequence[Sequence[float]]
"""[E, O]."""


class Choice(NamedTuple):
    """Entries (kind, edge, op) with the sums of their costs and strengths."""

    cost: float = 0.0
    strength: float = 0.0
    entries: tuple[tuple[str, int, int], ...] = ()


def affordable(
    cells: Mapping[str, Cell], strength: Mapping[str, Rows], costs: Mapping[str, Rows], limit: float
) -> dict[str, Nodes]:
    """Returns the strongest nodes whose total cost is at most `limit`, or the cheapest if all cost more.

    A node has its `in_degree` edges (all, for None), or as many as may carry an op; its inputs are listed strongest first.
    """
    options = [_of_node(kind, c, node, strength[kind], costs[kind]) for kind, c in cells.items() for node in c.nodes]
    cheapest = list(accumulate((front[0].cost for front in reversed(options)), initial=0.0))[
        -2::-1
    ]  # of the later nodes
    room = limit * (1 + 1e-12)  # sums of costs are rounded
    fronts = [Choice()]
    for front, rest in zip(options, cheapest, strict=True):
        fitting = [(a, b) for a in fronts for b in front if a.cost + b.cost + rest <= room]
        fronts = _front(_joined(a, b) for a, b in fitting or [(fronts[0], front[0])])
    chosen: dict[tuple[str, int], list[tuple[float, int, str]]] = {}
    for kind, e, o in fronts[-1].entries:
        source, node = cells[kind].edges[e]
        chosen.setdefault((kind, node), []).append((-strength[kind][e][o], source, cells[kind].ops[o]))
    nodes = {
        kind: tuple(tuple((op, source) for _, source, op in sorted(chosen.get((kind, n), []))) for n in cell.nodes)
        for kind, cell in cells.items()
    }
    return {kind: Nodes(nodes[kind], cell.concat, cell.inputs) for kind, cell in cells.items()}


def cost_of(cells: Mapping[str, Cell], nodes: Mapping[str, Nodes], costs: Mapping[str, Rows]) -> float:
    """Returns the total cost of the ops of `nodes`."""
    return sum(
        costs[kind][cell.edges.index((source, node))][cell.ops.index(op)]
        for kind, cell in cells.items()
        for node, inputs in zip(cell.nodes, nodes[kind].inputs, strict=True)
        for op, source in inputs
    )


def cheapest(cells: Mapping[str, Cell], costs: Mapping[str, Rows]) -> float:
    """Returns the total cost of the ops of the cheapest cells."""
    return cost_of(cells, affordable(cells, costs, costs, 0.0), costs)


def usual(cells: Mapping[str, Cell], costs: Mapping[str, Rows]) -> float:
    """The expected cost where all allowed ops of an edge have the same share."""
    total = 0.0
    for kind, cell in cells.items():
        for allowed, row in zip(cell.allowed, expected(cell, costs[kind]), strict=True):
            total += sum(c for c, ok in zip(row, allowed, strict=True) if ok) / max(1, sum(allowed))
    return total


def expected(cell: Cell, costs_EO: Rows) -> list[list[float]]:
    """[E, O]: the costs times the chance that an edge is kept, if all inputs of a node are equally likely to be."""
    fans = [len(cell.edges_into(target)) for _, target in cell.edges]
    chances = [1.0 if cell.in_degree is None else min(1.0, cell.in_degree / fan) for fan in fans]
    return [[chance * cost for cost in row] for chance, row in zip(chances, costs_EO, strict=True)]


def _of_node(kind: str, cell: Cell, node: int, strength_EO: Rows, costs_EO: Rows) -> list[Choice]:
    """The front of the choices for one node."""
    edges = []
    for e in cell.edges_into(node):
        edges.append(_front(Choice(costs_EO[e][o], strength_EO[e][o], ((kind, e, o),)) for o in cell.eligible(e)))
    edges = [front for front in edges if front]
    degree = len(edges) if cell.in_degree is None else min(cell.in_degree, len(edges))
    fronts: list[list[Choice]] = [[Choice()], *([] for _ in range(degree))]  # by the number of edges taken
    for front in edges:
        for count in range(degree, 0, -1):
            taken = (_joined(a, b) for a in fronts[count - 1] for b in front)
            fronts[count] = _front([*fronts[count], *taken])
    return fronts[degree]


def _joined(a: Choice, b: Choice) -> Choice:
    return Choice(a.cost + b.cost, a.strength + b.strength, a.entries + b.entries)


def _front(choices: Iterable[Choice]) -> list[Choice]:
    """Returns the Pareto front in cost and strength, sorted by cost; of equals the first."""
    best: list[Choice] = []
    for choice in sorted(choices, key=lambda c: (c.cost, -c.strength)):
        if not best or choice.strength > best[-1].strength:
            best.append(choice)
    return best
