"""SNAS: Stochastic Neural Architecture Search (Xie, Zheng, Liu and Lin, ICLR 2019).

Every step draws a cell from the concrete distribution over ops, Z = softmax((log alpha + G) / tau) on every edge, and moves
weights and log alpha together by one backward pass on one batch: there is no second half of the data.  A resource term
charges the sample for what its ops cost.  With `bilevel` it is the variant that DrNAS's code compares with on NAS-Bench-201:
steps in turns on two halves, and temperatures from 10 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from diffnas import engine
from diffnas.core.genotype import Genotype
from diffnas.core.settings import setting
from diffnas.core.space import Size, Space
from diffnas.engine.method import Method, Phase, Stage, Use

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from diffnas.core.batch import Batch, Loss
    from diffnas.core.mixture import Mixture
    from diffnas.engine.search import Search


@dataclass(frozen=True)
class SNAS(Method):
    """Sample soft cells at a falling temperature; weights and architecture learn from the same batch."""

    name: ClassVar[str] = "snas"

    temperature: float = setting(1.0, "tau in the first epoch (bilevel: 10)", gt=0)
    temperature_end: float = setting(0.03, "tau in the end, reached in a straight line (bilevel: 1)", gt=0)
    anneal_epochs: int | None = setting(
        150, "epochs of the line, whatever those of the search (null: the search's; published: 150)", ge=1
    )
    bilevel: bool = setting(False, "architecture and weights in turns, on two halves of the data (DrNAS's variant)")
    resource_weight: float = setting(
        0.0,
        "weight of the sample's cost in the architecture loss (an example of the authors: 1.5e-3, of its log)",
        ge=0,
    )
    resource_log: bool = setting(True, "charge the logarithm of the cost instead of the cost")
    resource_unit: Literal["macs", "params"] = setting("macs", "what costs are counted in: multiply-adds or parameters")
    keep: Literal["all", "strongest"] = setting(
        "all", "edges that a derived node keeps: all whose best op is not none, or its two strongest without none"
    )
    evaluate: Literal["mean", "argmax", "sample"] = setting(
        "sample", "mixture that evaluations take: the softmax, its largest ops, or a sample (published)"
    )

    def misfits(self, space: Space) -> list[tuple[str, str]]:
        """A resource term needs costs."""
        if not self.resource_weight or space.reads == "images":
            return []
        return [("name", f"{space.name} does not say what its ops cost; set method.resource_weight to 0")]

    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        """One, on the training feed alone unless `bilevel`."""
        return (Stage(epochs, size) if self.bilevel else Stage(epochs, size, phases=(Phase(("train",)),)),)

    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """log alpha [E, O] per kind, 1 + 0.01 N(0, 1)."""
        from diffnas.methods.log_alphas import LogAlphas

        return LogAlphas(space.cells, generator)

    def tau(self, search: Search) -> float:
        """The temperature of the epoch: (1 - e / A) (tau_0 - tau_1) + tau_1, and tau_1 from epoch A on."""
        epochs = self.anneal_epochs or search.clock.epochs
        left = max(0.0, 1.0 - search.clock.epoch / epochs)
        return left * (self.temperature - self.temperature_end) + self.temperature_end

    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """A sample of the concrete distribution at the epoch's temperature."""
        from diffnas.core.mixture import Mix
        from diffnas.methods.evaluation import sampled_mixture
        from diffnas.methods.sampling import concrete

        tau = self.tau(search)
        return sampled_mixture(
            search, use, self.evaluate, lambda alpha, allowed, draw: Mix(concrete(alpha, allowed, tau, draw))
        )

    def penalty(self, search: Search, mixture: Mixture) -> Tensor | None:
        """The resource term: weight times the sample's cost sum_EO Z_EO c_EO over all kinds, or its logarithm."""
        import torch

        from diffnas.methods.log_alphas import LogAlphas

        if not self.resource_weight:
            return None
        assert isinstance(search.arch, LogAlphas)
        cost = torch.stack(
            [costs.sum() for costs in search.arch.costs(mixture, search.space, search.shape, self.resource_unit)]
        ).sum()
        return self.resource_weight * (cost.clamp_min(1.0).log() if self.resource_log else cost)

    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """Weights and architecture by one backward pass on `train`; bilevel, in turns."""
        if self.bilevel:
            return super().step(search, batches)
        batch = batches["train"]
        return {"train": engine.joint_step(search, search.relax("arch", batch), batch)}

    def derive(self, search: Search) -> Genotype:
        """The most probable op of every edge, `none` included; edges it wins are left out.

        Where a node may have one input only, that is the strongest.
        """
        strength, cells = search.strength(), {}
        for kind, cell in search.space.cells.items():
            rule: Literal["all", "edges"] = "all" if self.keep == "all" and cell.in_degree != 1 else "edges"
            cells[kind] = engine.strongest(cell, strength[kind], rule)
        return Genotype(search.space.name, cells)
