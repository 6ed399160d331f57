"""One attempt at a training: epochs of steps, and what is written after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffnas.core.batch import Batch, Loss
from diffnas.core.genotype import Genotype
from diffnas.core.seeds import stream_seed
from diffnas.engine.optim import load_optimizer_state, optimizer_state, set_learning_rate
from diffnas.engine.replay import Replay
from diffnas.engine.steady import SteadySGD
from diffnas.pipeline.begin import Start
from diffnas.pipeline.epoch_lines import EpochLines
from diffnas.pipeline.graphs import replay
from diffnas.pipeline.network import build
from diffnas.pipeline.processes import batch_dim, own_carry, prepared, shared, whole_carry
from diffnas.pipeline.resources import require_memory
from diffnas.pipeline.resume import Resumed
from diffnas.pipeline.session import Session, require_counts
from diffnas.pipeline.sources.base import Source
from diffnas.pipeline.train_steps import TrainSteps, compiled_network
from diffnas.recipe.recipe import Recipe
from diffnas.runtime.console import log
from diffnas.runtime.device import place
from diffnas.runtime.run_folder import Part


class Job:
    """A training: the network of `genotype`, by `recipe`, on the data of `source`, from fresh weights or from `start`."""

    def __init__(
        self, genotype: Genotype, recipe: Recipe, source: Source, device: torch.device, start: Start | None = None
    ) -> None:
        self.genotype, self.device, self.source = genotype, device, source
        require_memory(lambda: build(genotype, recipe, source.shape), recipe, "train", device)
        network = build(genotype, recipe, source.shape, stream_seed(recipe.seed, "weights"))
        if start is not None:
            start.put(network)
        self.network = prepared(place(network, device), recipe)
        self.training = source.training(self.network, device)
        self.feed, self.batch_dim = shared(self.training.feed, source, "train.batch"), batch_dim(source)


class Trainer:
    """One attempt at a training: epochs of steps, and what is written after each."""

    def __init__(self, job: Job, resumption: Resumed, session: Session, facts: Mapping[str, Any]) -> None:
        recipe = resumption.recipe
        assert recipe.train is not None
        self.recipe, self.settings, self.session = recipe, recipe.train, session
        self.genotype, self.network, self.training = job.genotype, job.network, job.training
        self.feed = job.feed
        compiled = compiled_network(recipe, job.genotype, job.network, job.device)
        self.steps = TrainSteps(recipe, job.network, job.training, job.batch_dim, job.device, compiled)
        self.epoch = self.step = 0
        self.carry: Tensor | None = None
        self.replay: Replay | None = None
        self.lines = EpochLines("train")
        self.seconds = 0.0  # spent on the current epoch in earlier attempts
        if resumption.checkpoint is not None:
            session.restore(resumption.checkpoint, self)
        self._begin(resumption, facts)

    def _begin(self, resumption: Resumed, facts: Mapping[str, Any]) -> None:
        """Records this attempt now that nothing can refuse it."""
        self.session.part.write_recipe(self.recipe.to_yaml())
        _set_aside(self.session.part, self.epoch)
        if resumption.lowered and resumption.checkpoint is not None:
            self.session.save(self._position, self)  # the rates are those of the checkpoint from now on
        at = f"epoch {self.epoch + 1}, step {self.step}"
        self.session.begin(at, self.epoch, {"lowered": resumption.lowered} if resumption.lowered else facts)
        self.session.source.record_training(self.session.part)
        if resumption.checkpoint is not None:
            log.info("resumed at %s", at)

    def run(self) -> None:
        """Runs every epoch from the current one on."""
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
        self.session.following.pace.ended(row["seconds"])
        self.session.record(row)
        self.epoch, self.step, self.seconds = epoch + 1, 0, 0.0
        self.session.save(self._position, self)
        self.lines.say(row, self.epoch, settings.epochs)
        if self.epoch < settings.epochs:
            self.session.leave()

    def _steps(self, lr: float, started: float) -> None:
        self.network.train()
        batches, optimizer = self.feed.epoch(self.epoch), self.training.optimizer
        total, take = len(batches), self._taker()
        with self.session.steps(self.epoch + 1, self.settings.epochs, self.step, total) as say:
            for step in range(self.step, total):
                begun = time.monotonic()
                batch = replace(batches[step], carry=self.carry)
                read = time.monotonic()
                set_learning_rate(optimizer, lr * batch.scale)
                loss = take({"train": batch})["train"]
                self.session.meter.add("train", loss)
                self.session.meter.add_time(begun, read)
                self.carry, self.step = loss.carry, step + 1
                say(self.step)
                self.seconds = time.monotonic() - started
                if self.step < total:
                    self.session.check(self._position, f"step {self.step} of epoch {self.epoch + 1}", self)

    def _taker(self) -> Callable[[Mapping[str, Batch]], dict[str, Loss]]:
        """Returns what takes a step: replayed where the optimizer, which a training may exchange, allows it."""
        if not isinstance(self.training.optimizer, SteadySGD):
            return self.steps.take
        self.replay = self.replay or replay(self.steps)
        return self.replay.step

    @property
    def _position(self) -> int:
        return self.epoch * 1_000_000 + self.step

    def state_dict(self) -> dict[str, Any]:
        """The genotype, weights, momentum and where the training is."""
        return {
            "genotype": self.genotype.to_json(),
            "network": self.network.state_dict(),
            "optimizer": optimizer_state(self.training.optimizer, self.network),
            "training": self.training.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "loss_scale": self.steps.loss_scale.value,
            "carry": whole_carry(self.carry),
        }

    def quantities(self) -> dict[str, Sequence[Tensor]]:
        """The weights."""
        return {"the weights of the network": self.steps.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state`."""
        self.network.load_state_dict(state["network"])
        self.training.load_state_dict(state.get("training", {}))  # checkpoints of images had none once
        load_optimizer_state(self.training.optimizer, self.network, state["optimizer"])
        self.replay = None  # what was recorded belongs to the state of before
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        self.steps.loss_scale.value = float(state.get("loss_scale", self.steps.loss_scale.value))  # once there was none
        carry: Tensor | None = state.get("carry")
        self.carry = None if carry is None else own_carry(carry.to(self.session.device))
        require_counts(epoch=self.epoch, step=self.step)


def _set_aside(part: Part, epoch: int) -> None:
    """Keeps the weights of a finished training that now goes on, and their test, under names that say of what epoch."""
    last = max((row["epoch"] + 1 for row in part.metrics()), default=epoch)
    for path in (part.weights, part.path / "test.json"):
        if path.is_file():
            kept = path.with_name(f"{path.stem}-epoch-{last:03d}{path.suffix}")
            path.replace(kept)
            log.info("%s is kept as %s", path, kept.name)
