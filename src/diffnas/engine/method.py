"""The hooks of a method.  Their defaults are first-order DARTS; a method's file overrides only what its paper changes.

A method is a frozen dataclass of hyper-parameters: everything it learns or must remember lives in the module its `arch`
makes, so a checkpoint holds it.  Hooks call other hooks through `search` (`search.relax("weights")`), never through
`self`, so that a wrapper around a method sees every call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from diffnas.core.batch import Batch, Loss
from diffnas.core.genotype import Genotype
from diffnas.core.mixture import Mixture
from diffnas.core.space import Size, Space
from diffnas.engine.derive import sampled_genotypes, strongest
from diffnas.engine.gradients import arch_step, weight_step
from diffnas.engine.search import Alphas, Search
from diffnas.engine.stage import Clock, Stage, Transition, Use

Capture = Literal["throughout", "epoch", "never"]


@dataclass(frozen=True)
class Method:
    """The hooks of a method; the defaults are first-order DARTS."""

    name: ClassVar[str] = "method"
    capture: ClassVar[Capture] = "never"
    """Whether a CUDA graph may repeat a step (see `engine.replay`): throughout, within an epoch where its numbers depend on
    the clock, or never, where it reads the device or draws on the host.  It is not inherited: each class says its own."""
    draws: ClassVar[bool] = False
    """Whether steps draw by `search.draw`, so that a graph needs `search.draws=device`."""

    def check_settings(self) -> list[tuple[str, str]]:
        """Returns hyper-parameters that contradict each other, as (setting, reason) pairs."""
        return []

    def check_space(self, space: Space) -> list[tuple[str, str]]:
        """Returns why the method cannot search `space`, as (setting, reason) pairs."""
        return []

    def check_stages(self, epochs: int, size: Size) -> list[tuple[str, str]]:
        """Returns why the method cannot use the stages of a search of `epochs` epochs, as (setting, reason) pairs."""
        return []

    @property
    def needs_double_backward(self) -> bool:
        """Whether a step differentiates the supernet twice."""
        return False

    @property
    def uses_lookahead(self) -> bool:
        """Whether a step looks one step of plain SGD ahead."""
        return False

    @property
    def uses_score_feed(self) -> bool:
        """Whether the method reads the feed "score" between epochs, besides the feeds of its phases."""
        return False

    @property
    def max_rewind(self) -> int:
        """The number of epochs that `on_epoch_boundary` may go back; the loop keeps as many states."""
        return 0

    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        """Returns the stages of a search, given the recipe's `search.epochs` and the space's size: by default one."""
        return (Stage(epochs, size),)

    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """Builds the parameters that are learned besides weights: alpha [E, O] per kind of cell, 1e-3 N(0, 1)."""
        return Alphas(space.cells, generator)

    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """Returns the mixture: a softmax over the allowed ops of every edge."""
        mixture: Mixture = search.arch()
        return mixture

    def strength(self, search: Search) -> dict[str, Tensor]:
        """[E, O] per kind, without noise: how much each op counts, comparable across the edges of a node."""
        return {kind: mix.op.detach() for kind, mix in search.arch().items()}

    def penalty(self, search: Search, mixture: Mixture) -> Tensor | None:
        """[]: the term that is added to the validation loss in the architecture's loss; None for none."""
        return None

    def weight_penalty(self, search: Search, mixture: Mixture) -> Tensor | None:
        """[]: the term that is added to the training loss in the weights' loss, differentiable in them; None for none."""
        return None

    def supernet_buffers(self, clock: Clock) -> dict[str, float]:
        """Returns values for the supernet's buffers in this epoch, by name; a supernet refuses a buffer it does not have."""
        return {}

    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """Takes one step: the architecture on `valid` if it is there, then the weights on `train` with the new architecture."""
        losses = {}
        if "valid" in batches:
            losses["valid"] = arch_step(search, search.relax("arch", batches["valid"]), batches["valid"])
        if "train" in batches:
            losses["train"] = weight_step(search, search.relax("weights", batches["train"]), batches["train"])
        return losses

    def on_epoch_boundary(self, search: Search, epoch: int) -> Transition:
        """Returns the transition that is due, if any; called before every epoch of a stage and after the last one."""
        return Transition()

    def samples(self, search: Search, count: int, generator: torch.Generator) -> list[Genotype]:
        """Samples `count` genotypes by the current strengths: an op per edge is drawn, then the cell is derived."""
        return sampled_genotypes(search.space, search.strength(), count, generator)

    def derive(self, search: Search) -> Genotype | None:
        """Derives the current genotype; pure, called every epoch."""
        strength = search.strength()
        cells = {kind: strongest(cell, strength[kind]) for kind, cell in search.space.cells.items()}
        return Genotype(search.space.name, cells)
