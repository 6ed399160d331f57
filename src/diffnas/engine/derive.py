"""From strengths to a discrete cell, and cells drawn at random."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from diffnas.core.cell import Cell
from diffnas.core.genotype import Genotype, Nodes


def strongest(cell: Cell, strength_EO: Tensor) -> Nodes:
    """The nodes of a derived cell: per node the `in_degree` strongest edges, on each its strongest op (Liu et al., 2019, 2.4).

    `strength_EO` [E, O] must be comparable across the edges of a node, like the shares of a softmax.  An edge is as strong as
    its strongest op that may be derived; edges are listed strongest first; ties go to the earlier edge and the earlier op.
    """
    rows = strength_EO.tolist()
    best: dict[int, tuple[float, int]] = {}
    for e, row in enumerate(rows):
        eligible = _eligible(cell, e)
        if eligible:
            top = max(eligible, key=lambda o: row[o])  # max keeps the first of equals
            best[e] = (row[top], top)
    inputs = []
    for node in cell.nodes:
        edges = [e for e in cell.edges_into(node) if e in best]
        if cell.in_degree is not None:
            edges = sorted(edges, key=lambda e: -best[e][0])[: cell.in_degree]
        inputs.append(tuple((cell.ops[best[e][1]], cell.edges[e][0]) for e in edges))
    return Nodes(tuple(inputs), cell.concat, cell.inputs)


def random_genotype(space: str, cells: Mapping[str, Cell], generator: torch.Generator) -> Genotype:
    """A genotype drawn uniformly: the edges each node keeps, then an op on each, among those that may be derived."""

    def draw(items: list[int], count: int) -> list[int]:
        return [items[i] for i in torch.randperm(len(items), generator=generator)[:count].tolist()]

    drawn = {}
    for kind, cell in cells.items():
        inputs = []
        for node in cell.nodes:
            eligible = {e: _eligible(cell, e) for e in cell.edges_into(node)}
            edges = [e for e, ops in eligible.items() if ops]
            kept = sorted(draw(edges, len(edges) if cell.in_degree is None else cell.in_degree))
            inputs.append(tuple((cell.ops[draw(eligible[e], 1)[0]], cell.edges[e][0]) for e in kept))
        drawn[kind] = Nodes(tuple(inputs), cell.concat, cell.inputs)
    return Genotype(space, drawn, {"source": "random"})


def _eligible(cell: Cell, edge: int) -> list[int]:
    """The columns of the ops that may be derived on `edge`."""
    return [o for o, op in enumerate(cell.ops) if cell.allowed[edge][o] and op not in cell.excluded]
