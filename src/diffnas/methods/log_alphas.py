"""What SNAS and DSNAS learn: log alpha, what its ops cost, and which edges are decided."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from diffnas.core.cell import Cell
from diffnas.core.count import Unit
from diffnas.core.mixture import Mixture
from diffnas.core.space import Shape, Space, TextShape
from diffnas.engine.search import Alphas
from diffnas.methods.sampling import one_hot


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

    def costs(self, mixture: Mixture, space: Space, shape: Shape | TextShape, unit: Unit) -> list[Tensor]:
        """Per kind of cell, the shares of `mixture` times what `space` says its ops cost, [E, O]."""
        if not self.priced:  # once: counting takes a while
            for kind, rows in space.costs(shape, unit).items():
                self.get_buffer(f"cost_{kind}").copy_(torch.tensor(rows))
            self.get_buffer("fixed").fill_(space.fixed_cost(shape, unit))
            self.priced = True
        return [mix.shares() * self.get_buffer(f"cost_{kind}") for kind, mix in mixture.items()]

    def used(self, mixture: Mixture, space: Space, shape: Shape | TextShape) -> list[Tensor]:
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
