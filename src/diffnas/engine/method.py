"""The hooks of a method.  Their defaults are first-order DARTS; a method's file overrides only what its paper changes.

A method is a frozen dataclass of hyper-parameters: everything it learns or must remember lives in the module its `arch`
makes, so a checkpoint holds it.  Hooks call other hooks through `search` (`search.relax("weights")`), never through
`self`, so that a wrapper around a method sees every call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from diffnas import engine
from diffnas.core.genotype import Genotype
from diffnas.core.space import Size, Space

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from diffnas.core.batch import Batch, Loss
    from diffnas.core.mixture import Mixture
    from diffnas.engine.search import Search

Use = Literal["arch", "weights", "eval"]
"""What a mixture is made for: an architecture step, a weight step, or an evaluation."""


@dataclass(frozen=True)
class Phase:
    """A part of an epoch: which feeds each step reads, and how many steps (None: one pass over the training half).

    A step reads `each` batches of every feed: the first under its name, the others under `NAME.1`, `NAME.2`, ...
    """

    feeds: tuple[str, ...] = ("train", "valid")
    steps: int | None = None
    each: int = 1


@dataclass(frozen=True)
class Stage:
    """A run of epochs on one supernet.

    `fresh` rebuilds weights, architecture and optimizers; otherwise they go on, and so does the schedule, unless `restart`
    begins it anew with an empty weight optimizer.  `rate` multiplies the recipe's first learning rate, where it stays if it is
    `constant`.  `keep` is the number of ops each edge keeps on the way in (None: all).  The first `warmup` epochs leave the
    architecture alone.
    """

    epochs: int
    size: Size
    fresh: bool = True
    keep: int | None = None
    warmup: int = 0
    restart: bool = False
    rate: float = 1.0
    constant: bool = False
    phases: tuple[Phase, ...] = (Phase(),)

    @property
    def selects(self) -> bool:
        """Whether it goes on from a trained supernet, with a new weight optimizer, to choose the cell."""
        return self.restart and not self.fresh


@dataclass(frozen=True)
class Transition:
    """What a method asks for between two epochs: to end the stage (`next_stage`) or the search (`stop`), or to go back.

    With `stop`, `genotype_epoch` names the epoch whose genotype is the result (1: that after the first; None: the last).
    `rewind` takes everything back to the end of that epoch, which the method's `max_rewind` must reach; the weights' decay is
    then what it was now times `decay_factor`.  `reason` says why, in a few words.
    """

    stop: bool = False
    next_stage: bool = False
    genotype_epoch: int | None = None
    reason: str = ""
    rewind: int | None = None
    decay_factor: float = 1.0


@dataclass(frozen=True)
class Clock:
    """Where a search is.  `epoch` of `epochs` spans all stages that share weights; `stage_epoch` counts within the stage.

    `phase` and `step` count what is done within the epoch, `total` the epochs done since the search began.
    """

    stage: int = 0
    stage_epoch: int = 0
    epoch: int = 0
    epochs: int = 1
    phase: int = 0
    step: int = 0
    total: int = 0


@dataclass(frozen=True)
class Method:
    """First-order DARTS, hook by hook."""

    name: ClassVar[str] = "method"

    def check_settings(self) -> list[tuple[str, str]]:
        """Hyper-parameters that do not go together: (setting, reason) pairs."""
        return []

    def check_space(self, space: Space) -> list[tuple[str, str]]:
        """What about `space` does not suit the method: (setting, reason) pairs."""
        return []

    @property
    def needs_double_backward(self) -> bool:
        """Whether its steps differentiate the supernet twice."""
        return False

    @property
    def uses_lookahead(self) -> bool:
        """Whether its steps look one step of plain SGD ahead."""
        return False

    @property
    def uses_score_feed(self) -> bool:
        """Whether it reads feed "score" between epochs, besides what its phases read."""
        return False

    @property
    def max_rewind(self) -> int:
        """How many epochs back its turn may ask to go: the loop keeps as many states."""
        return 0

    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        """The stages of a search, given the recipe's `search.epochs` and the space's size: one."""
        return (Stage(epochs, size),)

    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """What is learned besides weights: alpha [E, O] per kind of cell, 1e-3 N(0, 1)."""
        return engine.Alphas(space.cells, generator)

    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """The mixture: a softmax over the allowed ops of every edge."""
        return search.arch()

    def strength(self, search: Search) -> dict[str, Tensor]:
        """[E, O] per kind, without noise: how much each op counts, comparable across the edges of a node."""
        return {kind: mix.op.detach() for kind, mix in search.arch().items()}

    def penalty(self, search: Search, mixture: Mixture) -> Tensor | None:
        """[]: what the architecture loss gains besides the validation loss; None for nothing."""
        return None

    def supernet_buffers(self, clock: Clock) -> dict[str, float]:
        """Numbers that the supernet takes each epoch, by name; a supernet refuses a dial it does not have."""
        return {}

    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """One step: the architecture on `valid` if it is there, then the weights on `train` with the new architecture."""
        losses = {}
        if "valid" in batches:
            losses["valid"] = engine.arch_step(search, search.relax("arch", batches["valid"]), batches["valid"])
        if "train" in batches:
            losses["train"] = engine.weight_step(search, search.relax("weights", batches["train"]), batches["train"])
        return losses

    def on_epoch_boundary(self, search: Search, epoch: int) -> Transition:
        """Asked before every epoch of a stage and after the last one."""
        return Transition()

    def samples(self, search: Search, count: int, generator: torch.Generator) -> list[Genotype]:
        """`count` genotypes from what the search believes now: an op per edge drawn by strength, then derived."""
        return engine.sampled_genotypes(search.space, search.strength(), count, generator)

    def derive(self, search: Search) -> Genotype | None:
        """The genotype as things stand; pure, runs every epoch."""
        strength = search.strength()
        cells = {kind: engine.strongest(cell, strength[kind]) for kind, cell in search.space.cells.items()}
        return Genotype(search.space.name, cells)
