"""`train`: a genotype's network from scratch, to weights that can be tested."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from diffnas import draw
from diffnas.core.genotype import Genotype
from diffnas.core.seeds import stream_seed
from diffnas.core.space import Words
from diffnas.engine.optim import load_optimizer_state, optimizer_state, set_learning_rate
from diffnas.errors import Diverged, RecipeError, RunError
from diffnas.pipeline.environment import as_begun, record_divergence
from diffnas.pipeline.network import build, require_reads
from diffnas.pipeline.resume import Resumed, require_recipe, require_run, resumed
from diffnas.pipeline.session import Session, require_counts
from diffnas.pipeline.source import Source, Task, Training, load_source
from diffnas.recipe import Recipe
from diffnas.run import Part, Run, claim, new_run, require_empty
from diffnas.runtime.console import duration, log, progress
from diffnas.runtime.device import PRECISIONS, pick_device, place
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
        if part.weights.is_file() and _begun(found) == (settings.epochs, 0):
            more = f"{_go_on(where, part)} --set train.epochs=N"
            log.info(
                "%s: the training has finished, after epoch %d; to go further: %s", part.path, settings.epochs, more
            )
            return where
        device = pick_device(found.recipe.device)
        with as_begun(part, found.checkpoint, device):
            _run(where, part, held, found, Job(genotype, found.recipe, device), {})
    return where


class Job:
    """What is trained: the network of `genotype`, by `recipe`, on its data."""

    def __init__(self, genotype: Genotype, recipe: Recipe, device: torch.device) -> None:
        require_reads(genotype, recipe)
        self.genotype, self.device, self.source = genotype, device, load_source(recipe)
        network = build(genotype, recipe, self.source.shape, stream_seed(recipe.seed, "weights"))
        self.network = place(network, device)
        self.training = self.source.training(self.network, device)


def _run(where: Run, part: Part, held: Held, found: Resumed, job: Job, facts: Mapping[str, Any]) -> None:
    """One attempt, from the start or from the checkpoint that was found, to the weights."""
    log.info("run folder: %s", where.path)
    with Stop(_require_train(found.recipe).checkpoint_every) as stop:
        task, names = job.training.task, job.source.names
        session = Session(part, held, stop, job.device, found.recipe, _go_on(where, part), task, names)
        try:
            _Trainer(found, job.network, job.training, session, facts).run()
        except Diverged as error:
            record_divergence(part, str(error))
            raise
        held.require()
        draw.write_cells(job.genotype, part.path)
        save_weights(
            part, job.training.result(), job.genotype, job.source
        )  # last: they say that the training has finished


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


def _with_what_is_begun(found: Resumed) -> Resumed:
    """`found`, its recipe with as many epochs as were begun where fewer are asked for: none can be taken back."""
    epoch, step = _begun(found)
    train, begun = found.recipe.train, epoch + (step > 0)
    if train is None or train.epochs >= begun:
        return found
    log.warning(
        "train.epochs: %d are asked for, but %d were begun: the training ends after epoch %d",
        train.epochs,
        begun,
        begun,
    )
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


class _Trainer:
    """One attempt at a training."""

    def __init__(
        self, found: Resumed, network: nn.Module, training: Training, session: Session, facts: Mapping[str, Any]
    ) -> None:
        recipe = found.recipe
        assert recipe.train is not None
        self.recipe, self.settings, self.network, self.session = recipe, recipe.train, network, session
        self.training = training
        self.weights = [p for p in network.parameters() if p.requires_grad]
        self.epoch = self.step = 0
        self.carry: Tensor | None = None
        self.seconds = 0.0  # spent on the epoch at hand in earlier attempts
        if found.checkpoint is not None:
            session.restore(found.checkpoint, self)
        self._begin(found, facts)

    def _begin(self, found: Resumed, facts: Mapping[str, Any]) -> None:
        """Writes what tells of this attempt, now that nothing stands in its way."""
        self.session.part.write_recipe(self.recipe.to_yaml())
        _set_aside(self.session.part, self.epoch)
        if found.lowered and found.checkpoint is not None:
            self.session.save(self._position, self)  # the rates are those of the checkpoint from now on
        at = f"epoch {self.epoch + 1}, step {self.step}"
        self.session.begin(at, self.epoch, {"lowered": found.lowered} if found.lowered else facts)
        if found.checkpoint is not None:
            log.info("resumed at %s", at)

    def run(self) -> None:
        """Every epoch from where the clock stands."""
        while self.epoch < self.settings.epochs:
            self._epoch()

    def _epoch(self) -> None:
        settings, epoch = self.settings, self.epoch
        started = time.monotonic() - self.seconds
        lr = self.training.begin(epoch)
        if self.step == 0:
            torch.manual_seed(stream_seed(self.recipe.seed, "noise", epoch))
            self.carry = None
        self._steps(lr, started)
        row: dict[str, Any] = {"epoch": epoch, "lr": lr, **self.session.means(epoch, self)}
        row |= self.training.after(epoch)
        self.session.require_finite(epoch, row)
        row["seconds"] = round(time.monotonic() - started, 3)
        self.session.part.add_metrics(row)
        self.epoch, self.step, self.seconds = epoch + 1, 0, 0.0
        self.session.save(self._position, self)
        log.info("%s", _line(row, settings.epochs, self.training.task))
        if self.epoch < settings.epochs:
            self.session.leave()

    def _steps(self, lr: float, started: float) -> None:
        self.network.train()
        batches, task, optimizer = self.training.feed.epoch(self.epoch), self.training.task, self.training.optimizer
        precision, total = PRECISIONS[self.recipe.precision], len(batches)
        with progress(f"train epoch {self.epoch + 1}", total, self.recipe.log.every) as say:
            for step in range(self.step, total):
                batch = replace(batches[step], carry=self.carry)
                with torch.autocast(self.session.device.type, precision, enabled=precision != torch.float32):
                    loss = task.loss(self.network, batch)
                optimizer.zero_grad(set_to_none=True)
                loss.total().backward()
                if self.settings.clip is not None:
                    torch.nn.utils.clip_grad_norm_(self.weights, self.settings.clip, foreach=True)
                set_learning_rate(optimizer, lr * batch.scale)
                optimizer.step()
                self.session.meter.add("train", loss)
                self.carry, self.step = loss.carry, step + 1
                say(self.step, self.session.meter.text)
                self.seconds = time.monotonic() - started
                if self.step < total:
                    self.session.check(self._position, f"step {self.step} of epoch {self.epoch + 1}", self)

    @property
    def _position(self) -> int:
        return self.epoch * 1_000_000 + self.step

    def state_dict(self) -> dict[str, Any]:
        """Weights, momentum and where the training is."""
        return {
            "network": self.network.state_dict(),
            "optimizer": optimizer_state(self.training.optimizer, self.network),
            "training": self.training.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "carry": self.carry,
        }

    def quantities(self) -> dict[str, Sequence[Tensor]]:
        """The weights."""
        return {"the weights of the network": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self.network.load_state_dict(state["network"])
        self.training.load_state_dict(state.get("training", {}))  # checkpoints of images had none once
        load_optimizer_state(self.training.optimizer, self.network, state["optimizer"])
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        carry: Tensor | None = state.get("carry")
        self.carry = None if carry is None else carry.to(self.session.device)
        require_counts(epoch=self.epoch, step=self.step)


def _set_aside(part: Part, epoch: int) -> None:
    """Keeps the weights of a finished training that now goes on, and their test, under names that say of what epoch."""
    for path in (part.weights, part.path / "test.json"):
        if path.is_file():
            kept = path.with_name(f"{path.stem}-epoch-{epoch:03d}{path.suffix}")
            path.replace(kept)
            log.info("%s is kept as %s, of epoch %d", path, kept.name, epoch)


def _line(row: dict[str, Any], epochs: int, task: Task) -> str:
    parts = [f"train epoch {row['epoch'] + 1}/{epochs}"]
    parts += [task.said(name, row) for name in ("train", "valid", "test") if f"{name}_loss" in row]
    left = row["seconds"] * (epochs - row["epoch"] - 1)
    return "  ".join([*parts, duration(row["seconds"]), f"{duration(left)} left" if left else ""]).rstrip()
