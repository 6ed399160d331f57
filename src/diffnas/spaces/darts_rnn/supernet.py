"""The recurrent supernet of DARTS, written to be read: the truth that the fast one is tested against (Liu et al., 2019).

The cell starts from the word x and its own last output h, and every node mixes what its edges make of earlier states:

    [c, g] = [x, h] W_0            s_0 = h + sigmoid(c) (tanh(g) - h)
    [c, g] = s_j W_i               s_i = sum_j sum_o op_EO[ij, o] (s_j + sigmoid(c) (o(g) - s_j))

One normalisation without affine parameters, the same for all nodes and moments, follows s_0 and every node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from diffnas.core.batch import LanguageModelOutput
from diffnas.core.cell import Cell
from diffnas.core.mixture import Mix
from diffnas.spaces.darts_rnn.layout import KIND, Dropouts
from diffnas.spaces.darts_rnn.ops import ACTIVATIONS, CellWeights, LanguageModel, masked

Live = tuple[tuple[bool, ...], ...] | None
"""Which [E, O] entries of a mixture are active, on the host (None: all)."""


class MixedCell(CellWeights):
    """The recurrent cell of the supernet, run through time."""

    def __init__(self, cell: Cell, units: int) -> None:
        super().__init__(units, len(cell.nodes))
        self.cell = cell
        self.norm = nn.BatchNorm1d(units, affine=False)

    def forward(self, x: Tensor, hidden: Tensor, mask: Tensor | None, mix: Mix) -> Tensor:
        """Inputs [T, N, H], first hidden state [N, H], mask [N, H] of what is read of states -> hidden states [T, N, H]."""
        shares_EO, outputs = mix.shares(), []
        for x_NH in x:
            hidden = self.moment(x_NH, hidden, mask, shares_EO, mix)
            outputs.append(hidden)
        return torch.stack(outputs)

    def moment(self, x: Tensor, hidden: Tensor, mask: Tensor | None, shares_EO: Tensor, mix: Mix) -> Tensor:
        """The next hidden state [N, H], of one word."""
        c, g = (torch.cat([x, masked(hidden, mask)], dim=1) @ self.start).chunk(2, dim=1)
        states = [self.norm(hidden + c.sigmoid() * (g.tanh() - hidden))]
        for node in self.cell.nodes:
            flows = [states[0] * 0.0]
            for e in self.cell.edges_into(node):
                source = states[self.cell.edges[e][0]]
                c, g = (masked(source, mask) @ self.nodes[node - 1]).chunk(2, dim=1)
                for op, o in self.running(e, mix.live).items():
                    share = shares_EO[e, o] if mix.edge is None else shares_EO[e, o] * mix.edge[e]
                    flows.append(share * (source + c.sigmoid() * (ACTIVATIONS[op](g) - source)))
            states.append(self.norm(sum(flows[1:], flows[0])))
        return torch.stack([states[i] for i in self.cell.concat]).mean(dim=0)

    def running(self, e: int, live: Live) -> dict[str, int]:
        """The columns of the activations that run on edge `e`, by name."""
        return {
            op: o
            for o, op in enumerate(self.cell.ops)
            if op != "none" and self.cell.allowed[e][o] and (live is None or live[e][o])
        }


class Supernet(LanguageModel):
    """`supernet((tokens, carry), mixture)`: tokens [T, N] and a carry [1, N, H] or None -> `LanguageModelOutput`."""

    cell_class: ClassVar[type[MixedCell]] = MixedCell

    def __init__(self, cell: Cell, vocabulary: int, units: int, dropouts: Dropouts) -> None:
        super().__init__(vocabulary, units, dropouts)
        self.cell = self.cell_class(cell, units)

    def forward(self, inputs: tuple[Tensor, Tensor | None], mixture: Mapping[str, Mix]) -> LanguageModelOutput:
        """Spends `mixture`, whose one kind is `recurrent`."""
        mix = mixture[KIND].cell(0)
        return self.speak(*inputs, lambda x, hidden, mask: self.cell(x, hidden, mask, mix))
