"""The network of a recurrent genotype, trained from scratch (Liu et al., 2019, sections 3.2.2 and A.3).

A node reads one state, through one activation; there is no normalisation.  It runs by the recurrence of the fast supernet.
"""

from __future__ import annotations

from torch import Tensor

from diffnas.core.batch import LanguageModelOutput
from diffnas.core.genotype import Genotype, Nodes
from diffnas.errors import GenotypeError
from diffnas.kernels.memory import keep_freed_memory
from diffnas.spaces.darts_rnn.fused import NodeReads, Plan, recur
from diffnas.spaces.darts_rnn.layout import KIND, Dropouts
from diffnas.spaces.darts_rnn.ops import ACTIVATIONS, CellWeights, LanguageModel


class GenotypeCell(CellWeights):
    """A derived cell, run through time."""

    def __init__(self, nodes: Nodes, units: int) -> None:
        super().__init__(units, len(nodes.inputs))
        reads = [NodeReads((source,), (), ((op, 0),)) for ((op, source),) in nodes.inputs]
        self.plan = Plan(tuple(reads), nodes.concat)

    def forward(self, x: Tensor, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Inputs [T, N, H], first hidden state [N, H], mask [N, H] of what is read of states -> hidden states [T, N, H]."""
        return recur(self.plan, x, hidden, mask, self.start, tuple(self.nodes))[0]


class Network(LanguageModel):
    """`network((tokens, carry))`: tokens [T, N] and a carry [1, N, H] or None -> `LanguageModelOutput`."""

    def __init__(self, genotype: Genotype, vocabulary: int, units: int, dropouts: Dropouts) -> None:
        nodes = _legal(genotype)
        super().__init__(vocabulary, units, dropouts)
        self.cell = GenotypeCell(nodes, units)
        keep_freed_memory()

    def forward(self, inputs: tuple[Tensor, Tensor | None]) -> LanguageModelOutput:
        """Returns the language model's outputs for the tokens."""
        return self.speak(*inputs, self.cell)


def _legal(genotype: Genotype) -> Nodes:
    """The genotype's cell; raises `GenotypeError` with one line per reason why it cannot be built here."""
    if set(genotype.cells) != {KIND}:
        kinds = ", ".join(genotype.cells)
        raise GenotypeError(f"genotype: a darts-rnn genotype has one cell, {KIND}; this one has {kinds}")
    nodes = genotype.cells[KIND]
    problems = [
        f"genotype: cell {KIND}: op {op!r} is unknown; known: {', '.join(ACTIVATIONS)}"
        for op in sorted(set(nodes.ops) - set(ACTIVATIONS))
    ]
    if nodes.first != 1:
        problems.append(f"genotype: cell {KIND} must have one state to start from, not {nodes.first}")
    problems += [
        f"genotype: cell {KIND}, node {nodes.first + k} has {len(node)} inputs; a recurrent node reads one state"
        for k, node in enumerate(nodes.inputs)
        if len(node) != 1
    ]
    if problems:
        raise GenotypeError(*problems)
    return nodes
