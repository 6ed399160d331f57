"""`train`: a genotype's network from scratch, to weights that can be tested."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping
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
from diffnas.errors import RecipeError, ResourceError, RunError
from diffnas.pipeline.environment import record_attempt
from diffnas.pipeline.network import build, require_reads
from diffnas.pipeline.resources import explained, require_memory
from diffnas.pipeline.resume import resumed_recipe
from diffnas.pipeline.session import Session, require_counts
from diffnas.pipeline.source import Source, Task, Training, load_source
from diffnas.recipe import Recipe
from diffnas.run import Part, Run, claim, new_run, unclaim
from diffnas.runtime.console import duration, log, progress
from diffnas.runtime.device import PRECISIONS, pick_device, place
from diffnas.runtime.files import write_bytes, write_text
from diffnas.runtime.lock import only_one
from diffnas.runtime.stop import Stop


def train(
    genotype: Genotype | None,
    recipe: Recipe | None,
    run: str | Path | None = None,
    resume: bool = False,
    name: str | None = None,
) -> Run:
    """Trains `genotype` as `recipe` says and returns the run folder, with RUN/train/NAME/weights.safetensors in it.

    NAME is `name`, or the recipe's name and seed.  With `resume`, goes on in the folder `run` (with the training `name`,
    or its only one); `genotype` and `recipe` are then read from it.  Raises `UserError` for input that cannot be used
    and `Interrupted` after a signal, with a checkpoint written.
    """
    where = Run(Path(run)) if run is not None else None
    if resume:
        if where is None:
            raise RunError("to resume, name the run folder")
        part = where.training(name)
        recipe = resumed_recipe(part, recipe, "train")
        genotype = read_genotype(part)
    if recipe is None or recipe.train is None:
        raise RecipeError("the recipe has no train section; name one that has with --recipe (diffnas list recipes)")
    if genotype is None:
        raise RunError("nothing to train: give a genotype")
    device = pick_device(recipe.device)
    require_reads(genotype, recipe)
    source = load_source(recipe)
    require_memory(lambda: build(genotype, recipe, source.shape), recipe, "train", device)
    network = build(genotype, recipe, source.shape, stream_seed(recipe.seed, "weights"))
    training = source.training(place(network, device), device)
    if not resume:
        where = where or new_run(None, recipe.name)
        part = where.train(name or f"{recipe.name}-seed{recipe.seed}")
        claim(part, "train")
        write_text(part.genotype, genotype.to_json())
    assert where is not None
    log.info("run folder: %s", where.path)
    with only_one(part.path), Stop(recipe.train.checkpoint_every) as stop:
        write_text(part.recipe, recipe.to_yaml())
        which = ["--train", part.path.name] if len(where.trainings()) > 1 else []
        go_on = shlex.join(["diffnas", "train", "--resume", str(where.path), *which])
        session = Session(part, stop, device, go_on, training.task, source.names)
        try:
            with explained(part, recipe, "train", go_on):
                _Trainer(recipe, network, training, session).run()
                save_weights(part, training.result(), genotype, source)
                draw.write_cells(genotype, part.path)
        except ResourceError:
            if not resume:
                unclaim(part)
            raise
    return where


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

    def __init__(self, recipe: Recipe, network: nn.Module, training: Training, session: Session) -> None:
        assert recipe.train is not None
        self.recipe, self.settings, self.network, self.session = recipe, recipe.train, network, session
        self.training = training
        self.weights = [p for p in network.parameters() if p.requires_grad]
        self.epoch = self.step = 0
        self.carry: Tensor | None = None
        self.seconds = 0.0  # spent on the epoch at hand in earlier attempts
        checkpoint = session.load()
        if checkpoint is not None:
            session.restore(checkpoint, self)
            log.info("resumed at epoch %d, step %d", self.epoch + 1, self.step)
        record_attempt(session.part, session.device, recipe.seed, f"epoch {self.epoch + 1}, step {self.step}")
        session.part.drop_metrics(self.epoch)

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
        row: dict[str, Any] = {"epoch": epoch, "lr": lr, **self.session.means(epoch), **self.training.after(epoch)}
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
                    self.session.check(self._position, self)

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

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self.network.load_state_dict(state["network"])
        self.training.load_state_dict(state.get("training", {}))  # checkpoints of images had none once
        load_optimizer_state(self.training.optimizer, self.network, state["optimizer"])
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        carry: Tensor | None = state.get("carry")
        self.carry = None if carry is None else carry.to(self.session.device)
        require_counts(epoch=self.epoch, step=self.step)


def _line(row: dict[str, Any], epochs: int, task: Task) -> str:
    parts = [f"train epoch {row['epoch'] + 1}/{epochs}"]
    parts += [task.said(name, row) for name in ("train", "valid", "test") if f"{name}_loss" in row]
    left = row["seconds"] * (epochs - row["epoch"] - 1)
    return "  ".join([*parts, duration(row["seconds"]), f"{duration(left)} left" if left else ""]).rstrip()
