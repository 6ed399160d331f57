"""PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search (Xu, Xie, Zhang, Chen, Qi, Tian and Xiong,
ICLR 2020).

Ops see one in K channels (`space.partial`), which makes room for larger batches, and the shares of the edges into a node are
learned as well, which steadies the choice of edges.  The architecture rests for the first epochs, so that ops without
weights get no head start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from diffnas.core.cell import Cell
from diffnas.core.mixture import Mix, Mixture
from diffnas.core.settings import setting
from diffnas.core.space import Size, Space
from diffnas.engine.method import Capture, Method
from diffnas.engine.search import Alphas, Search
from diffnas.engine.stage import Stage


@dataclass(frozen=True)
class PCDARTS(Method):
    """Search on a part of the channels, with a learned share for every edge (space.partial says which part)."""

    name: ClassVar[str] = "pcdarts"
    capture: ClassVar[Capture] = "throughout"

    warmup: int = setting(15, "first epochs that train only weights (CIFAR-10: 15 of 50; ImageNet: 35 of 50)", ge=0)

    @override
    def check_space(self, space: Space) -> list[tuple[str, str]]:
        """Refuses text spaces: partial channels need a channel axis."""
        if space.modality != "text":
            return []
        return [
            ("name", f"{space.name} has no channels that ops could see a part of; take another method than pcdarts")
        ]

    @override
    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        """Returns one stage that begins with the warm-up."""
        return (Stage(epochs, size, warmup=self.warmup),)

    @override
    def arch(self, space: Space, generator: torch.Generator) -> EdgeAlphas:
        """Builds alpha [E, O] and beta [E] per kind of cell."""
        return EdgeAlphas(space.cells, generator)

    @override
    def strength(self, search: Search) -> dict[str, Tensor]:
        """[E, O] per kind: the op's share times the edge's (section 3.3); within an edge, the order of the ops stays."""
        return {kind: mix.op * mix.edge.unsqueeze(1) for kind, mix in search.arch().items()}


# -- What PC-DARTS learns: how much each op counts on its edge, and how much each edge counts at its node.


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
