"""One attempt at a search: the supernet of each stage, epochs of steps, and what is written after each."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from diffnas import draw
from diffnas.core.genotype import Genotype, read_genotype_file
from diffnas.core.space import Shape, Space, TextShape
from diffnas.engine import Search
from diffnas.engine.optim import set_learning_rate
from diffnas.engine.search import Feed
from diffnas.engine.stage import Clock, Phase, Stage, Transition
from diffnas.errors import RecipeError
from diffnas.pipeline import search_report
from diffnas.pipeline.environment import version_of
from diffnas.pipeline.finished import mark_finished, unmark_finished
from diffnas.pipeline.history import History
from diffnas.pipeline.rates import rate
from diffnas.pipeline.resume import Resumed
from diffnas.pipeline.session import Session, misfit, require_counts
from diffnas.pipeline.stages import begins, build, inherited, narrowed, span, strongest_ops
from diffnas.runtime.console import log, progress
from diffnas.runtime.files import write_text


class SearchLoop:
    """One attempt at a search: builds each stage's supernet and walks the epochs."""

    def __init__(self, found: Resumed, shape: Shape | TextShape, feeds: dict[str, Feed], session: Session) -> None:
        recipe, checkpoint = found.recipe, found.checkpoint
        assert recipe.search is not None and recipe.method is not None and recipe.space is not None
        self.recipe, self.shape, self.feeds, self.session = recipe, shape, feeds, session
        self.settings, self.method = recipe.search, recipe.method
        self.stages = self.method.stages(self.settings.epochs, recipe.space.size)
        clock, space = Clock(), recipe.space
        if checkpoint is not None:
            try:
                clock = Clock(**checkpoint["state"]["search"]["clock"])
                require_counts(**{name: value for name, value in asdict(clock).items() if name != "selecting"})
                self.stages[clock.stage]  # noqa: B018 (is there such a stage?)
                space = narrowed(space, checkpoint["state"]["allowed"])
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise misfit(session.part) from error
        # a resumed run may have more epochs
        clock = replace(clock, epochs=span(self.stages, clock.stage), selecting=self.stages[clock.stage].selects)
        self.transition, self.stopped, self.warned = Transition(), False, False
        if all(stage.warmup >= stage.epochs for stage in self.stages if stage.phases):
            log.warning(
                "method.warmup: no epoch of this search is longer than its warm-up, so only weights are trained"
            )
        self.seconds = 0.0  # spent on the epoch at hand in earlier attempts
        self.carries: dict[str, Tensor] = {}  # the hidden state of each feed, in a recurrent search
        self.history = History(session.part, self.method.max_rewind)
        self.decay = 1.0  # of the weights, as a multiple of the recipe's
        self.search = self._build(space, clock)
        if checkpoint is not None:
            session.restore(checkpoint, self)
            self.search.clock = clock
        self._begin(found)

    def _begin(self, found: Resumed) -> None:
        """Writes what tells of this attempt, now that nothing stands in its way."""
        clock, part = self.search.clock, self.session.part
        part.write_recipe(self.recipe.to_yaml())
        unmark_finished(part)
        if found.lowered and found.checkpoint is not None:
            self.session.save(self._position, self)  # the rates are those of the checkpoint from now on
        at = f"epoch {clock.total + 1}, step {clock.step}"
        self.session.begin(at, clock.total, {"lowered": found.lowered} if found.lowered else {})
        if found.checkpoint is not None:
            log.info("resumed at %s", at)
        if self._beyond:
            log.warning("search.epochs: fewer asked for than begun; the result is the cell of epoch %d", clock.total)

    # -- the parts of a search

    def run(self) -> None:
        """Every stage from where the clock stands; then the pictures of what was found."""
        self._keep()
        while True:
            ended = self._turn_ends_stage()
            if self.transition.rewind is not None:
                self._rewind(self.transition.rewind)
            elif not ended:
                self._epoch()
            elif self.search.clock.stage + 1 == len(self.stages) or self.stopped:
                break
            else:
                self._next_stage()
        genotype, part = self._result(), self.session.part
        if genotype is not None:
            draw.write_cells(genotype, part.path)
            log.info("found after %d epochs:", self.search.clock.total)
            for line in genotype.to_text().splitlines():
                log.info("%s", line)
            search_report.say_table(self.search.space, genotype, part)
        self.session.held.require()
        mark_finished(part, self.recipe, self.search.clock.total, self.transition.reason)

    @property
    def _within(self) -> bool:
        """Whether an epoch has begun and not ended."""
        return bool(self.search.clock.phase or self.search.clock.step)

    @property
    def _beyond(self) -> bool:
        """Whether the last stage has begun more epochs than it has, since fewer are asked for than once were."""
        clock = self.search.clock
        return clock.stage + 1 == len(self.stages) and clock.stage_epoch + self._within > self._stage.epochs

    def _turn_ends_stage(self) -> bool:
        """Asks the method what to do between two epochs; whether the stage is over."""
        search = self.search
        if self._within:  # it was asked before the epoch at hand
            return self._beyond
        early = search_report.early_stop(search, self.stages) if self.settings.early_stop else None
        self.transition = early or self.method.on_epoch_boundary(search, search.clock.stage_epoch)
        self.stopped = self.transition.stop
        if self.stopped and self.transition.reason:
            log.info("stopped after epoch %d: %s", search.clock.total, self.transition.reason)
        return self.stopped or self.transition.next_stage or search.clock.stage_epoch >= self._stage.epochs

    def _keep(self) -> None:
        """Keeps a copy of the checkpoint just written, or read, as long as the method may ask to go back to it."""
        if not self._within:
            self.history.keep(self._position, self.search.clock.total)

    def _rewind(self, epoch: int) -> None:
        """Takes everything back to the end of `epoch`, except that the weights' decay becomes what the turn asks for."""
        decay = self.decay * self.transition.decay_factor
        log.info("back to epoch %d with %g times the weight decay: %s", epoch, decay, self.transition.reason)
        self.session.restore(self.history.read(epoch), self)
        self.search.advance(epochs=span(self.stages, self.search.clock.stage), selecting=self._stage.selects)
        self._set_decay(decay)
        self.session.part.drop_metrics(epoch)
        self.session.save(self._position, self)

    def _set_decay(self, factor: float) -> None:
        """Makes the weights' decay `factor` times the recipe's."""
        self.decay = factor
        for group in self.search.weights_optimizer.param_groups:
            group["weight_decay"] = self.settings.weights.decay * factor

    def _result(self) -> Genotype | None:
        """The genotype that the search ends with, written last."""
        epoch = self.search.clock.total if self._within else self.transition.genotype_epoch
        if epoch is None:
            return self.search.derive()
        genotype = read_genotype_file(self.session.part.genotypes(epoch))
        write_text(self.session.part.genotype, genotype.to_json())
        log.info("the result is the genotype of epoch %d", epoch)
        return genotype

    @property
    def _stage(self) -> Stage:
        return self.stages[self.search.clock.stage]

    def _build(self, space: Space, clock: Clock) -> Search:
        """The search of a stage with fresh weights and architecture."""
        stage, decay = self.stages[clock.stage], self.decay
        device, task = self.session.device, self.session.task
        return build(self.recipe, space, stage, clock, decay, device, self.feeds, self.shape, task)

    def _next_stage(self) -> None:
        """Narrows the space to the strongest ops and builds the next stage's supernet, fresh or going on."""
        before = self.search
        stage = self.stages[before.clock.stage + 1]
        space = before.space
        if stage.keep is not None:
            space = strongest_ops(space, before.strength(), stage.keep)
        index = before.clock.stage + 1
        epoch = 0 if begins(stage) else before.clock.epoch
        clock = Clock(index, 0, epoch, span(self.stages, index), total=before.clock.total, selecting=stage.selects)
        self.search = self._build(space, clock)
        if not stage.fresh:
            self.search.load_state_dict(inherited(before, self.search, stage.restart))
            self.search.clock = clock

    def _epoch(self) -> None:
        """One epoch from the step the clock stands at, its genotype, its row of metrics, and a checkpoint."""
        search, clock = self.search, self.search.clock
        started = time.monotonic() - self.seconds
        lr = rate(self.settings.weights, self._stage, clock)
        set_learning_rate(search.weights_optimizer, lr)
        for name, value in self.method.supernet_buffers(clock).items():
            dial = dict(search.supernet.named_buffers(recurse=False)).get(name)
            if dial is None:
                raise RecipeError(f"method {self.method.name}: space {search.space.name} has no {name} in its supernet")
            dial.fill_(value)
        progress_made = dict(search.supernet.named_buffers(recurse=False)).get("progress")
        if progress_made is not None:
            progress_made.fill_(clock.epoch / max(1, clock.epochs - 1))
        if clock.phase == clock.step == 0:
            search.reseed()
        for index in range(clock.phase, len(self._stage.phases)):
            self._phase(self._stage.phases[index], started)
            search.advance(phase=index + 1, step=0)
        row: dict[str, Any] = {"epoch": clock.total, "stage": clock.stage, "lr": lr}
        row |= self.session.means(clock.total, self)
        row |= search_report.validated(search, self.settings, self.session.task) | search_report.curvature(
            search, self.settings
        )
        self.session.require_finite(clock.total, row)
        search.advance(stage_epoch=clock.stage_epoch + 1, epoch=clock.epoch + 1, phase=0, step=0, total=clock.total + 1)
        genotype = self._write_genotype()
        if genotype is not None:
            row |= search_report.facts(search, genotype)
            self.warned = search_report.warned(genotype, clock.total + 1, self.warned)
        row["strength"] = search_report.strengths(search)
        row["seconds"] = round(time.monotonic() - started, 3)
        self.session.part.add_metrics(row)
        self.seconds = 0.0
        self.session.save(self._position, self)
        self._keep()
        log.info("%s", search_report.line(row, search.clock, self.stages, self.session.task))
        self.session.leave()

    def _phase(self, phase: Phase, started: float) -> None:
        """The steps of one phase from where the clock stands."""
        search, clock, meter = self.search, self.search.clock, self.session.meter
        warm = clock.stage_epoch < self._stage.warmup
        names = [name for name in phase.feeds if not (warm and name == "valid")]
        feeds = {name: self.feeds[name].epoch(clock.total) for name in names}
        total = phase.steps or len(feeds["train"])
        if clock.step == 0:
            self.carries = {}
        with progress(f"search epoch {clock.total + 1}", total, self.recipe.log.every) as say:
            for step in range(clock.step, total):
                if self.settings.weights.rate_per == "step":
                    lr = rate(self.settings.weights, self._stage, clock, step / total)
                    set_learning_rate(search.weights_optimizer, lr)
                batches = {
                    _nth(name, k): replace(
                        feed[(step * phase.each + k) % len(feed)], carry=self.carries.get(_nth(name, k))
                    )
                    for name, feed in feeds.items()
                    for k in range(phase.each)
                }
                for name, loss in self.method.step(search, batches).items():
                    meter.add(name, loss)
                    if loss.carry is not None:
                        self.carries[name] = loss.carry
                search.advance(step=step + 1)
                say(step + 1, meter.text)
                self.seconds = time.monotonic() - started
                if step + 1 < total:
                    self.session.check(self._position, f"step {step + 1} of epoch {clock.total + 1}", self)

    def _write_genotype(self) -> Genotype | None:
        genotype = self.search.derive()
        if genotype is None:
            return None
        epoch = self.search.clock.total
        found = Genotype(
            genotype.space,
            genotype.cells,
            {
                "method": self.method.name,
                "recipe": self.recipe.name,
                "seed": self.recipe.seed,
                "epoch": epoch,
                "diffnas": version_of("diffnas"),
            },
        )
        self.session.part.folder("genotypes")
        write_text(self.session.part.genotypes(epoch), found.to_json())
        write_text(self.session.part.genotype, found.to_json())
        return found

    # -- what a checkpoint holds

    @property
    def _position(self) -> int:
        clock = self.search.clock
        return (clock.total * 100 + clock.phase) * 1_000_000 + clock.step

    def state_dict(self) -> dict[str, Any]:
        """The search and the ops its cells still allow."""
        allowed = {kind: [list(row) for row in cell.allowed] for kind, cell in self.search.space.cells.items()}
        found = {"search": self.search.state_dict(), "allowed": allowed}
        return {**found, "seconds": self.seconds, "decay": self.decay, "carries": self.carries}

    def quantities(self) -> dict[str, Sequence[Tensor]]:
        """The weights, what the method learns, and what it remembers, where infinity may stand for nothing yet."""
        kept = [t.nan_to_num(math.nan, 0.0, 0.0) for t in self.search.arch.buffers() if t.is_floating_point()]
        return {
            "the weights of the supernet": self.search.weights,
            "the architecture parameters": list(self.search.arch.parameters()),
            "what the method remembers": kept,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`; the supernet is that of its stage already."""
        self.search.load_state_dict(state["search"])
        set_learning_rate(self.search.arch_optimizer, self.settings.arch.lr)  # it may be lowered after a divergence
        self.seconds = state["seconds"]
        self._set_decay(float(state.get("decay", 1.0)))
        self.carries = {name: carry.to(self.session.device) for name, carry in state.get("carries", {}).items()}


def _nth(feed: str, k: int) -> str:
    """What a step calls the k-th batch of a feed that it reads."""
    return f"{feed}.{k}" if k else feed
