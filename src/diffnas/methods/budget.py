"""A budget for any method: an expected cost in the architecture's loss, and a limit that no derived cell may pass.

Shares are read as probabilities, so the cost that a network is expected to have is differentiable in them, as in ProxylessNAS
(Cai, Zhu and Han, ICLR 2019, section 3.3) and FBNet (Wu et al., CVPR 2019, equation 2).  A penalty alone promises nothing;
the limit does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from diffnas.core.cell import Cell
from diffnas.core.genotype import Genotype
from diffnas.core.settings import setting
from diffnas.core.space import Shape, Size, Space
from diffnas.engine.wrapper import Wrapper
from diffnas.errors import RecipeError
from diffnas.methods.cost_table import read_cost_table

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from diffnas.core.mixture import Mixture
    from diffnas.engine.search import Search

Costs = dict[str, list[list[float]]]
"""[E, O] per kind."""


@dataclass(frozen=True)
class Budget(Wrapper):
    """Make another method mind what its networks cost: multiply-adds, parameters, or a latency from a table."""

    name: ClassVar[str] = "budget"

    unit: Literal["macs", "params", "latency"] = setting("macs", "what costs are counted in; latency needs a table")
    weight: float = setting(0.1, "weight of the penalty (0: the limit alone)", ge=0)
    form: Literal["excess", "share"] = setting(
        "excess", "the penalty: weight * max(0, expected / target - 1), or weight * expected / target throughout"
    )
    target: float | None = setting(None, "cost that is aimed at (null: that of shares which are all equal)", gt=0)
    limit: float | None = setting(None, "cost that no derived network may pass (null: any)", gt=0)
    table: str | None = setting(None, "file of latencies per op, .csv or .json (see docs)")
    channels: int | None = setting(None, "channels of the network that is counted (null: those of the supernet)", ge=1)
    layers: int | None = setting(None, "cells of the network that is counted (null: those of the supernet)", ge=1)
    side: int = setting(32, "side of the images that the network is counted for", ge=1)
    image_channels: int = setting(3, "channels of those images", ge=1)
    classes: int = setting(10, "classes of those images", ge=1)

    def refusals(self) -> list[tuple[str, str]]:
        """A table goes with latency, and must be sound."""
        found = super().refusals()
        if (self.unit == "latency") != (self.table is not None):
            found.append(("table", "goes with method.unit=latency: set both, or neither"))
        if self.table is not None:
            try:
                read_cost_table(self.table)
            except RecipeError as error:
                found += [("table", line) for line in error.lines]
        return found

    def misfits(self, space: Space) -> list[tuple[str, str]]:
        """Every op that may be derived has a cost, and a network of that size can be built."""
        found = super().misfits(space)
        if self.table is not None:
            try:
                missing = read_cost_table(self.table).missing(space.cells)
            except RecipeError:
                return found  # refused already
            return found + [("ops", f"{op} has no cost in {self.table}") for op in missing]
        if not hasattr(space, "costs"):
            reason = f"{space.name} does not tell what its ops cost; give a table of latencies (method.table)"
            return [*found, ("name", reason)]
        refused = space.refusals(self._shape, self._size(space))
        return found + [(key, f"{reason} (in the network that method {self.name} counts)") for key, reason in refused]

    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """What the method within learns, with the expected costs over the target in buffers that are not saved.

        Raises `RecipeError` where no network is within the limit.
        """
        import torch

        costs, fixed = self._costs(space)
        self._require_room(space, costs, fixed)
        chances = {kind: _chances(cell) for kind, cell in space.cells.items()}
        usual = fixed + sum(_uniform(c, costs[kind], chances[kind]) for kind, c in space.cells.items())
        target = self.target or usual or 1.0  # 1 where nothing costs anything
        module = super().arch(space, generator)
        module.register_buffer("cost_fixed", torch.tensor(fixed / target, dtype=torch.float64), persistent=False)
        for kind, rows in costs.items():
            expected = torch.tensor(rows, dtype=torch.float64) * torch.tensor(chances[kind])[:, None] / target
            module.register_buffer(f"cost_{kind}", expected, persistent=False)
        return module

    def expected(self, search: Search, mixture: Mixture) -> Tensor:
        """[]: the expected cost over the target, differentiable in the shares.

        An edge counts with the chance that its node keeps it, `in_degree` of its inputs.
        """
        terms = [search.arch.get_buffer("cost_fixed")]
        terms += [(mix.shares() * search.arch.get_buffer(f"cost_{kind}")).sum() for kind, mix in mixture.items()]
        return sum(terms[1:], terms[0])

    def penalty(self, search: Search, mixture: Mixture) -> Tensor | None:
        """That of the method within, and weight * max(0, expected / target - 1), or as `form` says."""
        own = super().penalty(search, mixture)
        if not self.weight:
            return own
        ratio = self.expected(search, mixture)
        term = self.weight * (ratio if self.form == "share" else (ratio - 1.0).relu())
        return term if own is None else own + term

    def derive(self, search: Search) -> Genotype | None:
        """The genotype of the method within if it is within the limit; otherwise the strongest one that is."""
        from diffnas.methods.budget_choice import affordable, cost_of

        genotype = super().derive(search)
        if self.limit is None or genotype is None:
            return genotype
        (costs, fixed), cells = self._costs(search.space), search.space.cells
        if fixed + cost_of(cells, genotype.cells, costs) <= self.limit:
            return genotype
        strength = {kind: rows.tolist() for kind, rows in search.strength().items()}
        return Genotype(search.space.name, affordable(cells, strength, costs, self.limit - fixed))

    @property
    def _shape(self) -> Shape:
        return Shape(self.classes, self.image_channels, self.side)

    def _size(self, space: Space) -> Size:
        return replace(
            space.size, channels=self.channels or space.size.channels, layers=self.layers or space.size.layers
        )

    def _costs(self, space: Any) -> tuple[Costs, float]:
        """The costs of ops, and what every network costs besides (of which a table says nothing)."""
        if self.table is not None:
            return read_cost_table(self.table).rows(space.cells), 0.0
        size = self._size(space)
        return space.costs(self._shape, self.unit, size), space.fixed(self._shape, self.unit, size)

    def _require_room(self, space: Space, costs: Costs, fixed: float) -> None:
        from diffnas.methods.budget_choice import affordable, cost_of

        if self.limit is None:
            return
        cells = space.cells
        least = fixed + cost_of(cells, affordable(cells, costs, costs, 0.0), costs)
        if least > self.limit:
            raise RecipeError(f"method.limit: must be at least {least:g} {self.unit}, what the cheapest network costs")


def _chances(cell: Cell) -> list[float]:
    """[E]: how likely each edge is to be kept, if all inputs of a node are equally so."""
    inputs = [len(cell.edges_into(target)) for _, target in cell.edges]
    return [1.0 if cell.in_degree is None else min(1.0, cell.in_degree / count) for count in inputs]


def _uniform(cell: Cell, costs_EO: list[list[float]], chances: list[float]) -> float:
    """The expected cost where all allowed ops of an edge have the same share."""
    rows = zip(cell.allowed, costs_EO, chances, strict=True)
    return sum(
        chance * sum(cost for cost, ok in zip(costs, allowed, strict=True) if ok) / max(1, sum(allowed))
        for allowed, costs, chance in rows
    )
