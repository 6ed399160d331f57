"""SGAS: Sequential Greedy Architecture Search (Li, Qian, Delgadillo, Mueller, Thabet and Ghanem, CVPR 2020).

Instead of deriving a cell at the end, the search fixes one edge of every kind of cell at a time: the one that is most surely
an edge, and most sure of its op.  The fixed edge keeps that op only; a node that has all its edges loses the others.  So the
supernet turns into the network that is derived from it, and gets cheaper as it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from diffnas.core.settings import setting
from diffnas.core.space import Space
from diffnas.engine.method import Method, Transition

if TYPE_CHECKING:
    import torch
    from torch import nn

    from diffnas.engine.search import Search


@dataclass(frozen=True)
class SGAS(Method):
    """Fix one edge of every kind of cell every few epochs, the clearest first, and drop what its node no longer needs."""

    name: ClassVar[str] = "sgas"

    criterion: Literal[1, 2] = setting(1, "what ranks edges: importance times certainty (1), times stability (2)")
    first: int = setting(9, "epoch, counted from 0, after which the first edge is fixed", ge=0)
    every: int = setting(5, "epochs from one edge to the next (published: 8 edges, then 5 epochs: 50 in all)", ge=1)
    history: int = setting(4, "epochs before that stability compares with", ge=1)

    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """alpha, the edges fixed or dropped so far, and the shares of the last epochs."""
        from diffnas.methods.sgas_decisions import Decisions

        return Decisions(space.cells, generator, self.history)

    def on_epoch_boundary(self, search: Search, epoch: int) -> Transition:
        """Scores every edge after every epoch, and fixes one per kind where one is due."""
        from diffnas.methods.sgas_decisions import Decisions

        decisions, last = search.arch, epoch - 1  # the epoch that has ended, counted from 0
        assert isinstance(decisions, Decisions)
        if last < 0 or not decisions.first_time(search.clock.total):
            return Transition()
        for kind, cell in search.space.cells.items():
            scores = decisions.scores(kind, stable=self.criterion == 2)
            decisions.remember(kind)
            if last >= self.first and (last - self.first) % self.every == 0:
                decisions.fix(kind, cell, scores)
        return Transition()
