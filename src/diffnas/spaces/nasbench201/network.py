"""The network of a genotype, as NAS-Bench-201 trains it (Dong and Yang, 2020, section 2.1)."""

from __future__ import annotations

from torch import Tensor, nn

from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.space import Shape
from diffnas.errors import GenotypeError
from diffnas.spaces.nasbench201.layout import KIND
from diffnas.spaces.nasbench201.ops import OPS, Zero
from diffnas.spaces.nasbench201.trunk import Trunk


class GenotypeCell(nn.Module):
    """A derived cell: [N, C, H, W] -> [N, C, H, W]."""

    def __init__(self, nodes: Nodes, channels: int) -> None:
        super().__init__()
        self.nodes = nodes
        self.ops = nn.ModuleList(OPS[op](channels, True, True) for op in nodes.ops)
        self.searched = nodes.places()
        self.empty = Zero()  # the value of a node that reads nothing

    def forward(self, x: Tensor) -> Tensor:
        """The value of the state that the cell puts out."""
        states, ops = [x], iter(self.ops)
        for node in self.nodes.inputs:
            flows = [next(ops)(states[source]) for _, source in node]
            states.append(sum(flows[1:], flows[0]) if flows else self.empty(x))
        return states[self.nodes.concat[0]]


class Network(Trunk):
    """Images [N, C_in, H, W] -> logits [N, classes]; `layers` cells in each of three stages."""

    def __init__(self, genotype: Genotype, shape: Shape, channels: int = 16, layers: int = 5) -> None:
        nodes = _legal(genotype)
        super().__init__(shape, channels, layers, lambda width: GenotypeCell(nodes, width))

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        return self.walk(x)


def _legal(genotype: Genotype) -> Nodes:
    """The genotype's cell; raises `GenotypeError` with one line per reason why it cannot be built here."""
    if set(genotype.cells) != {KIND}:
        kinds = ", ".join(genotype.cells)
        raise GenotypeError(f"genotype: a nasbench201 genotype has one cell, {KIND}; this one has {kinds}")
    nodes = genotype.cells[KIND]
    problems = [
        f"genotype: cell {KIND}: op {op!r} is unknown; known: {', '.join(OPS)}"
        for op in sorted(set(nodes.ops) - set(OPS))
    ]
    if nodes.first != 1:
        problems.append(f"genotype: cell {KIND} must read one input, not {nodes.first}")
    if len(nodes.concat) != 1:
        problems.append(f"genotype: cell {KIND} must put out one state; concat names {len(nodes.concat)}")
    if problems:
        raise GenotypeError(*problems)
    return nodes
