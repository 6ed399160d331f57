"""A method around another method: it passes every hook on, and its subclasses override what their papers change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

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
    """A method that passes every hook on to `base`.  Hooks call each other through `search`, so they see overrides."""

    base: Method = choice(
        "method",
        DARTS(),
        "the method it is put around: see `diffnas list methods`",
        "that method's own settings, as under `method`",
    )

    @override
    def check_settings(self) -> list[tuple[str, str]]:
        return [(f"base_settings.{key}", reason) for key, reason in self.base.check_settings()]

    @override
    def check_space(self, space: Space) -> list[tuple[str, str]]:
        return self.base.check_space(space)

    @property
    @override
    def needs_double_backward(self) -> bool:
        return self.base.needs_double_backward

    @property
    @override
    def uses_lookahead(self) -> bool:
        return self.base.uses_lookahead

    @property
    @override
    def uses_score_feed(self) -> bool:
        return self.base.uses_score_feed

    @property
    @override
    def max_rewind(self) -> int:
        return self.base.max_rewind

    @override
    def check_stages(self, epochs: int, size: Size) -> list[tuple[str, str]]:
        return [(f"base_settings.{key}", reason) for key, reason in self.base.check_stages(epochs, size)]

    @override
    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        return self.base.stages(epochs, size)

    @override
    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        return self.base.arch(space, generator)

    @override
    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        return self.base.relax(search, use, batch)

    @override
    def strength(self, search: Search) -> dict[str, Tensor]:
        return self.base.strength(search)

    @override
    def penalty(self, search: Search, mixture: Mixture) -> Tensor | None:
        return self.base.penalty(search, mixture)

    @override
    def weight_penalty(self, search: Search, mixture: Mixture) -> Tensor | None:
        return self.base.weight_penalty(search, mixture)

    @override
    def supernet_buffers(self, clock: Clock) -> dict[str, float]:
        return self.base.supernet_buffers(clock)

    @override
    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        return self.base.step(search, batches)

    @override
    def on_epoch_boundary(self, search: Search, epoch: int) -> Transition:
        return self.base.on_epoch_boundary(search, epoch)

    @override
    def samples(self, search: Search, count: int, generator: torch.Generator) -> list[Genotype]:
        return self.base.samples(search, count, generator)

    @override
    def derive(self, search: Search) -> Genotype | None:
        return self.base.derive(search)
