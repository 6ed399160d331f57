"""A method around another method: it passes every hook on and overrides what its paper changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffnas.core.batch import Batch, Loss
from diffnas.core.genotype import Genotype
from diffnas.core.mixture import Mixture
from diffnas.core.settings import choice
from diffnas.core.space import Size, Space
from diffnas.engine.method import Method
from diffnas.engine.search import Search
from diffnas.engine.stage import Clock, Stage, Transition, Use
from diffnas.methods.darts import DARTS


@dataclass(frozen=True)
class Wrapper(Method):
    """Every hook as `base` has it.  Hooks call one another through `search`, so what a wrapper overrides reaches them."""

    base: Method = choice(
        "method",
        DARTS(),
        "the method it is put around: see `diffnas list methods`",
        "that method's own settings, as under `method`",
    )

    def check_settings(self) -> list[tuple[str, str]]:
        """Those of the method within."""
        return [(f"base_settings.{key}", reason) for key, reason in self.base.check_settings()]

    def check_space(self, space: Space) -> list[tuple[str, str]]:
        """Those of the method within."""
        return self.base.check_space(space)

    @property
    def needs_double_backward(self) -> bool:
        """Whether the method within differentiates twice."""
        return self.base.needs_double_backward

    @property
    def uses_lookahead(self) -> bool:
        """Whether the method within looks a step ahead."""
        return self.base.uses_lookahead

    @property
    def uses_score_feed(self) -> bool:
        """Whether the method within reads feed "score" between epochs."""
        return self.base.uses_score_feed

    @property
    def max_rewind(self) -> int:
        """How far the method within may go back."""
        return self.base.max_rewind

    def check_stages(self, epochs: int, size: Size) -> list[tuple[str, str]]:
        """What the method within says of its own."""
        return [(f"base_settings.{key}", reason) for key, reason in self.base.check_stages(epochs, size)]

    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        """The stages of the method within."""
        return self.base.stages(epochs, size)

    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """What the method within learns."""
        return self.base.arch(space, generator)

    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """Its mixture."""
        return self.base.relax(search, use, batch)

    def strength(self, search: Search) -> dict[str, Tensor]:
        """Its strengths."""
        return self.base.strength(search)

    def penalty(self, search: Search, mixture: Mixture) -> Tensor | None:
        """Its penalty."""
        return self.base.penalty(search, mixture)

    def supernet_buffers(self, clock: Clock) -> dict[str, float]:
        """Its dials."""
        return self.base.supernet_buffers(clock)

    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """Its step."""
        return self.base.step(search, batches)

    def on_epoch_boundary(self, search: Search, epoch: int) -> Transition:
        """Its turn."""
        return self.base.on_epoch_boundary(search, epoch)

    def samples(self, search: Search, count: int, generator: torch.Generator) -> list[Genotype]:
        """Its samples."""
        return self.base.samples(search, count, generator)

    def derive(self, search: Search) -> Genotype | None:
        """Its genotype."""
        return self.base.derive(search)
