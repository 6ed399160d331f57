"""Derivation of discrete cells from strengths, and random cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from diffnas.core.cell import Cell
from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.space import Space


def strongest(
    cell: Cell,
    strength_EO: Tensor,
    rule: Literal["edges", "pairs", "all"] = "edges",
    ties: Literal["first", "last"] = "first",
) -> Nodes:
    """The nodes of a derived cell.

    `strength_EO` [E, O] must be comparable across the edges of a node, like the shares of a softmax.  By `rule`, a node keeps

    - "edges": its `in_degree` strongest edges, on each the strongest op that may be derived (Liu et al., 2019, 2.4);
    - "pairs": its `in_degree` strongest (edge, op) pairs, so that both may be on one edge (GDAS's published code);
    - "all": every edge whose strongest op, excluded ones included, may be derived (SNAS).

    Inputs are listed strongest first ("all": by source).  Of equals the earlier op counts, and the earlier edge, or by
    `ties` the later one.
    """
    rows = strength_EO.tolist()
    sign = 1 if ties == "first" else -1
    inputs = []
    for node in cell.nodes:
        pairs = []
        for e in cell.edges_into(node):
            eligible = cell.eligible(e)
            columns = [o for o, allowed in enumerate(cell.allowed[e]) if allowed] if rule == "all" else eligible
            ranked = sorted(columns, key=lambda o: -rows[e][o])
            chosen = ranked if rule == "pairs" else ranked[:1]
            pairs += [(rows[e][o], e, o) for o in chosen if o in eligible]
        if cell.in_degree is not None and rule != "all":
            pairs = sorted(pairs, key=lambda pair: (-pair[0], sign * pair[1]))[: cell.in_degree]
        inputs.append(tuple((cell.ops[o], cell.edges[e][0]) for _, e, o in pairs))
    return Nodes(tuple(inputs), cell.concat, cell.inputs)


def sampled_genotypes(
    space: Space, strength: Mapping[str, Tensor], count: int, generator: torch.Generator
) -> list[Genotype]:
    """`count` genotypes of `space`: on every edge an op is drawn in proportion to `strength` [E, O] among those that may be
    derived, then the strongest edges are kept."""
    genotypes = []
    for _ in range(count):
        cells = {}
        for kind, cell in space.cells.items():
            shares = strength[kind].detach().cpu().double().clamp_min(0.0)
            eligible = torch.zeros_like(shares)
            for e in range(len(cell.edges)):
                eligible[e, cell.eligible(e)] = 1.0
            weights = shares * eligible + 1e-12 * eligible
            open_edges = weights.sum(1) > 0
            chosen = torch.zeros_like(shares)
            drawn = torch.multinomial(weights[open_edges], 1, generator=generator)
            chosen[open_edges] = torch.zeros_like(weights[open_edges]).scatter_(1, drawn, 1.0)
            cells[kind] = strongest(cell, chosen * (1.0 + shares))
        genotypes.append(Genotype(space.name, cells, {"source": "sampled"}))
    return genotypes


def random_genotype(space: str, cells: Mapping[str, Cell], generator: torch.Generator) -> Genotype:
    """A genotype drawn uniformly: the edges each node keeps, then an op on each, among those that may be derived."""

    def draw(items: list[int], count: int) -> list[int]:
        return [items[i] for i in torch.randperm(len(items), generator=generator)[:count].tolist()]

    drawn = {}
    for kind, cell in cells.items():
        inputs = []
        for node in cell.nodes:
            eligible = {e: cell.eligible(e) for e in cell.edges_into(node)}
            edges = [e for e, ops in eligible.items() if ops]
            kept = sorted(draw(edges, len(edges) if cell.in_degree is None else cell.in_degree))
            inputs.append(tuple((cell.ops[draw(eligible[e], 1)[0]], cell.edges[e][0]) for e in kept))
        drawn[kind] = Nodes(tuple(inputs), cell.concat, cell.inputs)
    return Genotype(space, drawn, {"source": "random"})
