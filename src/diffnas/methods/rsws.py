"""RSWS: Random Search and Reproducibility for Neural Architecture Search (Li and Talwalkar, UAI 2019), with shared weights.

Every step trains the shared weights on one cell drawn uniformly; nothing is learned of the architecture.  Selection comes
last, in rounds: many random cells compete on a few validation batches each, the best of them on all, and the best of all
rounds wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from diffnas import engine
from diffnas.core.batch import Batch, Loss
from diffnas.core.cell import Cell
from diffnas.core.genotype import Genotype
from diffnas.core.mixture import Mixture
from diffnas.core.settings import setting
from diffnas.core.space import Size, Space
from diffnas.engine.method import Method
from diffnas.engine.scoring import score_batches
from diffnas.engine.search import Search
from diffnas.engine.stage import Phase, Stage, Use
from diffnas.methods.discrete import Rounds, chances, genotype_of, mixture_of


@dataclass(frozen=True)
class RSWS(Method):
    """Train shared weights on random cells, then pick the best of many random cells by their accuracy with them."""

    name: ClassVar[str] = "rsws"

    rounds: int = setting(5, "rounds of selection (authors: one per 10,000 steps of a search)", ge=1)
    candidates: int = setting(1000, "random cells of a round", ge=1)
    batches: int = setting(
        10,
        "validation batches that a cell is scored on, always the next ones (NAS-Bench-201: 1; 0: one for a whole round)",
        before=0,
        ge=0,
    )
    draw: Literal["all", "derivable"] = setting(
        "all",
        "ops of a random cell of images: all, none included (published), or those that may be derived",
        before="derivable",
    )
    finalists: int = setting(10, "best of them, scored again on the whole architecture half", ge=1)

    @override
    def check_settings(self) -> list[tuple[str, str]]:
        few = self.finalists > self.candidates
        return [("finalists", f"must be at most method.candidates, {self.candidates}")] if few else []

    @override
    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        """Returns the training, then an epoch per round, whose steps score a cell each."""
        feed = ("valid",) if self.batches else ("score",)
        rounds = Phase(feed, self.candidates + self.finalists, max(1, self.batches))
        return (
            Stage(epochs, size, phases=(Phase(("train",)),)),
            Stage(self.rounds, size, fresh=False, restart=True, phases=(rounds,)),
        )

    @override
    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """Builds the state of the selection: the finalists of the round and the winner so far; nothing is learned."""
        return Rounds(space.cells, self.finalists)

    @override
    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """Samples a cell uniformly; for use "eval", returns the best so far, if there is one."""
        if use != "eval":
            return self._drawn(search, search.shared)
        return _rounds(search).best() or self._drawn(search, search.fork("eval"))

    @override
    def strength(self, search: Search) -> dict[str, Tensor]:
        """[E, O] per kind: 1 for the ops of the best cell so far; before there is one, the chance of each op."""
        best = _rounds(search).best()
        if best is None:
            return {kind: chances(cell).to(search.device) for kind, cell in self._cells(search).items()}
        return {kind: mix.op for kind, mix in best.items()}

    @override
    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """Takes a step of the weights on `train`; in the last stage, scores one cell."""
        if "train" not in batches:
            self._select(search, list(batches.values()))
            return {}
        batch = batches["train"]
        return {"train": engine.weight_step(search, search.relax("weights", batch), batch)}

    def _select(self, search: Search, seen: list[Batch]) -> None:
        """Takes step k of a round: scores the k-th candidate on the batches `seen`, then each finalist on all batches."""
        rounds, batches, k = _rounds(search), score_batches(search), search.clock.step
        if k == 0:
            rounds.finalists.clear()
        if not self.batches:
            seen = [batches[search.clock.stage_epoch % len(batches)]]
        if k < self.candidates:
            cell = self._drawn(search, search.shared)
            rounds.finalists.insert(cell, engine.score(search, cell, seen).reward)
        elif (finalist := rounds.finalists.best(k - self.candidates)) is not None:
            rounds.winner.insert(finalist, engine.score(search, finalist, batches).reward)

    @override
    def samples(self, search: Search, count: int, generator: torch.Generator) -> list[Genotype]:
        """Samples cells uniformly."""
        return [self._random(search, generator) for _ in range(count)]

    @override
    def derive(self, search: Search) -> Genotype:
        """Derives the best cell so far, or a random cell before there is one."""
        best = _rounds(search).best()
        if best is None:
            return self._random(search, search.fork("derive"))
        return genotype_of(best, search.space.name, search.space.cells)

    def _cells(self, search: Search) -> dict[str, Cell]:
        """Returns the cells to draw from; for text, the authors leave `none` out as well."""
        every = self.draw == "all" and search.space.modality != "text"
        return {k: replace(c, excluded=c.excluded - {"none"}) if every else c for k, c in search.space.cells.items()}

    def _random(self, search: Search, generator: torch.Generator) -> Genotype:
        return engine.random_genotype(search.space.name, self._cells(search), generator)

    def _drawn(self, search: Search, generator: torch.Generator) -> Mixture:
        like = _rounds(search).winner.accuracy
        return mixture_of(self._random(search, generator), search.space.cells, like)


def _rounds(search: Search) -> Rounds:
    assert isinstance(search.arch, Rounds)
    return search.arch
