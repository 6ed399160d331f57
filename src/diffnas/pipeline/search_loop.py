"""The loop of a search: epochs of steps, stage after stage, and what is written after each epoch."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from diffnas import draw
from diffnas.core.genotype import Genotype, read_genotype_file
from diffnas.engine.optim import set_learning_rate
from diffnas.engine.stage import Phase, Transition
from diffnas.errors import RecipeError
from diffnas.pipeline import search_report
from diffnas.pipeline.epoch_lines import EpochLines
from diffnas.pipeline.finished import mark_finished
from diffnas.pipeline.history import History
from diffnas.pipeline.origin import readable
from diffnas.pipeline.search_state import SearchState
from diffnas.pipeline.session import Session
from diffnas.recipe.schema import ImageSearch
from diffnas.runtime.console import log
from diffnas.runtime.files import write_text


class SearchLoop:
    """The loop over the epochs of a search, from the position of `state` to its end."""

    def __init__(self, state: SearchState, session: Session) -> None:
        self.state, self.session = state, session
        self.transition, self.stopped, self.warned = Transition(), False, False
        self.lines = EpochLines("search")
        self.history = History(session.part, state.method.max_rewind)
        if all(stage.warmup >= stage.epochs for stage in state.stages if stage.phases):
            log.warning(
                "method.warmup: no epoch of this search is longer than its warm-up, so only weights are trained"
            )

    def run(self) -> None:
        """Runs every stage from the clock's position, then draws the resulting cell."""
        state = self.state
        self._keep()
        while True:
            ended = self._ends_stage()
            if self.transition.rewind is not None:
                self._rewind(self.transition.rewind)
            elif not ended:
                self._epoch()
            elif state.search.clock.stage + 1 == len(state.stages) or self.stopped:
                break
            else:
                state.next_stage()
        genotype, part = self._result(), self.session.part
        if genotype is not None:
            draw.write_cells(genotype, part.path)
            self.session.sinks.picture(part.path / "cells.png")
            log.info("found after %d epochs:", state.search.clock.total)
            for line in genotype.to_text().splitlines():
                log.info("%s", line)
            search_report.say_table(state.search.space, genotype, part)
        self.session.held.require()
        mark_finished(part, state.recipe, state.search.clock.total, self.transition.reason)

    def _ends_stage(self) -> bool:
        """Carries out the method's transition between two epochs; returns whether the stage is over."""
        state, search = self.state, self.state.search
        if state.within_epoch:  # it was asked before the current epoch
            return state.beyond
        early = None
        if isinstance(state.settings, ImageSearch) and state.settings.early_stop:
            early = search_report.early_stop(search, state.stages)
        self.transition = early or state.method.on_epoch_boundary(search, search.clock.stage_epoch)
        self.stopped = self.transition.stop
        if self.stopped and self.transition.reason:
            log.info("stopped after epoch %d: %s", search.clock.total, self.transition.reason)
        return self.stopped or self.transition.next_stage or search.clock.stage_epoch >= state.stage.epochs

    def _keep(self) -> None:
        """Keeps a copy of the checkpoint just written, or read, as long as the method may ask to go back to it."""
        if not self.state.within_epoch:
            self.history.keep(self.state.position, self.state.search.clock.total)

    def _rewind(self, epoch: int) -> None:
        """Restores the state at the end of `epoch`, but with the weight decay that the method asks for."""
        state, decay = self.state, self.state.decay * self.transition.decay_factor
        log.info("back to epoch %d with %g times the weight decay: %s", epoch, decay, self.transition.reason)
        self.session.restore(self.history.read(epoch), state)
        state.set_decay(decay)
        self.session.part.drop_metrics(epoch)
        self.session.save(state.position, state)

    def _result(self) -> Genotype | None:
        """The genotype that the search ends with, written last."""
        state, part = self.state, self.session.part
        epoch = state.search.clock.total if state.within_epoch else self.transition.genotype_epoch
        if epoch is None and readable(part.genotype) is None:  # it is lost, or was damaged
            return search_report.write_genotype(state.search, state.recipe, part)
        if epoch is None:
            return state.search.derive()
        genotype = read_genotype_file(part.genotypes(epoch))
        write_text(part.genotype, genotype.to_json())
        log.info("the result is the genotype of epoch %d", epoch)
        return genotype

    def _epoch(self) -> None:
        """Runs one epoch from the clock's step on; writes its genotype, its row of metrics, and a checkpoint."""
        state, search, clock = self.state, self.state.search, self.state.search.clock
        task, started = self.session.task, time.monotonic() - state.seconds
        lr = state.weights.rate(state.stage, clock)
        set_learning_rate(search.weights_optimizer, lr)
        self._set_buffers()
        if clock.phase == clock.step == 0:
            search.reseed()
        for index in range(clock.phase, len(state.stage.phases)):
            self._phase(state.stage.phases[index], started)
            search.advance(phase=index + 1, step=0)
        row: dict[str, Any] = {"epoch": clock.total, "stage": clock.stage, "lr": lr}
        if search.space.modality == "images":
            row["layers"] = state.stage.size.layers
        row |= self.session.means(clock.total, state)
        row |= search_report.validated(search, state.settings, task)
        row |= search_report.curvature(search, state.settings)
        self.session.require_finite(clock.total, row)
        search.advance(stage_epoch=clock.stage_epoch + 1, epoch=clock.epoch + 1, phase=0, step=0, total=clock.total + 1)
        genotype = search_report.write_genotype(search, state.recipe, self.session.part)
        if genotype is not None:
            row |= search_report.facts(search, genotype)
            self.warned = search_report.warned(genotype, clock.total + 1, self.warned)
        row["strength"] = search_report.strengths(search)
        row["seconds"] = round(time.monotonic() - started, 3)
        self.session.following.pace.ended(row["seconds"])
        self.session.record(row)
        state.seconds = 0.0
        self.session.save(state.position, state)
        self._keep()
        self.lines.say(row, search.clock.total, state.epochs)
        self.session.leave()

    def _set_buffers(self) -> None:
        """Sets the supernet's buffers that the method changes each epoch, and the progress of the search."""
        search, clock = self.state.search, self.state.search.clock
        buffers = dict(search.supernet.named_buffers(recurse=False))
        for name, value in self.state.method.supernet_buffers(clock).items():
            if name not in buffers:
                method = self.state.method.name
                raise RecipeError(f"method {method}: space {search.space.name} has no {name} in its supernet")
            buffers[name].fill_(value)
        if "progress" in buffers:
            buffers["progress"].fill_(clock.epoch / max(1, clock.epochs - 1))

    def _phase(self, phase: Phase, started: float) -> None:
        """Runs the steps of one phase from the clock's position."""
        state, search, clock, meter = self.state, self.state.search, self.state.search.clock, self.session.meter
        warm = clock.stage_epoch < state.stage.warmup
        names = [name for name in phase.feeds if not (warm and name == "valid")]
        feeds = {name: state.feeds[name].epoch(clock.total) for name in names}
        total = phase.steps or len(feeds["train"])
        if clock.step == 0:
            state.carries = {}
        with self.session.steps(clock.total + 1, state.epochs, clock.step, total) as say:
            for step in range(clock.step, total):
                if state.weights.by_steps:
                    set_learning_rate(search.weights_optimizer, state.weights.rate(state.stage, clock, step / total))
                begun = time.monotonic()
                batches = {
                    _nth(name, k): replace(
                        feed[(step * phase.each + k) % len(feed)], carry=state.carries.get(_nth(name, k))
                    )
                    for name, feed in feeds.items()
                    for k in range(phase.each)
                }
                read = time.monotonic()
                for name, loss in state.step(batches).items():
                    meter.add(name, loss)
                    if loss.carry is not None:
                        state.carries[name] = loss.carry
                meter.add_time(begun, read)
                search.advance(step=step + 1)
                say(step + 1)
                state.seconds = time.monotonic() - started
                if step + 1 < total:
                    self.session.check(state.position, f"step {step + 1} of epoch {clock.total + 1}", state)


def _nth(feed: str, k: int) -> str:
    """Returns the name of the k-th batch of a feed within a step."""
    return f"{feed}.{k}" if k else feed
