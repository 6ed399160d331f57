"""Tensors as commands use them: batches, a network's training, and its test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffnas.data.inputs import TensorInputs
from diffnas.data.registered import TENSORS
from diffnas.data.tensors import Augmentation, Samples, TensorFeed, read_tensors
from diffnas.engine.search import Feed
from diffnas.errors import DataError
from diffnas.pipeline.evaluate import score, share_interval
from diffnas.pipeline.sources.cosine import CosineTraining
from diffnas.pipeline.sources.tasks import task_of, without_smoothing
from diffnas.pipeline.supernet_weights import CosineSGD
from diffnas.recipe.recipe import Recipe
from diffnas.runtime.console import log
from diffnas.runtime.device import PRECISIONS
from diffnas.runtime.run_folder import Part
from diffnas.tasks.base import Task


class TensorSource:
    """The tensors of a recipe; that of a plug-in's modality may derive from it.

    `parts` holds the samples of "train" and "test", and perhaps "valid".
    """

    inputs: Any
    augment: Augmentation | None = None

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, data = recipe, recipe.data
        parts = read_tensors(data.name, data.path)
        limits = {"train": data.train_limit, "valid": data.test_limit, "test": data.test_limit}
        self.parts = {role: samples.first(limits[role]) for role, samples in parts.items()}
        _require_targets(recipe, parts)
        self.inputs, self.augment = inputs_of(data.name), TENSORS[data.name].augment
        self.shape, self.names = self.inputs.shape, self.inputs.names

    @property
    def about(self) -> dict[str, Any]:
        """The shape of the inputs, and the samples of each part."""
        data, shape = self.recipe.data, self.shape
        parts = {role: {"samples": len(samples)} for role, samples in self.parts.items()}
        about = {"name": data.name, "path": data.path, "classes": list(self.names)}
        return about | {"sizes": list(shape.sizes), "outputs": shape.outputs} | parts

    def say(self) -> None:
        """Logs the shape of the inputs, and the samples of each part."""
        parts = ", ".join(f"{role} {len(samples):,} samples" for role, samples in self.parts.items())
        log.info(
            "data: %s: inputs %s, %d outputs; %s",
            _place(self.recipe),
            list(self.shape.sizes),
            self.shape.outputs,
            parts,
        )

    def search_task(self) -> Task:
        """Returns the recipe's task."""
        return task_of(self.recipe, self.recipe.search)

    def search_weights(self) -> CosineSGD:
        """Returns SGD as the search says."""
        return CosineSGD(self.recipe.search.weights)

    def search_feeds(self, device: torch.device) -> dict[str, Feed]:
        """`train`, and where the samples are split `valid` and `score`."""
        data, search, seed = self.recipe.data, self.recipe.search, self.recipe.seed
        samples = self.parts["train"].to(device)
        weights, arch = _split(len(samples), data.split, search.batch, data.first == "weights")
        steps = _steps(len(weights), search.batch)
        common: dict[str, Any] = {"seed": seed, "augment": self.augment}
        train = TensorFeed(samples, weights, search.batch, name="train", steps=steps, **common)
        if not len(arch):
            return {"train": train}
        order = search.sampling
        valid = TensorFeed(samples, arch, search.batch, name="valid", order=order, steps=steps, **common)
        score = TensorFeed(samples, arch, 4 * search.batch, name="score", order="sequential", seed=seed)
        return {"train": train, "valid": valid, "score": score}

    def training(self, network: nn.Module, device: torch.device) -> TensorTraining:
        """The training of `network`."""
        return TensorTraining(self.recipe, self.parts, network, device, self.augment)

    def record_training(self, part: Part) -> None:
        """Does nothing: equal samples may well occur."""


class TensorTest:
    """The test tensors of a recipe."""

    def __init__(self, recipe: Recipe, inputs: TensorInputs) -> None:
        self.recipe, self.inputs = recipe, inputs
        own = inputs_of(recipe.data.name)
        if own.shape != inputs.shape:
            raise DataError(f"data set {recipe.data.name}: is {own.shape} now, and the network reads {inputs.shape}")
        self.names = own.names
        parts = read_tensors(recipe.data.name, recipe.data.path)
        _require_targets(recipe, parts)
        self.samples = parts["test"].first(recipe.data.test_limit)

    def say(self) -> None:
        """Logs the number of samples."""
        log.info("data: %s: test %s samples", _place(self.recipe), f"{len(self.samples):,}")

    def evaluate(self, network: nn.Module, device: torch.device, part: Part | None = None) -> dict[str, Any]:
        """The task's metrics on the test samples; of an accuracy its 95 % interval as well."""
        task = without_smoothing(task_of(self.recipe, self.recipe.train))
        feed = _in_order(self.samples, self.recipe, device)
        loss, accuracy, n = score(network, task, feed, PRECISIONS[self.recipe.precision])
        metrics, interval = task.check_metrics(loss, accuracy), None
        if "accuracy" in metrics:
            low, high = share_interval(accuracy, n)
            interval = [100.0 * low, 100.0 * high]
        return {**metrics, "interval": interval, "n": n, "task": task.name, "weights": "last epoch"}


class TensorTraining(CosineTraining):
    """The training of a network on tensors."""

    def __init__(
        self,
        recipe: Recipe,
        parts: dict[str, Samples],
        network: nn.Module,
        device: torch.device,
        augment: Augmentation | None = None,
    ) -> None:
        samples, batch = parts["train"].to(device), recipe.train.batch
        steps = _steps(len(samples), batch)
        feed = TensorFeed(samples, None, batch, seed=recipe.seed, name="train", steps=steps, augment=augment)
        super().__init__(recipe, network, feed, "valid" if "valid" in parts else "test")
        self.watched = _in_order(parts[self.part], recipe, device)

    def evaluation(self) -> dict[str, float]:
        """The task's metrics on the validation samples, on the test where there are none."""
        task = without_smoothing(self.task)
        loss, accuracy, _ = score(self.network, task, self.watched, self.precision)
        return task.check_metrics(loss, accuracy)


def inputs_of(name: str) -> TensorInputs:
    """Returns what the networks of the data set `name` read."""
    tensors = TENSORS[name]
    return TensorInputs(name, tensors.shape.sizes, tensors.shape.outputs, tensors.classes)


def _require_targets(recipe: Recipe, parts: Mapping[str, Samples]) -> None:
    """Raises `DataError` where the recipe's task cannot use the targets."""
    task, outputs = task_of(recipe, None), TENSORS[recipe.data.name].shape.outputs
    for role, samples in parts.items():
        wrong = task.check_targets(samples.targets, outputs)
        if wrong is not None:
            said = f"they are {samples.targets.dtype} {list(samples.targets.shape)}"
            raise DataError(f"data set {recipe.data.name}: {role} targets {wrong} (task {task.name}); {said}")


def _place(recipe: Recipe) -> str:
    return str(recipe.data.path or recipe.data.name)


def _in_order(samples: Samples, recipe: Recipe, device: torch.device) -> TensorFeed:
    batch = 4 * recipe.train.batch
    return TensorFeed(samples.to(device), None, batch, seed=recipe.seed, name="test", order="sequential")


def _split(count: int, share: float, batch: int, weights_first: bool) -> tuple[Tensor, Tensor]:
    """Indices of the samples that train the weights, and of those that train the architecture, none with a share of 1."""
    order, first = torch.arange(count), round(share * count)
    weights, arch = (
        (order[:first], order[first:]) if weights_first else (order[count - first :], order[: count - first])
    )
    parts = {"weights": weights, "architecture": arch} if share < 1.0 else {"weights": weights}
    small = [f"{len(part)} samples for the {what}" for what, part in parts.items() if len(part) < batch]
    if small:
        raise DataError(f"search.batch {batch}: data.split {share} leaves {' and '.join(small)}")
    return weights, arch


def _steps(count: int, batch: int) -> int:
    """The batches of an epoch; a last one of a single sample is left out, which normalisation could make nothing of."""
    whole, rest = divmod(count, batch)
    return whole + (rest > 1) if whole else 1
