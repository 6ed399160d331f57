"""DARTS-PT: Rethinking Architecture Selection in Differentiable NAS (Wang, Cheng, Chen, Tang and Hsieh, ICLR 2021).

How large an op's share is says little of how much the supernet needs it.  So, after the search of another method, edges are
decided one at a time: each op of the edge is taken out in turn, and the one that is missed most stays.  In between, the
supernet is tuned.  Then every node with too many edges loses those that are missed least.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from diffnas import engine
from diffnas.core.genotype import Genotype
from diffnas.core.settings import setting
from diffnas.core.space import Size, Space
from diffnas.engine.method import Clock, Stage, Transition, Use
from diffnas.engine.wrapper import Wrapper
from diffnas.methods.darts_pt_schedule import decisions, due, ended

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor, nn

    from diffnas.core.batch import Batch, Loss
    from diffnas.core.mixture import Mixture
    from diffnas.engine.search import Search


@dataclass(frozen=True)
class DARTSPT(Wrapper):
    """Search by another method, then decide edge after edge by how much the supernet misses what is taken out."""

    name: ClassVar[str] = "darts-pt"

    interval: int = setting(5, "epochs from one decision to the next; the last may be due before the last epoch", ge=1)
    tuning: int = setting(81, "epochs of the stage that decides (DARTS space: 81; NAS-Bench-201: 25)", ge=1, le=9999)
    rate: float = setting(0.1, "factor of the first learning rate in that stage", gt=0)
    falling: bool = setting(
        False,
        "let that rate fall by the recipe's schedule (published: a scheduler is made and never stepped)",
        before=True,
    )
    among: Literal["all", "left"] = setting(
        "all",
        "a node's edges that are there when each of them is measured: all (published), or what earlier deletions left",
        before="left",
    )
    criterion: Literal["accuracy", "loss"] = setting(
        "accuracy", "what on the architecture half tells how much is missed"
    )
    blank: bool = setting(False, "leave the architecture at its initial value, and train weights only")

    def check_settings(self) -> list[tuple[str, str]]:
        """An architecture is decided once."""
        nested, inner = [("base", f"holds {self.name} itself; name the method that it is put around")], self.inner
        while isinstance(inner, Wrapper) and not isinstance(inner, DARTSPT):
            inner = inner.inner
        found = super().check_settings() + nested * isinstance(inner, DARTSPT)
        last = self.inner.stages(4, Size(16, 8))[-1]
        if not any("train" in phase.feeds for phase in last.phases):
            found.append(
                ("base", f"{self.base} ends with a selection of its own; tuning needs a method that trains to its end")
            )
        return found

    def check_space(self, space: Space) -> list[tuple[str, str]]:
        """The tuning stage must be long enough for all decisions, which are made for all kinds of cell at once."""
        found, needed = super().check_space(space), max(map(decisions, space.cells.values()))
        if sum(due(epoch, self.interval, self.tuning) for epoch in range(self.tuning)) >= needed:
            return found
        epochs = (needed - 1) * self.interval + 1
        return [*found, ("name", f"has {needed} decisions to make: set method.tuning to {epochs}, not {self.tuning}")]

    @property
    def uses_score_feed(self) -> bool:
        """For the decisions."""
        return True

    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        """Those of the method within, and one that decides, with a new weight optimizer and a smaller rate."""
        own = super().stages(epochs, size)
        tuning = Stage(self.tuning, own[-1].size, fresh=False, restart=True, rate=self.rate, phases=own[-1].phases)
        return (*own, replace(tuning, constant=not self.falling))

    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """What the method within learns, with a buffer of decisions per kind of cell."""
        from diffnas.methods.darts_pt_decisions import register

        module = super().arch(space, generator)
        register(module, space.cells)
        return module.requires_grad_(False) if self.blank else module

    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """The mixture of the method within; a decided edge has one op, a deleted one nothing."""
        from diffnas.methods.darts_pt_decisions import decided

        mixture = super().relax(self._ended(search), use, batch)
        return decided(search, mixture) if self._tunes(search.clock) else mixture

    def strength(self, search: Search) -> dict[str, Tensor]:
        """Those of the method within."""
        return super().strength(self._ended(search))

    def penalty(self, search: Search, mixture: Mixture) -> Tensor | None:
        """That of the method within."""
        return super().penalty(self._ended(search), mixture)

    def supernet_buffers(self, clock: Clock) -> dict[str, float]:
        """Those of the method within, which stay where they came to by its end."""
        return super().supernet_buffers(self._last(clock))

    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """That of the method within, or with `blank` its weight step alone."""
        return super().step(search, {name: b for name, b in batches.items() if not (self.blank and name == "valid")})

    def on_epoch_boundary(self, search: Search, epoch: int) -> Transition:
        """Decides an edge or a node of every kind of cell where that is due; told again, it does nothing."""
        if not self._tunes(search.clock):
            asked = super().on_epoch_boundary(search, epoch)  # where the method within stops, deciding begins
            return replace(asked, stop=False, next_stage=True, genotype_epoch=None) if asked.stop else asked
        if due(epoch, self.interval, self.tuning):
            from diffnas.methods.darts_pt_decisions import decide_once

            decide_once(search, self.criterion, self.among)
        return Transition()

    def derive(self, search: Search) -> Genotype | None:
        """What the decisions have left; where that is more than one op or too many edges, the strongest of it."""
        if not self._tunes(search.clock):
            return super().derive(search)
        from diffnas.methods.darts_pt_decisions import left

        cells = {kind: search.space.cells[kind].keep(rows.tolist()) for kind, rows in left(search).items()}
        strength = search.strength()
        return Genotype(search.space.name, {kind: engine.strongest(cells[kind], strength[kind]) for kind in cells})

    # -- when

    @cached_property
    def _own_stages(self) -> int:
        return len(self.inner.stages(50, Size(16, 8)))

    def _tunes(self, clock: Clock) -> bool:
        return clock.stage == self._own_stages

    def _last(self, clock: Clock) -> Clock:
        """In the tuning stage, the end of the method within: its annealing does not begin anew."""
        return ended(clock) if self._tunes(clock) else clock

    def _ended(self, search: Search) -> Search:
        """The same search at that clock."""
        if not self._tunes(search.clock):
            return search
        view = copy.copy(search)
        view.clock = self._last(search.clock)
        return view
