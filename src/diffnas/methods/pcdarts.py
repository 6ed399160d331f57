"""PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search (Xu, Xie, Zhang, Chen, Qi, Tian and Xiong,
ICLR 2020).

Ops see one in K channels (`space.partial`), which makes room for larger batches, and the shares of the edges into a node are
learned as well, which steadies the choice of edges.  The architecture rests for the first epochs, so that ops without
weights get no head start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from diffnas.core.settings import setting
from diffnas.core.space import Size, Space
from diffnas.engine.method import Method, Stage

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from diffnas.engine.search import Search
    from diffnas.methods.edge_alphas import EdgeAlphas


@dataclass(frozen=True)
class PCDARTS(Method):
    """Search on a part of the channels, with a learned share for every edge (space.partial says which part)."""

    name: ClassVar[str] = "pcdarts"

    warmup: int = setting(15, "first epochs that train only weights (CIFAR-10: 15 of 50; ImageNet: 35 of 50)", ge=0)

    def check_space(self, space: Space) -> list[tuple[str, str]]:
        """A part of the channels needs channels."""
        if space.modality == "images":
            return []
        return [
            ("name", f"{space.name} has no channels that ops could see a part of; take another method than pcdarts")
        ]

    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        """One, that begins with the warm-up."""
        return (Stage(epochs, size, warmup=self.warmup),)

    def arch(self, space: Space, generator: torch.Generator) -> EdgeAlphas:
        """alpha [E, O] and beta [E] per kind of cell."""
        from diffnas.methods.edge_alphas import EdgeAlphas

        return EdgeAlphas(space.cells, generator)

    def strength(self, search: Search) -> dict[str, Tensor]:
        """[E, O]: the share of the op times that of its edge (section 3.3); within an edge, the order of the ops stays."""
        return {kind: mix.op * mix.edge.unsqueeze(1) for kind, mix in search.arch().items()}
