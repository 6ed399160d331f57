"""`train`: a genotype's network from scratch, to weights that can be tested."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffnas import draw
from diffnas.core.genotype import Genotype
from diffnas.errors import Diverged, Interrupted, RecipeError, ResourceError, RunError
from diffnas.pipeline.begin import again, facts_of, start_of
from diffnas.pipeline.environment import as_begun, record, record_divergence, record_note
from diffnas.pipeline.leave_report import leave_report, record_memory, record_sizes, sweep_report
from diffnas.pipeline.network import require_reads
from diffnas.pipeline.origin import folder_of, origin_of
from diffnas.pipeline.processes import together
from diffnas.pipeline.resources import explained
from diffnas.pipeline.resume import Resumed, require_recipe, require_run, resumed
from diffnas.pipeline.session import Session, resumed_source
from diffnas.pipeline.sources.load import load_source
from diffnas.pipeline.trainer import Job, Trainer
from diffnas.pipeline.weights import are_own, read_genotype, save_weights
from diffnas.recipe.recipe import Recipe
from diffnas.recipe.schema import ImageTrain, TextTrain
from diffnas.runtime.console import log
from diffnas.runtime.device import deterministic, pick_device
from diffnas.runtime.distributed import world
from diffnas.runtime.files import sweep, write_text
from diffnas.runtime.lock import Held, only_one
from diffnas.runtime.run_folder import Part, Run, claim, new_run, require_empty, unclaim
from diffnas.runtime.sharing import fitted_threads, sharing
from diffnas.runtime.stop import Stop
from diffnas.sinks.sink import require_sinks


def train(
    genotype: Genotype | None,
    recipe: Recipe | None,
    run: str | Path | None = None,
    resume: bool = False,
    name: str | None = None,
    origin: Genotype | Run | str | Path | None = None,
    facts: Mapping[str, Any] | None = None,
    init: str | Path | None = None,
    note: str | None = None,
    sinks: Sequence[str] = (),
) -> Run:
    """Trains `genotype` as `recipe` says and returns the run folder, with RUN/train/NAME/weights.safetensors in it.

    NAME is `name`, or the recipe's name and seed; `origin`, what the genotype was read from, is recorded, and `facts` with the
    attempt and a `note`; metrics are sent to `sinks` too.  `init` is what the weights begin as: "search" (of the run that the
    genotype is from, or of `run`), a file, or fresh.  With `resume`, goes on in the folder `run` (with the training `name`, or
    its only one); `genotype` and `recipe` are then read from it.  Raises `UserError` for input that cannot be used,
    `Interrupted` after a signal, with a checkpoint written, and `Diverged` where a number is no longer finite.
    """
    require_sinks(sinks)
    with together(run) as own:
        sinks = sinks if world().first else ()
        if resume:
            done = _resume(own, recipe, name, note, sinks)
        else:
            folders = [Path(path) for path in (folder_of(origin), run) if path is not None]
            done = _begin(genotype, recipe, own, name, origin, facts, init, folders, note, sinks)
        return Run(Path(world().of_first(lambda: str(done.path))))


def _begin(
    genotype: Genotype | None,
    recipe: Recipe | None,
    run: str | Path | None,
    name: str | None,
    origin: Genotype | Run | str | Path | None,
    facts: Mapping[str, Any] | None,
    init: str | Path | None,
    folders: list[Path],
    note: str | None,
    sinks: Sequence[str],
) -> Run:
    """Begins a training in the folder `run`; `init` may name the search in one of `folders`."""
    _require_train(recipe)
    assert recipe is not None
    if genotype is None:
        raise RunError("nothing to train: give a genotype")
    device = pick_device(recipe.device)
    require_reads(genotype, recipe)
    start = start_of(init, genotype, folders)
    where = Run(Path(run)) if run is not None else new_run(None, recipe.name)
    part = where.train(name or f"{recipe.name}-seed{recipe.seed}")
    with explained(part, recipe, "train", _go_on(where, part)):
        job = Job(genotype, recipe, load_source(recipe), device, start)
    claim(part, "train")
    with only_one(part.path) as held:
        require_empty(part, "train")
        sweep(part.path)
        write_text(part.genotype, genotype.to_json())
        record(part, genotype=origin_of(genotype, origin), init=facts_of(start))
        record_note(part, note)
        part.write_recipe(recipe.to_yaml())  # from here on the training can be resumed
        try:
            with fitted_threads():
                _run(where, part, held, Resumed(recipe, None, {}), job, facts or {}, sinks)
        except ResourceError:
            unclaim(part)
            raise
    return where


def _resume(
    run: str | Path | None, recipe: Recipe | None, name: str | None, note: str | None, sinks: Sequence[str]
) -> Run:
    """Resumes a training of `run`, unless it has finished."""
    where = require_run(run)
    part = where.training(name)
    require_recipe(part, "train")
    with only_one(part.path) as held:
        sweep(part.path)
        sweep_report(where)
        record_note(part, note)
        resumption = _with_what_is_begun(resumed(part, recipe))
        settings, genotype = _require_train(resumption.recipe), read_genotype(part)
        _require_same(part, genotype, resumption)
        if _begun(resumption) == (settings.epochs, 0) and are_own(part, resumption.recipe):
            more = f"{_go_on(where, part)} --set train.epochs=N"
            text = "%s: the training has finished, after epoch %d; to go further: %s"
            log.info(text, part.path, settings.epochs, more)
            return where
        device = pick_device(resumption.recipe.device)
        with as_begun(part, resumption.checkpoint, device):
            require_reads(genotype, resumption.recipe)
            source = resumed_source(resumption.recipe, part, resumption.checkpoint)
            start = again(part, genotype) if resumption.checkpoint is None else None
            job = Job(genotype, resumption.recipe, source, device, start)
            _run(where, part, held, resumption, job, {}, sinks)
    return where


def _run(
    where: Run,
    part: Part,
    held: Held,
    resumption: Resumed,
    job: Job,
    facts: Mapping[str, Any],
    sinks: Sequence[str],
) -> None:
    """Runs one attempt, from the start or from the newest checkpoint, to the weights."""
    log.info("run folder: %s", where.path)
    job.source.say()
    recipe = resumption.recipe
    with Stop(_require_train(recipe).checkpoint_every) as stop, sharing(), deterministic(recipe.deterministic):
        task, source = job.training.task, job.source
        session = Session(part, held, stop, job.device, resumption.recipe, _go_on(where, part), task, source, sinks)
        with explained(part, resumption.recipe, "train", session.resume_with):
            try:
                Trainer(job, resumption, session, facts).run()
            except Diverged as error:
                record_divergence(part, str(error))
                leave_report(where)
                raise
            except Interrupted:
                leave_report(where)
                raise
            finally:
                session.close()
            held.require()
            draw.write_cells(job.genotype, part.path)
            # last, for they say that the training has finished
            save_weights(part, job.training.result(), job.genotype, resumption.recipe, source.inputs)
        record_memory(part, job.device)
        record_sizes(part, job.genotype, resumption.recipe, source.shape)
        leave_report(where)


def _require_train(recipe: Recipe | None) -> ImageTrain | TextTrain:
    if recipe is None or recipe.train is None:
        raise RecipeError("the recipe has no train section; name one that has with --recipe (diffnas list recipes)")
    section: ImageTrain | TextTrain = recipe.train
    return section


def _go_on(where: Run, part: Part) -> str:
    """Returns the command that resumes a training."""
    which = ["--train", part.path.name] if len(where.trainings()) > 1 else []
    return shlex.join(["diffnas", "train", "--resume", str(where.path), *which])


def _begun(resumption: Resumed) -> tuple[int, int]:
    """The epochs that are done, and the steps of the next one."""
    state = (resumption.checkpoint or {}).get("state", {})
    epoch, step = (state.get(name, 0) for name in ("epoch", "step"))
    return (epoch, step) if type(epoch) is type(step) is int else (0, 0)


def _require_same(part: Part, genotype: Genotype, resumption: Resumed) -> None:
    """Raises `RunError` where the genotype is not the one that was trained so far; older checkpoints do not say."""
    state = (resumption.checkpoint or {}).get("state", {})
    if isinstance(state, dict) and state.get("genotype", genotype.to_json()) != genotype.to_json():
        raise RunError(f"{part.genotype}: is not the genotype that was trained so far; put it back")


def _with_what_is_begun(resumption: Resumed) -> Resumed:
    """Returns `resumption` with at least as many epochs as were begun: none can be undone."""
    epoch, step = _begun(resumption)
    train, begun = resumption.recipe.train, epoch + (step > 0)
    if train is None or train.epochs >= begun:
        return resumption
    log.warning("train.epochs: %d asked for, %d begun: the training ends with those", train.epochs, begun)
    return replace(resumption, recipe=replace(resumption.recipe, train=replace(train, epochs=begun)))
