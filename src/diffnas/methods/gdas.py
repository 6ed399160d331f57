"""GDAS: Searching for a Robust Neural Architecture in Four GPU Hours (Dong and Yang, CVPR 2019).

Every step draws one op per edge, shared by all cells of a kind, and only that one runs: with the Gumbel noise G,

    p = softmax((log softmax(alpha) + G) / tau)        h = onehot(argmax p) + (p - stopgradient(p))

so that the value is discrete and the gradient that of p (equations 4 to 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import override

from diffnas import engine
from diffnas.core.batch import Batch, Loss
from diffnas.core.genotype import Genotype
from diffnas.core.mixture import Mix, Mixture, read_together
from diffnas.core.settings import setting
from diffnas.engine.method import Method
from diffnas.engine.search import Search
from diffnas.engine.stage import Use
from diffnas.methods.sampling import concrete, one_hot, sampled_mixture


@dataclass(frozen=True)
class GDAS(Method):
    """Run one sampled op per edge and pass the gradient straight through to the relaxed sample."""

    name: ClassVar[str] = "gdas"

    temperature: float = setting(10.0, "tau in the first epoch", gt=0)
    temperature_end: float = setting(0.1, "tau in the last epoch, reached in a straight line", gt=0)
    evaluate: Literal["mean", "argmax", "sample"] = setting(
        "sample", "mixture that evaluations take: the softmax, its largest ops, or a sample (published)"
    )

    def tau(self, search: Search) -> float:
        """The temperature of the epoch: tau_0 + (tau_1 - tau_0) e / (E - 1)."""
        share = min(1.0, search.clock.epoch / max(1, search.clock.epochs - 1))
        return self.temperature + (self.temperature_end - self.temperature) * share

    @override
    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """Samples a one-hot mixture at the epoch's temperature."""
        tau = self.tau(search)
        return sampled_mixture(search, use, self.evaluate, partial(_straight_through, tau))

    @override
    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """Takes a step of the weights on `train`, then of the architecture on `valid`, each with its own sample."""
        uses: dict[str, Use] = {"train": "weights", "valid": "arch"}
        drawn = {half: search.relax(use, batches[half]) for half, use in uses.items() if half in batches}
        read_together(list(drawn.values()))  # alpha is the same for both
        losses = {}
        if "train" in drawn:
            losses["train"] = engine.weight_step(search, drawn["train"], batches["train"])
        if "valid" in drawn:
            losses["valid"] = engine.arch_step(search, drawn["valid"], batches["valid"])
        return losses

    @override
    def derive(self, search: Search) -> Genotype:
        """Derives the strongest (edge, op) pairs of a node, which may share an edge, or an op per edge if all are kept."""
        strength, cells = search.strength(), {}
        for kind, cell in search.space.cells.items():
            rule: Literal["edges", "pairs"] = "edges" if cell.in_degree is None else "pairs"
            cells[kind] = engine.strongest(cell, strength[kind], rule)
        return Genotype(search.space.name, cells)


def _straight_through(tau: float, alpha_EO: Tensor, allowed: Tensor, generator: torch.Generator | None) -> Mix:
    """A sample [E, O] whose value is one-hot and whose gradient is that of the relaxed sample.

    The published code draws again where noise is infinite; here noise is finite.
    """
    logits = alpha_EO.masked_fill(~allowed, -1e9).log_softmax(-1)
    relaxed = concrete(logits, allowed, tau, generator)
    hard = one_hot(relaxed.detach(), allowed)
    return Mix(hard + (relaxed - relaxed.detach()), active=hard)
