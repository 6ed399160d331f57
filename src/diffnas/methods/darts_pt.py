"""DARTS-PT: Rethinking Architecture Selection in Differentiable NAS (Wang, Cheng, Chen, Tang and Hsieh, ICLR 2021).

How large an op's share is says little of how much the supernet needs it.  So, after the search of another method, edges are
decided one at a time: each op of the edge is taken out in turn, and the one that is missed most stays.  In between, the
supernet is tuned.  Then every node with too many edges loses, one by one, the edge that is missed least.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from diffnas import engine
from diffnas.core.cell import Cell
from diffnas.core.genotype import Genotype
from diffnas.core.settings import setting
from diffnas.core.space import Size, Space
from diffnas.engine.method import Clock, Stage, Turn, Use
from diffnas.engine.wrapper import Wrapper
from diffnas.methods.score_feed import score_batches

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor, nn

    from diffnas.core.batch import Batch, Loss
    from diffnas.core.mixture import Mix, Mixture
    from diffnas.engine.search import Search

OPEN, GONE = -1, -2
"""What the buffer `choice_KIND` [E] holds for an edge that is undecided or deleted; for a decided one, its op's column."""


@dataclass(frozen=True)
class DARTSPT(Wrapper):
    """Search by another method, then decide edge after edge by how much the supernet misses what is taken out."""

    name: ClassVar[str] = "darts-pt"

    interval: int = setting(5, "epochs from one decision to the next; the last may be due before the last epoch", ge=1)
    tuning: int = setting(81, "epochs of the stage that decides (DARTS space: 81; NAS-Bench-201: 25)", ge=1)
    rate: float = setting(0.1, "factor of the first learning rate in that stage", gt=0)
    criterion: Literal["accuracy", "loss"] = setting("accuracy", "what on the architecture half tells how much is missed")
    blank: bool = setting(False, "leave the architecture at its initial value, and train weights only")

    def refusals(self) -> list[tuple[str, str]]:
        """An architecture is decided once."""
        nested = [("base", f"is {self.name} itself; name the method that it is put around")]
        return super().refusals() + nested * isinstance(self.inner, DARTSPT)

    def misfits(self, space: Space) -> list[tuple[str, str]]:
        """The tuning stage must be long enough for all decisions, which are made for all kinds of cell at once."""
        found, needed = super().misfits(space), max(map(_decisions, space.cells.values()))
        if sum(map(self._due, range(self.tuning))) >= needed:
            return found
        epochs = (needed - 1) * self.interval + 1
        return [*found, ("name", f"has {needed} decisions to make: set method.tuning to {epochs}, not {self.tuning}")]

    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        """Those of the method within, and one that decides, with a new weight optimizer and a smaller rate."""
        own = super().stages(epochs, size)
        tuning = Stage(self.tuning, own[-1].size, fresh=False, restart=True, rate=self.rate, phases=own[-1].phases)
        return (*own, tuning)

    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """What the method within learns, with a buffer of decisions per kind of cell."""
        import torch

        module = super().arch(space, generator).requires_grad_(not self.blank)
        for kind, cell in space.cells.items():
            module.register_buffer(f"choice_{kind}", torch.full((len(cell.edges),), OPEN))
        module.register_buffer("decided_at", torch.tensor(-1))
        return module

    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """The mixture of the method within; a decided edge has one op, a deleted one nothing."""
        from diffnas.core.mixture import Mixture

        if not self._tunes(search.clock):
            return super().relax(search, use, batch)
        mixture = super().relax(self._ended(search), use, batch)
        return Mixture({kind: _decided(mix, _choice(search, kind)) for kind, mix in mixture.items()})

    def strength(self, search: Search) -> dict[str, Tensor]:
        """Those of the method within."""
        return super().strength(self._ended(search))

    def penalty(self, search: Search, mixture: Mixture) -> Tensor | None:
        """That of the method within."""
        return super().penalty(self._ended(search), mixture)

    def dials(self, clock: Clock) -> dict[str, float]:
        """Those of the method within, which stay where they were at its end."""
        return super().dials(self._last(clock))

    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """That of the method within, or with `blank` its weight step alone."""
        return super().step(search, {name: b for name, b in batches.items() if not (self.blank and name == "valid")})

    def turn(self, search: Search, epoch: int) -> Turn:
        """Decides an edge or a node of every kind of cell where that is due; told again, it does nothing."""
        if not self._tunes(search.clock):
            return super().turn(search, epoch)
        decided_at, draw = search.arch.get_buffer("decided_at"), search.fork(self.name)
        if self._due(epoch) and int(decided_at) != search.clock.total:
            decided_at.fill_(search.clock.total)
            for kind, cell in search.space.cells.items():
                self._decide(search, kind, cell, draw)
        return Turn()

    def derive(self, search: Search) -> Genotype | None:
        """What the method within derives from what the decisions so far have left."""
        if not self._tunes(search.clock):
            return super().derive(search)
        left = self._ended(search)
        ones = {kind: mix.op.new_ones(mix.op.shape) ...}
