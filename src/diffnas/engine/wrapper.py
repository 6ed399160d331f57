"""A method around another method: it passes every hook on and overrides what its paper changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

from diffnas.core.genotype import Genotype
from diffnas.core.settings import setting
from diffnas.core.space import Size, Space
from diffnas.engine.method import Clock, Method, Stage, Transition, Use

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from diffnas.core.batch import Batch, Loss
    from diffnas.core.mixture import Mixture
    from diffnas.engine.search import Search


@dataclass(frozen=True)
class Wrapper(Method):
    """Every hook as `base` has it.  Hooks call one another through `search`, so what a wrapper overrides reaches them."""

    base: str = setting("darts", "the method it is put around: see `diffnas list methods`")
    base_settings: dict[str, Any] = field(
        default_factory=dict, metadata={"about": "that method's own settings, as under `method`", "limits": {}}
    )

    @cached_property
    def inner(self) -> Method:
        """The method within; raises `KeyError` for a name and `TypeError` for settings it does not have."""
        settings = {
            key: tuple(value) if isinstance(value, list) else value for key, value in self.base_settings.items()
        }
        found: Method = import_module("diffnas.methods").method_class(self.base)(**settings)
        return found

    def check_settings(self) -> list[tuple[str, str]]:
        """Those of the method within."""
        return [(f"base_settings.{key}", reason) for key, reason in self.inner.check_settings()]

    def check_space(self, space: Space) -> list[tuple[str, str]]:
        """Those of the method within."""
        return self.inner.check_space(space)

    @property
    def needs_double_backward(self) -> bool:
        """Whether the method within differentiates twice."""
        return self.inner.needs_double_backward

    @property
    def uses_lookahead(self) -> bool:
        """Whether the method within looks a step ahead."""
        return self.inner.uses_lookahead

    @property
    def uses_score_feed(self) -> bool:
        """Whether the method within reads feed "score" between epochs."""
        return self.inner.uses_score_feed

    @property
    def max_rewind(self) -> int:
        """How far the method within may go back."""
        return self.inner.max_rewind

    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        """The stages of the method within."""
        return self.inner.stages(epochs, size)

    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """What the method within learns."""
        return self.inner.arch(space, generator)

    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """Its mixture."""
        return self.inner.relax(search, use, batch)

    def strength(self, search: Search) -> dict[str, Tensor]:
        """Its strengths."""
        return self.inner.strength(search)

    def penalty(self, search: Search, mixture: Mixture) -> Tensor | None:
        """Its penalty."""
        return self.inner.penalty(search, mixture)

    def supernet_buffers(self, clock: Clock) -> dict[str, float]:
        """Its dials."""
        return self.inner.supernet_buffers(clock)

    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """Its step."""
        return self.inner.step(search, batches)

    def on_epoch_boundary(self, search: Search, epoch: int) -> Transition:
        """Its turn."""
        return self.inner.on_epoch_boundary(search, epoch)

    def samples(self, search: Search, count: int, generator: torch.Generator) -> list[Genotype]:
        """Its samples."""
        return self.inner.samples(search, count, generator)

    def derive(self, search: Search) -> Genotype | None:
        """Its genotype."""
        return self.inner.derive(search)
