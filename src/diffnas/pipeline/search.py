"""`search`: stages of epochs of steps, with a genotype after every epoch and a checkpoint to go on from."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from diffnas import draw
from diffnas.core.genotype import Genotype, read_genotype_file
from diffnas.core.space import Shape, Space, Words
from diffnas.engine import Search
from diffnas.engine.collapse import collapsed
from diffnas.engine.method import Clock, Phase, Stage, Turn
from diffnas.engine.optim import set_learning_rate
from diffnas.engine.search import Feed
from diffnas.errors import RecipeError, RunError
from diffnas.pipeline import epochs
from diffnas.pipeline.environment import record_attempt, version_of
from diffnas.pipeline.rates import rate
from diffnas.pipeline.resume import resumed_recipe
from diffnas.pipeline.session import Session, require_counts
from diffnas.pipeline.source import load_source
from diffnas.pipeline.stages import begins, build, inherited, narrowed, span, strongest_ops
from diffnas.recipe import Recipe
from diffnas.run import Run, claim, new_run, unclaim
from diffnas.runtime.checkpoint import read_checkpoint
from diffnas.runtime.console import log, progress
from diffnas.runtime.device import pick_device
from diffnas.runtime.files import write_bytes, write_text
from diffnas.runtime.lock import only_one
from diffnas.runtime.stop import Stop


def search(recipe: Recipe | None, run: str | Path | None = None, resume: bool = False) -> Run:
    """Searches as `recipe` says and returns the run folder, `RUN/search/genotype.json` in it.

    With `resume`, goes on in the folder `run`; `recipe` may then be None, or differ in limits (epochs, minutes) only.
    Raises `UserError` for input that cannot be used and `Interrupted` after a signal, with a checkpoint written.
    """
    if resume and run is None:
        raise RunError("to resume, name the run folder")
    where = Run(Path(run)) if resume and run is not None else None
    recipe = resumed_recipe(where.search, recipe, "search") if where is not None else recipe
    if recipe is None or recipe.search is None:
        raise RecipeError("the recipe has no search section; name one that has (diffnas list recipes)")
    device = pick_device(recipe.device)
    source = load_source(recipe)
    feeds = source.search_feeds(device)
    if where is None:
        where = new_run(run, recipe.name)
        claim(where.search, "search")
    log.info("run folder: %s", where.path)
    with only_one(where.search.path), Stop(recipe.search.checkpoint_every) as stop:
        write_text(where.search.recipe, recipe.to_yaml())
        go_on = shlex.join(["diffnas", "search", "--resume", str(where.path)])
        session = Session(where.search, stop, device, go_on, source.search_task(), source.names)
        try:
            _Searcher(recipe, source.shape, feeds, session).run()
        except RecipeError:  # what only a supernet at hand could tell
            if not resume:
                unclaim(where.search)
            raise
    return where


class _Searcher:
    """One attempt at a search: builds each stage's supernet and walks the epochs."""

    def __init__(self, recipe: Recipe, shape: Shape | Words, feeds: dict[str, Feed], session: Session) -> None:
        assert recipe.search is not None and recipe.method is not None and recipe.space is not None
        self.recipe, self.shape, self.feeds, self.session = recipe, shape, feeds, session
        self.settings, self.method = recipe.search, recipe.method
        self.stages = self.method.stages(self.settings.epochs, recipe.space.size)
        checkpoint = session.load()
        clock, space = Clock(), recipe.space
        if checkpoint is not None:
            try:
                clock = Clock(**checkpoint["state"]["search"]["clock"])
                require_counts(**asdict(clock))
                self.stages[clock.stage]  # noqa: B018 (is there such a stage?)
                space = narrowed(space, checkpoint["state"]["allowed"])
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise session.misfit() from error
        clock = replace(clock, epochs=span(self.stages, clock.stage))  # a resumed run may have more of them
        at = f"epoch {clock.total + 1}, step {clock.step}"
        record_attempt(session.part, session.device, recipe.seed, at)
        self.turn, self.stopped, self.warned = Turn(), False, False
        if all(stage.warmup >= stage.epochs for stage in self.stages if stage.phases):
            log.warning(
                "method.warmup: no epoch of this search is longer than its warm-up, so only weights are trained"
            )
        self.seconds = 0.0  # spent on the epoch at hand in earlier attempts
        self.carries: dict[str, Tensor] = {}  # the hidden state of each feed, in a recurrent search
        self.decay = 1.0  # of the weights, as a multiple of the recipe's
        self.search = self._build(space, clock)
        if checkpoint is not None:
            session.restore(checkpoint, self)
            self.search.clock = clock
            log.info("resumed at %s", at)
        session.part.drop_metrics(clock.total)

    # -- the parts of a search

    def run(self) -> None:
        """Every stage from where the clock stands; then the pictures of what was found."""
        self._keep()
        while True:
            ended = self._turn_ends_stage()
            if self.turn.rewind is not None:
                self._rewind(self.turn.rewind)
            elif not ended:
                self._epoch()
            elif self.search.clock.stage + 1 == len(self.stages) or self.stopped:
                break
            else:
                self._next_stage()
        genotype = self._result()
        if genotype is not None:
            draw.write_cells(genotype, self.session.part.path)
            log.info("found after %d epochs:\n%s", self.search.clock.total, genotype.to_text())
            epochs.say_table(self.search.space, genotype, self.session.part)

    def _turn_ends_stage(self) -> bool:
        """Asks the method what to do between two epochs; whether the stage is over."""
        search = self.search
        self.turn = self._early_stop() or self.method.turn(search, search.clock.stage_epoch)
        self.stopped = self.turn.stop
        if self.stopped and self.turn.reason:
            log.info("stopped after epoch %d: %s", search.clock.total, self.turn.reason)
        return self.stopped or self.turn.next_stage or search.clock.stage_epoch >= self._stage.epochs

    def _early_stop(self) -> Turn | None:
        """Stops where the recipe asks for it and the cell has just collapsed; a stage that selects has its end to come to."""
        clock = self.search.clock
        if not self.settings.early_stop or not clock.stage_epoch or self._stage.selects:
            return None
        genotype = self.search.derive()
        reason = None if genotype is None else collapsed(genotype)
        if reason is None:
            return None
        if any(stage.selects for stage in self.stages[clock.stage :]):
            log.info("stage %d ended after epoch %d: %s", clock.stage + 1, clock.total, reason)
            return Turn(next_stage=True)
        return Turn(stop=True, genotype_epoch=max(1, clock.total - 1), reason=reason)

    def _history(self, epoch: int) -> Path:
        return self.session.part.path / "history" / f"epoch-{epoch:04d}.pt"

    def _keep(self) -> None:
        """Keeps a copy of the checkpoint just written, or read, as long as the method may ask to go back to it."""
        clock, rewinds = self.search.clock, self.method.rewinds
        newest = self.session.part.checkpoints / f"{self._position:012d}.pt"
        if not rewinds or clock.phase or clock.step or not newest.is_file():
            return
        write_bytes(self._history(clock.total), newest.read_bytes())
        kept = {self._history(epoch) for epoch in range(max(0, clock.total - rewinds), clock.total + 1)}
        for path in set(self._history(0).parent.glob("epoch-*.pt")) - kept:
            path.unlink()

    def _rewind(self, epoch: int) -> None:
        """Takes everything back to the end of `epoch`, except that the weights' decay becomes what the turn asks for."""
        decay = self.decay * self.turn.decay_factor
        log.info("back to epoch %d with %g times the weight decay: %s", epoch, decay, self.turn.reason)
        self.session.restore(read_checkpoint(self._history(epoch)), self)
        self.search.advance(epochs=span(self.stages, self.search.clock.stage))
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
        if self.turn.genotype_epoch is None:
            return self.search.derive()
        path = self._genotype_path(self.turn.genotype_epoch)
        genotype = read_genotype_file(path)
        write_text(self.session.part.genotype, genotype.to_json())
        log.info("the result is the genotype of epoch %d", self.turn.genotype_epoch)
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
        clock = Clock(index, 0, epoch, span(self.stages, index), total=before.clock.total)
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
        for name, value in self.method.dials(clock).items():
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
        row: dict[str, Any] = {"epoch": clock.total, "stage": clock.stage, "lr": lr, **self.session.means(clock.total)}
        row |= epochs.validated(search, self.settings, self.session.task) | epochs.curvature(search, self.settings)
        search.advance(stage_epoch=clock.stage_epoch + 1, epoch=clock.epoch + 1, phase=0, step=0, total=clock.total + 1)
        genotype = self._write_genotype()
        if genotype is not None:
            row |= epochs.facts(search, genotype)
            self.warned = epochs.warned(genotype, clock.total + 1, self.warned)
        row["strength"] = epochs.strengths(search)
        row["seconds"] = round(time.monotonic() - started, 3)
        self.session.part.add_metrics(row)
        self.seconds = 0.0
        self.session.save(self._position, self)
        self._keep()
        log.info("%s", epochs.line(row, search.clock, self.stages, self.session.task))
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
                    self.session.check(self._position, self)

    def _genotype_path(self, epoch: int) -> Path:
        return self.session.part.path / "genotypes" / f"epoch-{epoch:03d}.json"

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
        write_text(self._genotype_path(epoch), found.to_json())
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

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`; the supernet is that of its stage already."""
        self.search.load_state_dict(state["search"])
        self.seconds = state["seconds"]
        self._set_decay(float(state.get("decay", 1.0)))
        self.carries = {name: carry.to(self.session.device) for name, carry in state.get("carries", {}).items()}


def _nth(feed: str, k: int) -> str:
    """What a step calls the k-th batch of a feed that it reads."""
    return f"{feed}.{k}" if k else feed
