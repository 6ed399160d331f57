"""RSWS: Random Search and Reproducibility for Neural Architecture Search (Li and Talwalkar, UAI 2019), with shared weights.

Every step trains the shared weights on one cell drawn uniformly; nothing is learned of the architecture.  Selection comes
last, in rounds: many random cells compete on one validation batch, the best of them on all, and the best of all rounds wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

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
class RSWS(Method):
    """Train shared weights on random cells, then pick the best of many random cells by their accuracy with them."""

    name: ClassVar[str] = "rsws"

    rounds: int = setting(5, "rounds of selection (authors: one per 10,000 steps of a search)", ge=1)
    candidates: int = setting(1000, "random cells of a round, each scored on the same validation batch", ge=1)
    finalists: int = setting(10, "best of them, scored again on the whole architecture half", ge=1)

    def refusals(self) -> list[tuple[str, str]]:
        """Finalists are candidates."""
        few = self.finalists > self.candidates
        return [("finalists", f"must be at most method.candidates, {self.candidates}")] if few else []

    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        """Training, then an epoch for every round, whose steps score a cell each."""
        rounds = Phase(("score",), self.candidates + self.finalists)
        return (
            Stage(epochs, size, phases=(Phase(("train",)),)),
            Stage(self.rounds, size, fresh=False, restart=True, phases=(rounds,)),
        )

    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """Nothing to learn: the finalists of the round and the winner so far."""
        from torch import nn

        from diffnas.methods.selection import Podium

        return nn.ModuleDict({"finalists": Podium(space.cells, self.finalists), "winner": Podium(space.cells)})

    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """A cell drawn uniformly; for use "eval" the best so far, if there is one."""
        best = _best(search) if use == "eval" else None
        return best or _random(search, search.fork("eval") if use == "eval" else search.shared)

    def strength(self, search: Search) -> dict[str, Tensor]:
        """1 for the ops of the best cell so far, else the chance of each op."""
        from diffnas.core.mixture import softmax_allowed

        best = _best(search)
        if best is not None:
            return {kind: mix.op for kind, mix in best.items()}
        allowed = {kind: mix.op.new_tensor(0) for kind, mix in _random(search, search.fork("strength")).items()}
        return {kind: softmax_allowed(zero, zero) for kind, zero in allowed.items()}

    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """The weights on `train`; in the last stage, the score of one cell."""
        if "train" not in batches:
            self._select(search)
            return {}
        batch = batches["train"]
        return {"train": engine.weight_step(search, search.relax("weights", batch), batch)}

    def _select(self, search: Search) -> None:
        """Step k of a round: the k-th candidate on the round's batch, or after them the next finalist on all batches."""
