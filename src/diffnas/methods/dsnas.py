"""DSNAS: Direct Neural Architecture Search without Parameter Retraining (Hu, Xie, Zheng, Liu, Shi, Liu and Lin, CVPR 2020).

Every step draws one op per edge from softmax(alpha) and runs only those.  Weights and alpha learn from the same batch: on
every edge, with Z the one-hot draw,

    dL/dalpha = (sum_o dL/dZ_o) d log p(Z) / dalpha

which one backward pass gives where Z is written as onehot (1 + log p - stopgradient(log p)).  An edge whose first op leads
far enough at the start of an epoch is decided for good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from diffnas import engine
from diffnas.core.batch import Batch, Loss
from diffnas.core.mixture import Mix, Mixture
from diffnas.core.settings import setting
from diffnas.core.space import Size, Space
from diffnas.engine.method import Method
from diffnas.engine.search import Search
from diffnas.engine.stage import Phase, Stage, Transition, Use
from diffnas.methods.sampling import gumbel, one_hot, sampled_mixture
from diffnas.methods.snas import LogAlphas, OpenAlphas


@dataclass(frozen=True)
class DSNAS(Method):
    """Run one sampled op per edge, weights and architecture from the same batch; decide edges early."""

    name: ClassVar[str] = "dsnas"

    margin: float = setting(
        0.3, "lead in probability at which an edge's op is decided for good (above 1: never)", gt=0, le=2
    )
    decide: Literal["epoch", "step"] = setting(
        "epoch", "when that is looked at: at the start of every epoch (published), or after every step", before="step"
    )
    stop_when_decided: bool = setting(
        False,
        "end the search when every edge is decided (the authors train on, as the weights are their result)",
        before=True,
    )
    warmup: int = setting(0, "first epochs that train weights only (MMRazor: 15)", ge=0)
    cost_weight: float = setting(
        0.0, "weight of sum p(sampled) cost(sampled) in the loss (published: 1e-12 per multiply-add)", ge=0
    )
    cost_threshold: float = setting(290e6, "cost of a sample from which the term counts (MMRazor: 300e6)", ge=0)
    cost_of: Literal["ops", "network"] = setting(
        "ops", "whose cost that is: of the sampled ops alone (published), or of the whole network", before="network"
    )
    cost_unit: Literal["macs", "params"] = setting("macs", "what costs are counted in: multiply-adds or parameters")
    evaluate: Literal["mean", "argmax", "sample"] = setting(
        "sample", "mixture that evaluations take: the softmax, its largest ops, or a sample"
    )

    @override
    def check_space(self, space: Space) -> list[tuple[str, str]]:
        """Checks that the space tells the costs that the cost term needs."""
        if not self.cost_weight or space.modality != "text":
            return []
        return [("name", f"{space.name} does not say what its ops cost; set method.cost_weight to 0")]

    @override
    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        """Returns one stage, on the training feed alone."""
        return (Stage(epochs, size, phases=(Phase(("train",)),)),)

    @override
    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """Builds log alpha [E, O] per kind, 1 + 0.01 N(0, 1), and a mask of the ops that are still open."""
        return OpenAlphas(space.cells, generator)

    @override
    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """Samples a one-hot mixture from softmax(alpha); decided edges have one op."""
        return sampled_mixture(search, use, self.evaluate, _scored_sample)

    @override
    def penalty(self, search: Search, mixture: Mixture) -> Tensor | None:
        """[]: the cost term, weight times sum p(sampled) cost(sampled); 0 for samples below the threshold."""
        if not self.cost_weight:
            return None
        assert isinstance(search.arch, LogAlphas)
        costs = [cost.detach() for cost in search.arch.costs(mixture, search.space, search.shape, self.cost_unit)]
        total = torch.stack([cost.sum() for cost in costs]).sum()
        if self.cost_of == "network":
            total = total + search.arch.get_buffer("fixed")
        shares = search.arch().values()
        expected = torch.stack([(mix.op * cost).sum() for mix, cost in zip(shares, costs, strict=True)]).sum()
        return torch.where(total >= self.cost_threshold, self.cost_weight * expected, 0.0)

    @override
    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """Takes one step of weights and architecture by one backward pass on `train`."""
        batch = batches["train"]
        if search.clock.stage_epoch < self.warmup:
            return {"train": engine.weight_step(search, search.relax("weights", batch), batch)}
        loss = engine.joint_step(search, search.relax("arch", batch), batch)
        if self.decide == "step":
            _open(search).decide(self.margin)
        return {"train": loss}

    @override
    def on_epoch_boundary(self, search: Search, epoch: int) -> Transition:
        """Decides the edges whose lead suffices, but not when a resumed search calls it within an epoch."""
        if self.decide == "epoch" and search.clock.phase == search.clock.step == 0:
            _open(search).decide(self.margin)
        done = self.stop_when_decided and epoch > 0 and _open(search).decided()
        return Transition(stop=done, reason="every edge is decided" if done else "")


def _open(search: Search) -> OpenAlphas:
    assert isinstance(search.arch, OpenAlphas)
    return search.arch


def _scored_sample(alpha_EO: Tensor, allowed: Tensor, generator: torch.Generator | None) -> Mix:
    """A one-hot sample [E, O] whose gradient is that of log p where it is 1."""
    hard = one_hot(alpha_EO.detach() + gumbel(alpha_EO, generator), allowed)
    log_p = alpha_EO.masked_fill(~allowed, -torch.inf).log_softmax(-1)
    return Mix(torch.where(hard, 1.0 + (log_p - log_p.detach()), 0.0), active=hard)
