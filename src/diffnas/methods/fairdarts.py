"""Fair DARTS: Eliminating Unfair Advantages in Differentiable Architecture Search (Chu, Zhou, Zhang and Li, ECCV 2020).

Ops do not compete: each has a share of its own, sigmoid(alpha), and a loss that rewards shares near 0 or 1 closes the gap
between the mixture and the cell derived from it.  Only ops whose share passes a threshold are derived.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from diffnas import engine
from diffnas.core.batch import Batch
from diffnas.core.cell import Cell
from diffnas.core.constants import constant
from diffnas.core.genotype import Genotype
from diffnas.core.mixture import Mix, Mixture
from diffnas.core.settings import setting
from diffnas.core.space import Space
from diffnas.engine.method import Capture, Method
from diffnas.engine.search import Search
from diffnas.engine.stage import Use


@dataclass(frozen=True)
class FairDARTS(Method):
    """Give every op a share of its own, sigmoid(alpha); derive those that pass a threshold, at most two edges a node."""

    name: ClassVar[str] = "fairdarts"
    capture: ClassVar[Capture] = "throughout"

    weight: float = setting(10.0, "w: how much the zero-one loss, -MSE(sigmoid(alpha), 1/2), counts", ge=0)
    threshold: float = setting(
        0.85, "smallest share of an op that is derived; nodes may end with fewer inputs", ge=0, le=1
    )

    @override
    def check_space(self, space: Space) -> list[tuple[str, str]]:
        """Refuses the op `none`, which has no meaning where shares do not compete."""
        ops = next(iter(space.cells.values())).ops
        rest = ", ".join(op for op in ops if op != "none")
        return [("ops", f"must not hold none: every op is left out by its own share; write [{rest}]")] * ("none" in ops)

    @override
    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """Builds alpha [E, O] per kind, 0: every share begins at 1/2."""
        return engine.Alphas(space.cells, generator, scale=0.0)

    @override
    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """Returns sigmoid(alpha) for the allowed ops."""
        assert isinstance(search.arch, engine.Alphas)
        shares = {kind: alpha.sigmoid() * _allowed(search, kind) for kind, alpha in search.arch.alpha.items()}
        return Mixture({kind: Mix(op) for kind, op in shares.items()})

    @override
    def strength(self, search: Search) -> dict[str, Tensor]:
        return {kind: mix.op.detach() for kind, mix in search.relax("eval").items()}

    @override
    def penalty(self, search: Search, mixture: Mixture) -> Tensor:
        """[]: -w times the mean squared distance of the allowed shares of all kinds from 1/2."""
        shares = torch.cat([_open(mix.op, search.space.cells[kind]) for kind, mix in mixture.items()])
        return -self.weight * (shares - 0.5).square().mean()

    @override
    def derive(self, search: Search) -> Genotype | None:
        """Derives the strongest edges of every node whose strongest op passes the threshold.

        In a space whose nodes keep all of their edges, or have the one that they must have, it has nothing to leave out.
        """
        nodes, strength = {}, search.strength()
        for kind, cell in search.space.cells.items():
            passing = cell if cell.in_degree in (None, 1) else cell.keep((strength[kind] >= self.threshold).tolist())
            nodes[kind] = engine.strongest(passing, strength[kind])
        return Genotype(search.space.name, nodes)


def _open(op_EO: Tensor, cell: Cell) -> Tensor:
    """The allowed entries, row by row."""
    entries = [allowed for row in cell.allowed for allowed in row]
    places = tuple(place for place, allowed in enumerate(entries) if allowed)
    return op_EO.flatten().index_select(0, constant(places, torch.int64, op_EO.device))


def _allowed(search: Search, kind: str) -> Tensor:
    """[E, O] bool: which ops each edge may carry."""
    return search.arch.get_buffer(f"allowed_{kind}")
