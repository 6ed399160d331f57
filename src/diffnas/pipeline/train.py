"""`train`: a genotype's network from scratch, to weights that can be tested."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from diffnas import draw
from diffnas.core.genotype import Genotype
from diffnas.core.schedules import cosine, ramp
from diffnas.core.seeds import stream_seed
from diffnas.core.space import Shape
from diffnas.data.feeds import Feed
from diffnas.data.images import ImageData
from diffnas.engine.optim import load_optimizer_state, optimizer_state, set_learning_rate
from diffnas.errors import RecipeError, RunError
from diffnas.pipeline.environment import record_attempt
from diffnas.pipeline.evaluate import evaluate
from diffnas.pipeline.images import load_data, shape_of, test_feed, train_feed
from diffnas.pipeline.network import build
from diffnas.pipeline.resume import resumed_recipe
from diffnas.pipeline.session import Session, require_counts
from diffnas.recipe import Recipe
from diffnas.run import Part, Run, claim, new_run
from diffnas.runtime.console import duration, log, progress
from diffnas.runtime.device import PRECISIONS, pick_device, place
from diffnas.runtime.files import write_bytes, write_text
from diffnas.runtime.lock import only_one
from diffnas.runtime.stop import Stop
from diffnas.tasks.images import ImageTask


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
    data = load_data(recipe)
    network = build(genotype, recipe, shape_of(data), stream_seed(recipe.seed, "weights"))
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
        trainer = _Trainer(recipe, place(network, device), data, Session(part, stop, device, go_on))
        trainer.run()
        save_weights(part, network, genotype, shape_of(data), data.train.names)
        draw.write_cells(genotype, part.path)
    return where


def read_genotype(part: Part) -> Genotype:
    """The genotype of one command's folder; raises `UserError` where it is absent or damaged."""
    from diffnas.core.genotype import read_genotype_file

    if not part.genotype.is_file():
        raise RunError(f"{part.genotype}: is missing; has the search finished an epoch?")
    return read_genotype_file(part.genotype)


def save_weights(part: Part, network: nn.Module, genotype: Genotype, shape: Shape, names: tuple[str, ...]) -> None:
    """Writes the weights with the genotype, the shape and the classes' names inside, whole or not at all."""
    inside = {"genotype": genotype.to_json(), "shape": asdict(shape), "classes": list(names)}
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    # one entry: safetensors writes several in an order that changes, and equal runs shall leave equal files
    write_bytes(part.weights, save(tensors, metadata={"diffnas": json.dumps(inside)}))


class _Trainer:
    """One attempt at a training."""

    def __init__(self, recipe: Recipe, network: nn.Module, data: ImageData, session: Session) -> None:
        assert recipe.train is not None
        self.recipe, self.settings, self.network, self.session = recipe, recipe.train, network, session
        self.feed: Feed = train_feed(recipe, data, session.device)
        self.test: Feed = test_feed(recipe, data, session.device)
        self.task = ImageTask(self.settings.auxiliary_weight, self.settings.smoothing)
        self.weights = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(
            self.weights, self.settings.lr, self.settings.momentum, weight_decay=self.settings.decay, foreach=True
        )
        self.epoch = self.step = 0
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
        lr = cosine(epoch, settings.epochs, settings.lr, settings.lr_min)
        set_learning_rate(self.optimizer, lr)
        if settings.drop_path:
            self.network.get_buffer("drop_path").fill_(ramp(epoch, settings.epochs, settings.drop_path))
        if self.step == 0:
            torch.manual_seed(stream_seed(self.recipe.seed, "noise", epoch))
        self._steps(started)
        row: dict[str, Any] = {"epoch": epoch, "lr": lr, **self.session.means(epoch)}
        last = epoch + 1 == settings.epochs
        if last or (settings.test_every and (epoch + 1) % settings.test_every == 0):
            found = evaluate(self.network, self.task, self.test, PRECISIONS[self.recipe.precision])
            row |= {"test_loss": found.loss, "test_accuracy": 100.0 * found.accuracy}
        row["seconds"] = round(time.monotonic() - started, 3)
        self.session.part.add_metrics(row)
        self.session.meter = type(self.session.meter)()
        self.epoch, self.step, self.seconds = epoch + 1, 0, 0.0
        self.session.save(self._position, self)
        log.info("%s", _line(row, settings.epochs))
        if not last:
            self.session.leave()

    def _steps(self, started: float) -> None:
        self.network.train()
        batches, total = self.feed.epoch(self.epoch), self.feed.steps
        precision = PRECISIONS[self.recipe.precision]
        with progress(f"train epoch {self.epoch + 1}", total, self.recipe.log.every) as say:
            for step in range(self.step, total):
                batch = batches[step]
                with torch.autocast(self.session.device.type, precision, enabled=precision != torch.float32):
                    loss = self.task.loss(self.network, batch)
                self.optimizer.zero_grad(set_to_none=True)
                loss.total().backward()
                if self.settings.clip is not None:
                    torch.nn.utils.clip_grad_norm_(self.weights, self.settings.clip, foreach=True)
                self.optimizer.step()
                self.session.meter.add("train", loss)
                self.step = step + 1
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
            "optimizer": optimizer_state(self.optimizer, self.network),
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self.network.load_state_dict(state["network"])
        load_optimizer_state(self.optimizer, self.network, state["optimizer"])
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        require_counts(epoch=self.epoch, step=self.step)


def _line(row: dict[str, Any], epochs: int) -> str:
    parts = [f"train epoch {row['epoch'] + 1}/{epochs}"]
    parts += [
        f"{name} loss {row[f'{name}_loss']:.3f} acc {row[f'{name}_accuracy']:.2f}%"
        for name in ("train", "test")
        if f"{name}_loss" in row
    ]
    left = row["seconds"] * (epochs - row["epoch"] - 1)
    return "  ".join([*parts, duration(row["seconds"]), f"{duration(left)} left" if left else ""]).rstrip()
