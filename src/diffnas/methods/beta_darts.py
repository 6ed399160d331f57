"""beta-DARTS: Beta-Decay Regularization for Differentiable Architecture Search (Ye, Li, Li, Chen, Fan and Ouyang, CVPR 2022).

Weight decay on alpha says nothing about the shares, the softmax of alpha.  A penalty on the logsumexp of every edge does: it
keeps the shares of an edge from drifting apart, the more the longer the search lasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from diffnas import engine
from diffnas.core.constants import constant
from diffnas.core.mixture import Mixture
from diffnas.core.settings import setting
from diffnas.engine.method import Capture, Method
from diffnas.engine.search import Search


@dataclass(frozen=True)
class BetaDARTS(Method):
    """DARTS with a penalty on the logsumexp of every edge's alphas that grows through the search."""

    name: ClassVar[str] = "beta-darts"
    capture: ClassVar[Capture] = "epoch"

    weight: float = setting(50.0, "weight of the penalty after the last epoch; it grows linearly from 0", ge=0)

    @override
    def penalty(self, search: Search, mixture: Mixture) -> Tensor:
        """[]: weight (e / E) times the mean over the edges of all kinds of log sum_o exp(alpha_o) at epoch e of E."""
        assert isinstance(search.arch, engine.Alphas)
        sums = []
        for kind, alpha in search.arch.alpha.items():
            rows = search.space.cells[kind].allowed
            edges = tuple(e for e, row in enumerate(rows) if any(row))  # an edge that allows no op has no sum
            some = constant(edges, torch.int64, alpha.device)
            closed = ~search.arch.get_buffer(f"allowed_{kind}").index_select(0, some)
            sums.append(alpha.index_select(0, some).masked_fill(closed, -torch.inf).logsumexp(dim=-1))
        return self.weight * search.clock.epoch / search.clock.epochs * torch.cat(sums).mean()
