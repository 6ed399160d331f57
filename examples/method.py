"""A method of one's own: DARTS whose edges grow surer, and whose weights are kept small.

diffnas search darts-digits --plugin examples/method.py -s "method={name: surer, power: 3}" --run runs/surer
diffnas train runs/surer --plugin examples/method.py
diffnas test runs/surer --plugin examples/method.py
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

import diffnas
from diffnas.engine.stage import Use


@diffnas.register
@dataclass(frozen=True)
class Surer(diffnas.Method):
    """Raise the shares of an edge to a power that grows from 1, and penalise large weights and undecided edges."""

    name: ClassVar[str] = "surer"

    power: float = diffnas.setting(2.0, "the power after the last epoch; it grows linearly from 1", ge=1)
    undecided: float = diffnas.setting(0.01, "weight of the mean entropy of an edge in the architecture's loss", ge=0)
    large: float = diffnas.setting(1e-5, "weight of the sum of squares in the loss of the weights", ge=0)

    def relax(self, search: diffnas.Search, use: Use, batch: diffnas.Batch | None = None) -> diffnas.Mixture:
        """Returns the softmax of alpha, sharpened; the same for steps and for evaluation."""
        power = 1.0 + (self.power - 1.0) * search.clock.epoch / search.clock.epochs
        mixture: diffnas.Mixture = search.arch()
        return mixture.map(lambda share: share**power / (share**power).sum(-1, keepdim=True).clamp_min(1e-30))

    def penalty(self, search: diffnas.Search, mixture: diffnas.Mixture) -> Tensor:
        """[]: the mean entropy of all edges, for the architecture."""
        entropies = [torch.special.entr(mix.op.clamp_min(1e-30)).sum(-1) for mix in mixture.values()]
        return self.undecided * torch.cat(entropies).mean()

    def weight_penalty(self, search: diffnas.Search, mixture: diffnas.Mixture) -> Tensor:
        """[]: the sum of the squares of all weights, for the weights."""
        return self.large * torch.stack([weight.square().sum() for weight in search.weights]).sum()
