"""What DARTS-PT decides, kept in buffers of the architecture: the op of an edge, and the edges of a node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from diffnas.core.cell import Cell
from diffnas.core.mixture import Mixture
from diffnas.engine import Search, score
from diffnas.errors import Diverged
from diffnas.methods.score_feed import score_batches

T = TypeVar("T")
Criterion = Literal["accuracy", "loss"]
Among = Literal["all", "left"]
OPEN, GONE = -1, -2
"""What `choice_KIND` [E] holds for an edge that is undecided or deleted; for a decided one it is the column of its op."""


def register(arch: nn.Module, cells: Mapping[str, Cell]) -> None:
    """Adds the buffers: nothing is decided."""
    for kind, cell in cells.items():
        arch.register_buffer(f"choice_{kind}", torch.full((len(cell.edges),), OPEN))
    arch.register_buffer("decided_at", torch.tensor(-1))


def left(search: Search) -> dict[str, Tensor]:
    """[E, O] bool per kind: the entries that the decisions have left."""
    found = {}
    for kind, cell in search.space.cells.items():
        choice_E1 = _choice(search, kind)[:, None]
        found[kind] = (choice_E1 == OPEN) | (choice_E1 == torch.arange(len(cell.ops), device=choice_E1.device))
    return found


def decided(search: Search, mixture: Mixture) -> Mixture:
    """`mixture` with a share of 1 for the op of every decided edge, and of 0 for all others that are not left."""
    mixes = {}
    for kind, left_EO in left(search).items():
        mix, undecided = mixture[kind], _choice(search, kind)[:, None] == OPEN
        op = torch.where(undecided, mix.op, left_EO.to(mix.op))
        active = left_EO if mix.active is None else left_EO & (mix.active | ~undecided)
        mixes[kind] = replace(mix, op=op, active=active)
    return Mixture(mixes)


def decide_once(search: Search, criterion: Criterion, among: Among) -> None:
    """Decides what is next for every kind of cell, one after the other, unless this was done at this epoch already."""
    decided_at, draw = search.arch.get_buffer("decided_at"), search.fork("decision")
    if int(decided_at) == search.clock.total:
        return
    decided_at.fill_(search.clock.total)
    for kind, cell in search.space.cells.items():
        chosen = _choice(search, kind).tolist()
        edges = [e for e in range(len(cell.edges)) if chosen[e] == OPEN and cell.eligible(e)]
        degree = len(cell.edges) if cell.in_degree is None else cell.in_degree
        inputs = [[e for e in cell.edges_into(node) if chosen[e] >= 0] for node in cell.nodes]
        crowded = [edges for edges in inputs if len(edges) > degree]
        if edges:
            decide_edge(search, kind, _one_of(edges, draw), criterion)
        elif crowded:
            decide_node(search, kind, _one_of(crowded, draw), degree, criterion, among)


def decide_edge(search: Search, kind: str, edge: int, criterion: Criterion) -> None:
    """Gives `edge` the op that is missed most: without it the supernet is worth least.  Of equals the first counts."""
    ops = search.space.cells[kind].eligible(edge)
    worths = worth_without(search, kind, [(edge, o) for o in ops], criterion)
    _choice(search, kind)[edge] = ops[worths.index(min(worths))]


def decide_node(
    search: Search, kind: str, edges: list[int], degree: int, criterion: Criterion, among: Among = "all"
) -> None:
    """Deletes those of a node's `edges` that are missed least, until `degree` are left.

    Every edge is measured `among` all of them, and of equals the last is deleted first; or among those that are left, anew
    after every deletion, and of equals the first is deleted.
    """
    edges = list(edges)
    if among == "all":
        worths = worth_without(search, kind, edges, criterion)
        for i in sorted(range(len(edges)), key=lambda i: (-worths[i], -i))[: len(edges) - degree]:
            _choice(search, kind)[edges[i]] = GONE
        return
    while len(edges) > degree:
        worths = worth_without(search, kind, edges, criterion)
        _choice(search, kind)[edges.pop(worths.index(max(worths)))] = GONE


def worth_without(
    search: Search, kind: str, entries: Sequence[int | tuple[int, int]], criterion: Criterion
) -> list[float]:
    """The supernet's accuracy (text: 80 / perplexity), or its loss times -1, without each of `entries` in turn, which are
    edges, or edges and ops.

    What stays keeps its share: rows are not scaled up.  Normalisation is by the batch, and leaves no trace.  Raises `Diverged`
    where a loss is not finite.
    """
    mixture = search.relax("eval").detach()
    worths, losses = [], []
    for entry in entries:
        op = mixture[kind].op.clone()
        op[entry] = 0.0
        found = score(search, Mixture({**mixture, kind: replace(mixture[kind], op=op)}), score_batches(search))
        worths.append(found.reward if criterion == "accuracy" else -found.loss)
        losses.append(found.loss)
    if not torch.stack(losses).isfinite().all():
        raise Diverged(
            f"after epoch {search.clock.total} the loss without an op is not finite: the search has diverged"
        )
    return [float(reward) for reward in torch.stack(worths).tolist()]


def _choice(search: Search, kind: str) -> Tensor:
    """[E] int64: what is decided of every edge."""
    return search.arch.get_buffer(f"choice_{kind}")


def _one_of(items: list[T], draw: torch.Generator) -> T:
    return items[int(torch.randint(len(items), (1,), generator=draw))]
