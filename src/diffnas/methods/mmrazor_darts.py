"""DARTS as MMRazor searches it (OpenMMLab model compression toolbox, 2021), after Liu et al., 2019.

Besides the shares of the ops of an edge, those of the edges into a node are learned, as in PC-DARTS but on all channels.  A
node keeps the edges with the largest shares, each with its strongest op, be it `none`.  The second order is that of DARTS,
which MMRazor means to take; what it computes instead is no part of this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from diffnas import engine
from diffnas.core.genotype import Genotype
from diffnas.core.space import Space
from diffnas.engine.method import Capture
from diffnas.engine.search import Search
from diffnas.methods.darts import DARTS
from diffnas.methods.pcdarts import EdgeAlphas


@dataclass(frozen=True)
class MMRazorDARTS(DARTS):
    """DARTS with a learned share for every edge; edges are chosen by it, and ops by theirs, `none` included."""

    name: ClassVar[str] = "mmrazor-darts"
    capture: ClassVar[Capture] = "throughout"

    @override
    def arch(self, space: Space, generator: torch.Generator) -> EdgeAlphas:
        """Builds alpha [E, O] and beta [E] per kind of cell."""
        return EdgeAlphas(space.cells, generator)

    @override
    def strength(self, search: Search) -> dict[str, Tensor]:
        """[E, O] per kind: the edge's share for its strongest op, proportionally less for the others."""
        strengths = {}
        for kind, mix in search.arch().items():
            assert mix.edge is not None
            strengths[kind] = mix.edge[:, None] * mix.op / mix.op.amax(dim=-1, keepdim=True).clamp_min(1e-30)
        return strengths

    @override
    def derive(self, search: Search) -> Genotype | None:
        """Derives the edges with the largest shares; one whose strongest op is `none` stays, and adds nothing."""
        cells, strength = {}, search.strength()
        for kind, cell in search.space.cells.items():
            with_none = replace(cell, excluded=cell.excluded - {"none"})
            cells[kind] = engine.strongest(with_none, strength[kind])
        return Genotype(search.space.name, cells)
