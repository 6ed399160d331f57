"""`search`: stages of epochs of steps, with a genotype after every epoch and a checkpoint to go on from."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

import torch

from diffnas.core.genotype import read_genotype_file
from diffnas.engine.search import Feed
from diffnas.errors import Diverged, Interrupted, RecipeError, ResourceError
from diffnas.kernels.form import described
from diffnas.pipeline.environment import as_begun, record_divergence, record_note
from diffnas.pipeline.finished import epochs_done, has_finished, unmark_finished
from diffnas.pipeline.leave_report import leave_report, record_memory, record_sizes, sweep_report
from diffnas.pipeline.origin import readable, warn_unless_found
from diffnas.pipeline.processes import require_fit, shared_feeds, together
from diffnas.pipeline.resources import explained
from diffnas.pipeline.resume import Resumed, require_recipe, require_run, resumed
from diffnas.pipeline.search_loop import SearchLoop
from diffnas.pipeline.search_state import SearchState
from diffnas.pipeline.session import Session, resumed_source
from diffnas.pipeline.sources.base import Source
from diffnas.pipeline.sources.load import load_source
from diffnas.recipe.plugins_used import require_named
from diffnas.recipe.recipe import Recipe
from diffnas.runtime.console import log
from diffnas.runtime.device import deterministic, pick_device
from diffnas.runtime.distributed import world
from diffnas.runtime.files import sweep
from diffnas.runtime.lock import Held, only_one
from diffnas.runtime.run_folder import Run, claim, new_run, require_empty, unclaim
from diffnas.runtime.sharing import fitted_threads, sharing
from diffnas.runtime.stop import Stop
from diffnas.sinks.sink import require_sinks
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.nasbench201.space import NASBench201


def search(
    recipe: Recipe | None,
    run: str | Path | None = None,
    resume: bool = False,
    note: str | None = None,
    sinks: Sequence[str] = (),
) -> Run:
    """Searches as `recipe` says and returns the run folder, `RUN/search/genotype.json` in it.

    With `resume`, goes on in the folder `run`; `recipe` may then be None, or differ in limits (epochs, minutes) only.
    A `note` is kept in environment.json, and metrics are sent to `sinks` too.  Raises `UserError` for input that cannot be
    used, `Interrupted` after a signal, with a checkpoint written, and `Diverged` where a number is no longer finite.
    """
    require_sinks(sinks)
    with together(run) as own:
        sinks = sinks if world().first else ()
        done = _resume(own, recipe, note, sinks) if resume else _begun(own, recipe, note, sinks)
        return Run(Path(world().of_first(lambda: str(done.path))))


def _begun(run: str | Path | None, recipe: Recipe | None, note: str | None, sinks: Sequence[str]) -> Run:
    """Begins a search in the folder `run`, or in a new one."""
    recipe = _require_search(recipe)
    device = pick_device(recipe.device)
    where = new_run(run, recipe.name)
    with explained(where.search, recipe, "search", _go_on(where)):
        source = load_source(recipe)
        feeds = shared_feeds(source.search_feeds(device), source)
    claim(where.search, "search")
    with only_one(where.search.path) as held:
        require_empty(where.search, "search")
        sweep(where.search.path)
        where.search.write_recipe(recipe.to_yaml())
        record_note(where.search, note)
        try:
            with fitted_threads():
                _run(where, held, Resumed(recipe, None, {}), source, feeds, device, sinks)
        except (RecipeError, ResourceError):  # what only a supernet at hand could tell
            unclaim(where.search)
            raise
    return where


def _resume(run: str | Path | None, recipe: Recipe | None, note: str | None, sinks: Sequence[str]) -> Run:
    """Resumes the search of `run`, unless it has finished."""
    where = require_run(run)
    part = where.search
    require_recipe(part, "search")
    with only_one(part.path) as held:
        sweep(part.path)
        sweep_report(where)
        record_note(part, note)
        resumption = resumed(part, recipe)
        recipe = _require_search(resumption.recipe)
        genotype = readable(part.genotype)
        if (part.path / "cells.svg").is_file() and genotype is not None and has_finished(part, recipe):
            warn_unless_found(part, genotype)
            more = f"diffnas search --resume {quote(str(where.path))} --set search.epochs=N"
            text = "%s: the search has finished, after epoch %d; to go further: %s"
            log.info(text, part.path, epochs_done(part), more)
            return where
        device = pick_device(recipe.device)
        with as_begun(part, resumption.checkpoint, device):
            source = resumed_source(recipe, part, resumption.checkpoint)
            feeds = shared_feeds(source.search_feeds(device), source)
            _run(where, held, resumption, source, feeds, device, sinks)
    return where


def _run(
    where: Run,
    held: Held,
    resumption: Resumed,
    source: Source,
    feeds: dict[str, Feed],
    device: torch.device,
    sinks: Sequence[str],
) -> None:
    """Runs one attempt, from the start or from the newest checkpoint, to the end of the search."""
    recipe = resumption.recipe
    assert recipe.search is not None
    log.info("run folder: %s", where.path)
    source.say()
    _say_form(recipe, device)
    go_on = _go_on(where)
    with Stop(recipe.search.checkpoint_every) as stop, sharing(), deterministic(recipe.deterministic):
        task = source.search_task()
        session = Session(where.search, held, stop, device, recipe, go_on, task, source, sinks)
        try:
            with explained(where.search, recipe, "search", go_on):
                state = SearchState(recipe, source, task, feeds, device)
                state.begin(resumption.checkpoint, where.search)
                _begin(resumption, state, session)
                SearchLoop(state, session).run()
        except Diverged as error:
            record_divergence(where.search, str(error))
            leave_report(where)
            raise
        except Interrupted:
            leave_report(where)
            raise
        finally:
            session.close()
        record_memory(where.search, device)
        if where.search.genotype.is_file():
            record_sizes(where.search, read_genotype_file(where.search.genotype), recipe, source.shape)
        leave_report(where)


def _say_form(recipe: Recipe, device: torch.device) -> None:
    """Says what computes the supernet, where it may be compiled kernels."""
    assert recipe.search is not None
    if recipe.search.supernet == "fast" and isinstance(recipe.space, DartsCNN | NASBench201):
        log.info("the supernet is computed by %s", described(device))


def _begin(resumption: Resumed, state: SearchState, session: Session) -> None:
    """Restores the checkpoint, then records this attempt now that nothing can refuse it."""
    part = session.part
    if resumption.checkpoint is not None:
        session.restore(resumption.checkpoint, state)
    part.write_recipe(resumption.recipe.to_yaml())
    unmark_finished(part)
    if resumption.lowered and resumption.checkpoint is not None:
        session.save(state.position, state)  # the rates are those of the checkpoint from now on
    clock = state.search.clock
    at = f"epoch {clock.total + 1}, step {clock.step}"
    session.begin(at, clock.total, {"lowered": resumption.lowered} if resumption.lowered else {})
    if resumption.checkpoint is not None:
        log.info("resumed at %s", at)
    if state.beyond:
        log.warning("search.epochs: fewer asked for than begun; the result is the cell of epoch %d", clock.total)


def _go_on(where: Run) -> str:
    """The command that goes on with a search."""
    return shlex.join(["diffnas", "search", "--resume", str(where.path)])


def _require_search(recipe: Recipe | None) -> Recipe:
    if recipe is None or recipe.search is None:
        raise RecipeError("the recipe has no search section; name one that has (diffnas list recipes)")
    require_named(recipe)
    require_fit(recipe)
    return recipe
