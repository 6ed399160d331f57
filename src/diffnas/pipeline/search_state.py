"""The state of a running search, and its form in a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffnas.core.batch import Batch, Loss
from diffnas.core.space import Space
from diffnas.engine import Search
from diffnas.engine.optim import set_learning_rate
from diffnas.engine.search import Feed
from diffnas.engine.search_steps import SearchSteps
from diffnas.engine.stage import Clock, Stage
from diffnas.engine.steady import SteadySGD
from diffnas.pipeline.graphs import replay
from diffnas.pipeline.processes import batch_dim, own_carry, whole_carry
from diffnas.pipeline.session import checkpoint_mismatch, require_counts
from diffnas.pipeline.sources.base import Source
from diffnas.pipeline.stages import begins, build, inherited, narrowed, span, strongest_ops
from diffnas.recipe.recipe import Recipe
from diffnas.runtime.run_folder import Part
from diffnas.tasks.base import Task

Step = Callable[[Mapping[str, Batch]], dict[str, Loss]]


class SearchState:
    """The search of the current stage, and the state that outlives a stage.

    `seconds` were spent on the current epoch in earlier attempts, `decay` is the weights' decay as a multiple of the recipe's,
    and `carries` are the hidden states of the feeds of a recurrent search.
    """

    search: Search

    def __init__(
        self, recipe: Recipe, source: Source, task: Task, feeds: Mapping[str, Feed], device: torch.device
    ) -> None:
        assert recipe.search is not None and recipe.method is not None and recipe.space is not None
        self.recipe, self.settings, self.method = recipe, recipe.search, recipe.method
        self.space: Space = recipe.space
        self.shape, self.task, self.feeds, self.device = source.shape, task, feeds, device
        self.weights, self.batch_dim = source.search_weights(), batch_dim(source)
        self.stages = self.method.stages(self.settings.epochs, recipe.space.size)
        self.seconds, self.decay = 0.0, 1.0
        self.carries: dict[str, Tensor | None] = {}

    @property
    def epochs(self) -> int:
        """How many epochs all stages have together."""
        return sum(stage.epochs for stage in self.stages)

    @property
    def stage(self) -> Stage:
        """The current stage."""
        return self.stages[self.search.clock.stage]

    @property
    def within_epoch(self) -> bool:
        """Whether an epoch has begun and not ended."""
        return bool(self.search.clock.phase or self.search.clock.step)

    @property
    def beyond(self) -> bool:
        """Whether the last stage has begun more epochs than it has, since fewer are asked for than once were."""
        clock = self.search.clock
        return clock.stage + 1 == len(self.stages) and clock.stage_epoch + self.within_epoch > self.stage.epochs

    def begin(self, checkpoint: Mapping[str, Any] | None, part: Part) -> None:
        """Builds the first stage, or that of a `checkpoint` of `part`; raises `CheckpointError` for one of another search."""
        clock, space = Clock(), self.space
        if checkpoint is not None:
            try:
                clock = Clock(**checkpoint["state"]["search"]["clock"])
                require_counts(**{name: value for name, value in asdict(clock).items() if name != "selecting"})
                self.stages[clock.stage]  # noqa: B018 (is there such a stage?)
                space = narrowed(space, checkpoint["state"]["allowed"])
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise checkpoint_mismatch(part) from error
        self._build(space, self.timed(clock))

    def next_stage(self) -> None:
        """Narrows the space to the strongest ops and builds the next stage's supernet, fresh or going on."""
        before, index = self.search, self.search.clock.stage + 1
        stage, space = self.stages[index], before.space
        if stage.keep is not None:
            space = strongest_ops(space, before.strength(), stage.keep)
        epoch = 0 if begins(stage) else before.clock.epoch
        clock = self.timed(Clock(index, 0, epoch, total=before.clock.total))
        self._build(space, clock)
        if not stage.fresh:
            self.search.load_state_dict(inherited(before, self.search, stage.restart))
            self._begin_steps()
            self.search.clock = clock

    def timed(self, clock: Clock) -> Clock:
        """`clock` with the length of its schedule, which a resumed run may have made longer, and whether its stage selects."""
        stage = self.stages[clock.stage]
        return replace(clock, epochs=span(self.stages, clock.stage), selecting=stage.selects)

    def set_decay(self, factor: float) -> None:
        """Makes the weights' decay `factor` times the recipe's."""
        self.decay = factor
        for group in self.search.weights_optimizer.param_groups:
            group["weight_decay"] = self.weights.decay * factor

    def _build(self, space: Space, clock: Clock) -> None:
        """The search of a stage with fresh weights and architecture."""
        stage = self.stages[clock.stage]
        self.search = build(
            self.recipe,
            space,
            stage,
            clock,
            self.weights,
            self.decay,
            self.device,
            self.feeds,
            self.shape,
            self.task,
            self.batch_dim,
        )
        self._begin_steps()

    def _begin_steps(self) -> None:
        """Has steps captured anew: what was captured belongs to memory that is not used any more."""
        self.step: Step = partial(self.method.step, self.search)
        if isinstance(self.search.weights_optimizer, SteadySGD):
            self.step = replay(SearchSteps(self.search)).step

    # -- what a checkpoint holds

    @property
    def position(self) -> int:
        """A number that grows with every step, by which checkpoints are named."""
        clock = self.search.clock
        return (clock.total * 100 + clock.phase) * 1_000_000 + clock.step

    def state_dict(self) -> dict[str, Any]:
        """The search and the ops its cells still allow."""
        allowed = {kind: [list(row) for row in cell.allowed] for kind, cell in self.search.space.cells.items()}
        state = {"search": self.search.state_dict(), "allowed": allowed}
        carries = {name: whole_carry(carry) for name, carry in self.carries.items()}
        return {**state, "seconds": self.seconds, "decay": self.decay, "carries": carries}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state`; the supernet must already be that of its stage."""
        self.search.load_state_dict(state["search"])
        self._begin_steps()
        self.search.clock = self.timed(self.search.clock)
        set_learning_rate(self.search.arch_optimizer, self.settings.arch.lr)  # it may be lowered after a divergence
        self.seconds = state["seconds"]
        self.set_decay(float(state.get("decay", 1.0)))
        self.carries = {name: own_carry(carry.to(self.device)) for name, carry in state.get("carries", {}).items()}

    def quantities(self) -> dict[str, Sequence[Tensor]]:
        """The weights, what the method learns, and what it remembers, where infinity may stand for nothing yet."""
        kept = [t.nan_to_num(math.nan, 0.0, 0.0) for t in self.search.arch.buffers() if t.is_floating_point()]
        return {
            "the weights of the supernet": self.search.weights,
            "the architecture parameters": list(self.search.arch.parameters()),
            "what the method remembers": kept,
        }
