"""The stages of a search, the phases of their epochs, what a method asks for between epochs, and where a search is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffnas.core.space import Size

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
    """A request of a method between two epochs: to end the stage (`next_stage`) or the search (`stop`), or to go back.

    With `stop`, `genotype_epoch` names the epoch whose genotype is the result (1: that after the first; None: the last).
    `rewind` restores the state at the end of that epoch, which the method's `max_rewind` must reach; the weight decay is
    then the current one times `decay_factor`.  `reason` says why, in a few words.
    """

    stop: bool = False
    next_stage: bool = False
    genotype_epoch: int | None = None
    reason: str = ""
    rewind: int | None = None
    decay_factor: float = 1.0


@dataclass(frozen=True)
class Clock:
    """The position of a search in time.

    `epoch` of `epochs` spans all stages that share weights; `stage_epoch` counts within the stage.  `phase` and `step`
    count what is done within the epoch, `total` the epochs done since the search began.  `selecting` says that the
    current stage `selects`.
    """

    stage: int = 0
    stage_epoch: int = 0
    epoch: int = 0
    epochs: int = 1
    phase: int = 0
    step: int = 0
    total: int = 0
    selecting: bool = False
