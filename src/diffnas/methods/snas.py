"""SNAS: Stochastic Neural Architecture Search (Xie, Zheng, Liu and Lin, ICLR 2019).

Every step draws a cell from the concrete distribution over ops, Z = softmax((log alpha + G) / tau) on every edge, and moves
weights and log alpha together by one backward pass on one batch: there is no second half of the data.  A resource term
charges the sample for what its ops cost.  With `bilevel` it is the variant that DrNAS's code compares with on NAS-Bench-201:
steps in turns on two halves, and temperatures from 10 to 1.
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
from diffnas.core.cell import Cell
from diffnas.core.constants import constant
from diffnas.core.count import Unit
from diffnas.core.genotype import Genotype
from diffnas.core.mixture import Mix, Mixture
from diffnas.core.settings import setting
from diffnas.core.space import AnyShape, Size, Space
from diffnas.engine.method import Capture, Method
from diffnas.engine.search import Alphas, Search
from diffnas.engine.stage import Phase, Stage, Use
from diffnas.methods.sampling import concrete, one_hot, sampled_mixture

UNITS = ("params", "macs", "memory")
SCALES = (0.86, 0.43 / 4000, 0.43 / 100)
"""What makes the three comparable where they are charged as they are, as published."""


@dataclass(frozen=True)
class SNAS(Method):
    """Sample soft cells at a falling temperature; weights and architecture learn from the same batch."""

    name: ClassVar[str] = "snas"
    capture: ClassVar[Capture] = "epoch"
    draws: ClassVar[bool] = True

    temperature: float = setting(1.0, "tau in the first epoch (bilevel: 10)", gt=0)
    temperature_end: float = setting(0.03, "tau in the end, reached in a straight line (bilevel: 1)", gt=0)
    anneal_epochs: int | None = setting(
        150, "epochs of the line, whatever those of the search (null: the search's; published: 150)", ge=1
    )
    bilevel: bool = setting(False, "architecture and weights in turns, on two halves of the data (DrNAS's variant)")
    anneal_from: int = setting(1, "step of that line at which the first epoch stands (published: 1)", before=0, ge=0)
    resource_weight: float = setting(
        0.0,
        "weight of the sample's cost in the architecture loss (an example of the authors: 1.5e-3, of its log)",
        ge=0,
    )
    resource_log: bool = setting(True, "charge the logarithm of the cost instead of the cost")
    resource_unit: Literal["all", "params", "macs", "memory"] = setting(
        "all", "what costs are counted in: parameters, multiply-adds, numbers read and written, or all three together"
    )
    resource_sum: Literal["edges", "network"] = setting(
        "edges",
        "what is charged: the cost of every edge, summed over edges, its mean over cells (published), or the network's",
        before="network",
    )
    keep: Literal["all", "strongest"] = setting(
        "all", "edges that a derived node keeps: all whose best op is not none, or its two strongest without none"
    )
    evaluate: Literal["mean", "argmax", "sample"] = setting(
        "sample", "mixture that evaluations take: the softmax, its largest ops, or a sample (published)"
    )

    @override
    def check_settings(self) -> list[tuple[str, str]]:
        """Checks that a whole network is counted in parameters or multiply-adds."""
        wrong = self.resource_sum == "network" and self.resource_unit not in ("params", "macs")
        return [("resource_unit", "must be params or macs where method.resource_sum is network")] * wrong

    @override
    def check_space(self, space: Space) -> list[tuple[str, str]]:
        """Checks that the space tells the costs that the resource term needs."""
        if not self.resource_weight or space.modality != "text":
            return []
        return [("name", f"{space.name} does not say what its ops cost; set method.resource_weight to 0")]

    @override
    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        """Returns one stage, on the training feed alone unless `bilevel`."""
        return (Stage(epochs, size) if self.bilevel else Stage(epochs, size, phases=(Phase(("train",)),)),)

    @override
    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """Builds log alpha [E, O] per kind, 1 + 0.01 N(0, 1)."""
        return LogAlphas(space.cells, generator)

    def tau(self, search: Search) -> float:
        """The temperature of epoch e, at k = e + anneal_from: (1 - k / A) (tau_0 - tau_1) + tau_1, from k = A on tau_1."""
        epochs = self.anneal_epochs or search.clock.epochs
        left = max(0.0, 1.0 - (search.clock.epoch + self.anneal_from) / epochs)
        return left * (self.temperature - self.temperature_end) + self.temperature_end

    @override
    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """Samples the concrete distribution at the epoch's temperature."""
        tau = self.tau(search)
        return sampled_mixture(
            search, use, self.evaluate, lambda alpha, allowed, draw: Mix(concrete(alpha, allowed, tau, draw))
        )

    @override
    def penalty(self, search: Search, mixture: Mixture) -> Tensor | None:
        """[]: weight times the cost of the sample, sum_o Z_eo c_eo over every edge e, or its logarithm."""
        if not self.resource_weight:
            return None
        assert isinstance(search.arch, LogAlphas)
        if self.resource_sum == "edges":
            used = search.arch.used(mixture, search.space, search.shape)
            charges = [self._charge(each).sum() / max(1, len(each)) for each in used]
            return self.resource_weight * torch.stack(charges).sum()
        assert self.resource_unit in ("params", "macs")
        costs = search.arch.costs(mixture, search.space, search.shape, self.resource_unit)
        cost = torch.stack([each.sum() for each in costs]).sum()
        return self.resource_weight * (cost.clamp_min(1.0).log() if self.resource_log else cost)

    def _charge(self, used: Tensor) -> Tensor:
        """[..]: what an edge is charged for `used` [.., 3], in all units or in one; logarithms are of at least 1."""
        costs = used.clamp_min(1.0).log() if self.resource_log else used
        if self.resource_unit != "all":
            return costs[..., UNITS.index(self.resource_unit)]
        return costs.mean(-1) if self.resource_log else (costs * constant(SCALES, costs.dtype, costs.device)).sum(-1)

    @override
    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """Takes one step of weights and architecture by one backward pass on `train`; with `bilevel`, in turns."""
        if self.bilevel:
            return super().step(search, batches)
        batch = batches["train"]
        return {"train": engine.joint_step(search, search.relax("arch", batch), batch)}

    @override
    def derive(self, search: Search) -> Genotype:
        """Derives the most probable op of every edge, `none` included; edges that `none` wins are left out.

        Where a node may have one input only, that is the strongest.
        """
        strength, cells = search.strength(), {}
        for kind, cell in search.space.cells.items():
            rule: Literal["all", "edges"] = "all" if self.keep == "all" and cell.in_degree != 1 else "edges"
            cells[kind] = engine.strongest(cell, strength[kind], rule)
        return Genotype(search.space.name, cells)


# -- What SNAS and DSNAS learn: log alpha, what its ops cost, and which edges are decided.


class LogAlphas(Alphas):
    """log alpha [E, O] per kind of cell, 1 + 0.01 N(0, 1), as published; costs follow from the space and are not saved."""

    def __init__(self, cells: Mapping[str, Cell], generator: torch.Generator) -> None:
        super().__init__(cells, generator, 0.01)
        for kind, alpha in self.alpha.items():
            alpha.data += 1.0
            self.register_buffer(f"cost_{kind}", torch.zeros_like(alpha), persistent=False)
        self.register_buffer("fixed", torch.zeros(()), persistent=False)
        self.priced = False
        self.resources: dict[str, Tensor] = {}

    def costs(self, mixture: Mixture, space: Space, shape: AnyShape, unit: Unit) -> list[Tensor]:
        """Per kind of cell, the shares of `mixture` times what `space` says its ops cost, [E, O]."""
        if not self.priced:  # once: counting takes a while
            for kind, rows in space.costs(shape, unit).items():
                self.get_buffer(f"cost_{kind}").copy_(torch.tensor(rows))
            self.get_buffer("fixed").fill_(space.fixed_cost(shape, unit))
            self.priced = True
        return [mix.shares() * self.get_buffer(f"cost_{kind}") for kind, mix in mixture.items()]

    def used(self, mixture: Mixture, space: Space, shape: AnyShape) -> list[Tensor]:
        """[M, E, 3] per kind: what the sampled ops of every edge use in each of the M cells of the kind, in expectation:
        parameters, multiply-adds, memory."""
        if not self.resources:
            for kind, cells in space.cell_costs(shape).items():  # a shallow supernet may have no cell of a kind
                counted = torch.tensor(cells).reshape(len(cells), *self.alpha[kind].shape, 3)
                self.resources[kind] = counted.to(self.alpha[kind])
        return [torch.einsum("eo,meor->mer", mix.shares(), self.resources[k]) for k, mix in mixture.items()]


class OpenAlphas(LogAlphas):
    """log alpha, and which ops are open on every edge: saved, and narrowed as edges are decided."""

    def __init__(self, cells: Mapping[str, Cell], generator: torch.Generator) -> None:
        super().__init__(cells, generator)
        for kind in cells:
            self.register_buffer(f"allowed_{kind}", self.get_buffer(f"allowed_{kind}"))

    @torch.no_grad()
    def decide(self, margin: float) -> None:
        """Leaves only the most probable op to edges where its probability is `margin` or more above the second's."""
        for kind, mix in self().items():
            allowed = self.get_buffer(f"allowed_{kind}")
            top = one_hot(mix.op, allowed)
            sure = mix.op.amax(-1) - mix.op.masked_fill(top, 0.0).amax(-1) >= margin
            allowed &= top | ~sure[:, None]

    def decided(self) -> bool:
        """Whether no edge has a choice left; read back to the host."""
        return all(bool((self.get_buffer(f"allowed_{kind}").sum(-1) <= 1).all()) for kind in self.alpha)
