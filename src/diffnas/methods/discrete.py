"""Discrete cells as mixtures and back, and the best of many."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from diffnas.core.cell import Cell
from diffnas.core.constants import to_device
from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.mixture import Mix, Mixture, allowed_mask, softmax_allowed, with_live


def mixture_of(genotype: Genotype, cells: Mapping[str, Cell], like: Tensor) -> Mixture:
    """Returns the mixture that runs only the ops of `genotype`: how often each is chosen, in the precision of `like`."""
    mixes = {}
    for kind, cell in cells.items():
        shares = torch.zeros(len(cell.edges), len(cell.ops))
        for node, inputs in zip(cell.nodes, genotype.cells[kind].inputs, strict=True):
            for op, source in inputs:
                shares[cell.edges.index((source, node)), cell.ops.index(op)] += 1.0
        mixes[kind] = on_device(discrete(shares), like)
    return Mixture(mixes)


def discrete(counts_EO: Tensor) -> Mix:
    """Returns the mix that runs the counted ops; edges without one pass nothing."""
    active = counts_EO > 0
    return Mix(counts_EO, active.any(-1).to(counts_EO), active)


def on_device(mix: Mix, like: Tensor) -> Mix:
    """Moves a discrete `mix` of the host to the device and the precision of `like`; which ops run need not be read back."""
    assert mix.edge is not None and mix.active is not None
    live, place = mix.live, like.device
    op, edge = (to_device(tensor, place, like.dtype) for tensor in (mix.op, mix.edge))
    return with_live(Mix(op, edge, to_device(mix.active, place)), live)


def genotype_of(mixture: Mapping[str, Mix], space: str, cells: Mapping[str, Cell]) -> Genotype:
    """The genotype whose `mixture_of` is `mixture`; inputs are listed by source, then op."""
    nodes_by_kind = {}
    for kind, cell in cells.items():
        counts = mixture[kind].op.round().int().tolist()
        inputs = tuple(
            tuple(
                (cell.ops[o], cell.edges[e][0])
                for e in cell.edges_into(node)
                for o, count in enumerate(counts[e])
                for _ in range(count)
            )
            for node in cell.nodes
        )
        nodes_by_kind[kind] = Nodes(inputs, cell.concat, cell.inputs)
    return Genotype(space, nodes_by_kind)


def chances(cell: Cell) -> Tensor:
    """[E, O]: the chance of every op on its edge where those that may be derived are drawn uniformly."""
    eligible = allowed_mask(cell) & torch.tensor([op not in cell.excluded for op in cell.ops])
    return softmax_allowed(torch.zeros(eligible.shape), eligible)


class TopK(nn.Module):
    """The best discrete mixtures so far: their `accuracy` [P] (text: 80 / perplexity), best first (-1: no one yet), and their
    shares [P, E, O] per kind."""

    accuracy: Tensor

    def __init__(self, cells: Mapping[str, Cell], places: int = 1) -> None:
        super().__init__()
        self.kinds = tuple(cells)
        self.register_buffer("accuracy", torch.full((places,), -1.0))
        for kind, cell in cells.items():
            self.register_buffer(f"op_{kind}", torch.zeros(places, len(cell.edges), len(cell.ops)))

    def clear(self) -> None:
        """Removes all entries."""
        self.accuracy.fill_(-1.0)

    def insert(self, mixture: Mapping[str, Mix], accuracy: Tensor) -> None:
        """Inserts `mixture` if it is better than the last entry; of equals the earlier ranks higher."""
        every = torch.cat([self.accuracy, accuracy.to(self.accuracy)[None]])
        order = every.sort(descending=True, stable=True).indices[:-1]
        self.accuracy.copy_(every[order])
        for kind in self.kinds:
            shares = self.get_buffer(f"op_{kind}")
            shares.copy_(torch.cat([shares, mixture[kind].op.to(shares)[None]])[order])

    def best(self, place: int = 0) -> Mixture | None:
        """Returns the mixture at rank `place`, or None if there is none; reads it back to the host."""
        if self.accuracy[place] < 0:
            return None
        return Mixture({kind: discrete(self.get_buffer(f"op_{kind}")[place].clone()) for kind in self.kinds})


class Rounds(nn.Module):
    """Rounds of selection: the finalists of the current round and the winner of earlier ones."""

    def __init__(self, cells: Mapping[str, Cell], places: int) -> None:
        super().__init__()
        self.finalists, self.winner = TopK(cells, places), TopK(cells)

    def best(self) -> Mixture | None:
        """Returns the winner; before there is one, the first finalist; None before there are any."""
        return self.winner.best() or self.finalists.best()
