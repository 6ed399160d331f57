"""What PC-DARTS learns: how much each op counts on its edge, and how much each edge counts at its node."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from diffnas.core.cell import Cell
from diffnas.core.mixture import Mix, Mixture
from diffnas.engine.search import Alphas


class EdgeAlphas(Alphas):
    """alpha [E, O] and beta [E] per kind of cell, both 1e-3 N(0, 1); called, it gives the mixture with shares of edges.

    The edges into a node share 1 by the softmax of their betas (Xu et al., 2020, equation 3).
    """

    def __init__(self, cells: Mapping[str, Cell], generator: torch.Generator, scale: float = 1e-3) -> None:
        super().__init__(cells, generator, scale)
        betas = {k: nn.Parameter(scale * torch.randn(len(c.edges), generator=generator)) for k, c in cells.items()}
        self.beta = nn.ParameterDict(betas)
        # edges are sorted by target: those into a node are a slice
        self.fans = {kind: [len(cell.edges_into(node)) for node in cell.nodes] for kind, cell in cells.items()}

    def forward(self) -> Mixture:
        """The mixture of softmax(alpha), `Mix.op` [E, O], and softmax(beta) node by node, `Mix.edge` [E]."""
        edge = {k: torch.cat([part.softmax(0) for part in b.split(self.fans[k])]) for k, b in self.beta.items()}
        return Mixture({kind: Mix(mix.op, edge[kind]) for kind, mix in super().forward().items()})
