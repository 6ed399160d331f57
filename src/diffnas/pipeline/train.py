"""`train`: a genotype's network from scratch, to weights that can be tested."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from diffnas import draw
from diffnas.core.genotype import Genotype
from diffnas.core.space import Words
from diffnas.errors import Diverged, RecipeError, RunError
from diffnas.pipeline.environment import as_begun, record_divergence
from diffnas.pipeline.resume import Resumed, require_recipe, require_run, resumed
from diffnas.pipeline.session import Session
from diffnas.pipeline.source import Source
from diffnas.pipeline.trainer import Job, Trainer
from diffnas.recipe import Recipe
from diffnas.run import Part, Run, claim, new_run, require_empty
from diffnas.runtime.console import log
from diffnas.runtime.device import pick_device
from diffnas.runtime.files import sweep, write_bytes, write_text
from diffnas.runtime.lock import Held, only_one
from diffnas.runtime.stop import Stop
from diffnas.sections import ImageTrain, TextTrain


def train(
    genotype: Genotype | None,
    recipe: Recipe | None,
    run: str | Path | None = None,
    resume: bool = False,
    name: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Run:
    """Trains `genotype` as `recipe` says and returns the run folder, with RUN/train/NAME/weights.safetensors in it.

    NAME is `name`, or the recipe's name and seed; `facts` are recorded with the attempt.  With `resume`, goes on in the folder
    `run` (with the training `name`, or its only one); `genotype` and `recipe` are then read from it.  Raises `UserError` for
    input that cannot be used, `Interrupted` after a signal, with a checkpoint written, and `Diverged` where a number is no
    longer finite.
    """
    if resume:
        return _resume(run, recipe, name)
    _require_train(recipe)
    assert recipe is not None
    if genotype is None:
        raise RunError("nothing to train: give a genotype")
    job = Job(genotype, recipe, pick_device(recipe.device))
    where = Run(Path(run)) if run is not None else new_run(None, recipe.name)
    part = where.train(name or f"{recipe.name}-seed{recipe.seed}")
    claim(part, "train")
    with only_one(part.path) as held:
        require_empty(part, "train")
        sweep(part.path)
        write_text(part.genotype, genotype.to_json())
        part.write_recipe(recipe.to_yaml())  # from here on the training can be resumed
        _run(where, part, held, Resumed(recipe, None, {}), job, facts or {})
    return where


def _resume(run: str | Path | None, recipe: Recipe | None, name: str | None) -> Run:
    """Goes on with a training of `run`, unless it has finished."""
    where = require_run(run)
    part = where.training(name)
    require_recipe(part, "train")
    with only_one(part.path) as held:
        sweep(part.path)
        found = _with_what_is_begun(resumed(part, recipe))
        settings, genotype = _require_train(found.recipe), read_genotype(part)
        _require_same(part, genotype, found)
        if part.weights.is_file() and _begun(found) == (settings.epochs, 0):
            more = f"{_go_on(where, part)} --set train.epochs=N"
            text = "%s: the training has finished, after epoch %d; to go further: %s"
            log.info(text, part.path, settings.epochs, more)
            return where
        device = pick_device(found.recipe.device)
        with as_begun(part, found.checkpoint, device):
            _run(where, part, held, found, Job(genotype, found.recipe, device), {})
    return where


def _run(where: Run, part: Part, held: Held, found: Resumed, job: Job, facts: Mapping[str, Any]) -> None:
    """One attempt, from the start or from the checkpoint that was found, to the weights."""
    log.info("run folder: %s", where.path)
    with Stop(_require_train(found.recipe).checkpoint_every) as stop:
        task, names = job.training.task, job.source.names
        session = Session(part, held, stop, job.device, found.recipe, _go_on(where, part), task, names)
        try:
            Trainer(job, found, session, facts).run()
        except Diverged as error:
            record_divergence(part, str(error))
            raise
        held.require()
        draw.write_cells(job.genotype, part.path)
        # last, for they say that the training has finished
        save_weights(part, job.training.result(), job.genotype, job.source)


def _require_train(recipe: Recipe | None) -> ImageTrain | TextTrain:
    if recipe is None or recipe.train is None:
        raise RecipeError("the recipe has no train section; name one that has with --recipe (diffnas list recipes)")
    return recipe.train


def _go_on(where: Run, part: Part) -> str:
    """The command that goes on with a training."""
    which = ["--train", part.path.name] if len(where.trainings()) > 1 else []
    return shlex.join(["diffnas", "train", "--resume", str(where.path), *which])


def _begun(found: Resumed) -> tuple[int, int]:
    """The epochs that are done, and the steps of the next one."""
    state = (found.checkpoint or {}).get("state", {})
    epoch, step = (state.get(name, 0) for name in ("epoch", "step"))
    return (epoch, step) if type(epoch) is type(step) is int else (0, 0)


def _require_same(part: Part, genotype: Genotype, found: Resumed) -> None:
    """Raises `RunError` where the genotype is not the one that was trained so far; older checkpoints do not say."""
    state = (found.checkpoint or {}).get("state", {})
    if isinstance(state, dict) and state.get("genotype", genotype.to_json()) != genotype.to_json():
        raise RunError(f"{part.genotype}: is not the genotype that was trained so far; put it back")


def _with_what_is_begun(found: Resumed) -> Resumed:
    """`found`, its recipe with as many epochs as were begun where fewer are asked for: none can be taken back."""
    epoch, step = _begun(found)
    train, begun = found.recipe.train, epoch + (step > 0)
    if train is None or train.epochs >= begun:
        return found
    log.warning("train.epochs: %d asked for, %d begun: the training ends with those", train.epochs, begun)
    return replace(found, recipe=replace(found.recipe, train=train.model_copy(update={"epochs": begun})))


def read_genotype(part: Part) -> Genotype:
    """The genotype of one command's folder; raises `UserError` where it is absent or damaged."""
    from diffnas.core.genotype import read_genotype_file

    if not part.genotype.is_file():
        raise RunError(f"{part.genotype}: is missing; has the search finished an epoch?")
    return read_genotype_file(part.genotype)


def save_weights(part: Part, weights: Mapping[str, Tensor], genotype: Genotype, source: Source) -> None:
    """Writes `weights` with the genotype, the shape and the names of classes or words inside, whole or not at all."""
    names = "words" if isinstance(source.shape, Words) else "classes"
    inside = {"genotype": genotype.to_json(), "shape": asdict(source.shape), names: list(source.names)}
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}
    # one entry: safetensors writes several in an order that changes, and equal runs shall leave equal files
    write_bytes(part.weights, save(tensors, metadata={"diffnas": json.dumps(inside)}))
