"""DARTS+: Improved Differentiable Architecture Search with Early Stopping (Liang, Zhang, Sun, He, Huang, Zhuang and Li, 2019).

A search goes wrong once skip connections crowd out the ops that learn, so it stops while the cell has few of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from diffnas.core.collapse import skips
from diffnas.core.settings import setting
from diffnas.core.space import Space
from diffnas.engine.method import Capture
from diffnas.engine.search import Search
from diffnas.engine.stage import Transition
from diffnas.methods.wrapper import Wrapper


@dataclass(frozen=True)
class DARTSPlus(Wrapper):
    """Stop another method's search once the derived normal cell has two skip connections."""

    name: ClassVar[str] = "darts-plus"
    capture: ClassVar[Capture] = "throughout"

    skips: int = setting(2, "skip connections of a cell, other than the reduction cell, that end the search", ge=1)

    @override
    def check_space(self, space: Space) -> list[tuple[str, str]]:
        """Checks that the space has skip connections to count."""
        reason = f"{space.name} has no skip connections to count; take another method than darts-plus"
        return super().check_space(space) + [("name", reason)] * (space.modality == "text")

    @override
    def on_epoch_boundary(self, search: Search, epoch: int) -> Transition:
        """Stops by criterion 1 of the paper, with the current genotype."""
        genotype = search.derive() if epoch else None
        for kind, count in ({} if genotype is None else skips(genotype)).items():
            if kind != "reduce" and count >= self.skips:
                return Transition(stop=True, reason=f"{count} ops of the {kind} cell are skip connections")
        return super().on_epoch_boundary(search, epoch)
