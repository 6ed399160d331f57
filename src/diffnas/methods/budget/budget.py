"""A budget for any method: an expected cost in the architecture's loss, and a limit that no derived cell may pass.

Shares are read as probabilities, so the cost that a network is expected to have is differentiable in them, as in ProxylessNAS
(Cai, Zhu and Han, ICLR 2019, section 3.3) and FBNet (Wu et al., CVPR 2019, equation 2).  A penalty alone promises nothing;
the limit does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import override

from diffnas.core.genotype import Genotype
from diffnas.core.mixture import Mixture
from diffnas.core.settings import setting
from diffnas.core.space import Shape, Space
from diffnas.engine.search import Search
from diffnas.engine.stage import Transition
from diffnas.errors import RecipeError
from diffnas.methods.budget.cost_table import read_cost_table
from diffnas.methods.budget.knapsack import affordable, cheapest, cost_of, expected, usual
from diffnas.methods.wrapper import Wrapper

Costs = dict[str, list[list[float]]]
"""[E, O] per kind."""


@dataclass(frozen=True)
class Budget(Wrapper):
    """Add a cost to another method's search: multiply-adds, parameters, or a latency from a table."""

    name: ClassVar[str] = "budget"

    unit: Literal["macs", "params", "latency"] = setting("macs", "what costs are counted in; latency needs a table")
    weight: float = setting(0.1, "weight of the penalty (0: the limit alone)", ge=0)
    form: Literal["excess", "share"] = setting(
        "excess", "the penalty: weight * max(0, expected / target - 1), or weight * expected / target throughout"
    )
    target: float | None = setting(None, "cost that is aimed at (null: that of shares which are all equal)", gt=0)
    limit: float | None = setting(None, "cost that no derived network may pass (null: any)", gt=0)
    table: str | None = setting(
        None, "file of latencies, .csv or .json, with the columns op and cost, perhaps kind and edge before them"
    )
    channels: int | None = setting(
        None, "channels of the network that is counted (null: the supernet's)", ge=1, le=4096
    )
    layers: int | None = setting(None, "cells of the network that is counted (null: the supernet's)", ge=1, le=1000)
    side: int | None = setting(
        None, "side of the images that it is counted for (null: that of the data)", ge=1, le=1024
    )

    @override
    def check_settings(self) -> list[tuple[str, str]]:
        """Checks that a table is given exactly for latency, and can be read."""
        problems = super().check_settings()
        if (self.unit == "latency") != (self.table is not None):
            problems.append(("table", "goes with method.unit=latency: set both, or neither"))
        if self.table is not None:
            try:
                read_cost_table(self.table)
            except RecipeError as error:
                problems += [("table", line) for line in error.lines]
        return problems

    @override
    def check_space(self, space: Space) -> list[tuple[str, str]]:
        """Checks that every op that may be derived has a cost."""
        problems = super().check_space(space)
        if self.table is None:
            reason = f"{space.name} does not tell what its ops cost; give a table of latencies (method.table)"
            return problems + [("name", reason)] * (space.modality == "text")
        try:
            missing = read_cost_table(self.table).missing(space.cells)
        except RecipeError:
            return problems  # refused already
        return problems + [("ops", f"{op} has no cost in {self.table}") for op in missing]

    @override
    def on_epoch_boundary(self, search: Search, epoch: int) -> Transition:
        """Returns the base's transition; raises `RecipeError` if no network is within the limit."""
        self._prices(search)
        return super().on_epoch_boundary(search, epoch)

    def expected(self, search: Search, mixture: Mixture) -> Tensor:
        """[]: the expected cost over the target, differentiable in the shares.

        An edge counts with the chance that its node keeps it, `in_degree` of its inputs.
        """
        prices, fixed = self._prices(search)
        terms = [fixed, *((mix.shares() * prices[kind]).sum() for kind, mix in mixture.items())]
        return sum(terms[1:], terms[0])

    @override
    def penalty(self, search: Search, mixture: Mixture) -> Tensor | None:
        """[]: the base's penalty plus weight * max(0, expected / target - 1), or as `form` says."""
        own = super().penalty(search, mixture)
        if not self.weight:
            return own
        ratio = self.expected(search, mixture)
        term = self.weight * (ratio if self.form == "share" else (ratio - 1.0).relu())
        return term if own is None else own + term

    @override
    def derive(self, search: Search) -> Genotype | None:
        """Derives the base's genotype if it is within the limit; otherwise the strongest one that is."""
        genotype = super().derive(search)
        if self.limit is None or genotype is None:
            return genotype
        (costs, fixed), cells = self._costs(search), search.space.cells
        if fixed + cost_of(cells, genotype.cells, costs) <= self.limit:
            return genotype
        strength = {kind: rows.tolist() for kind, rows in search.strength().items()}
        return Genotype(search.space.name, affordable(cells, strength, costs, self.limit - fixed))

    def _prices(self, search: Search) -> tuple[dict[str, Tensor], Tensor]:
        """Per kind [E, O], the cost of an op times the chance of its edge, and [], what is fixed, both over the target.

        Counted once a stage and kept beside what is learned, but not saved.
        """
        cells, kept = search.space.cells, dict(search.arch.named_buffers(recurse=False))
        if "budget_fixed" not in kept:
            costs, fixed = self._costs(search)
            least = fixed + cheapest(cells, costs)
            if self.limit is not None and least > self.limit:
                reason = f"must be at least {least:.10g} {self.unit}, what the cheapest network costs"
                raise RecipeError(f"method.limit: {reason}")
            target = self.target or fixed + usual(cells, costs) or 1.0  # 1 where nothing costs anything
            counted = {f"budget_{kind}": expected(cell, costs[kind]) for kind, cell in cells.items()}
            for name, values in {**counted, "budget_fixed": fixed}.items():
                scaled = torch.tensor(values, dtype=torch.float64, device=search.device) / target
                search.arch.register_buffer(name, scaled, persistent=False)
        kept = dict(search.arch.named_buffers(recurse=False))
        return {kind: kept[f"budget_{kind}"] for kind in cells}, kept["budget_fixed"]

    def _costs(self, search: Search) -> tuple[Costs, float]:
        """Returns the costs of ops, and the fixed cost of a network (0 with a table)."""
        space = search.space
        if self.table is not None:
            return read_cost_table(self.table).rows(space.cells), 0.0
        assert self.unit != "latency"
        size = replace(
            space.size, channels=self.channels or space.size.channels, layers=self.layers or space.size.layers
        )
        shape = search.shape
        if self.side is not None and isinstance(shape, Shape):
            shape = replace(shape, side=self.side)
        refused = space.check_size(shape, size)
        if refused:
            raise RecipeError(*(f"method.{key}: {reason}, in the network that is counted" for key, reason in refused))
        return space.costs(shape, self.unit, size), space.fixed_cost(shape, self.unit, size)
