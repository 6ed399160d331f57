"""Training of a network on samples: SGD on a schedule, the last epoch's weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from diffnas.core.schedules import cosine, exponential, linear, warm
from diffnas.engine.search import Feed
from diffnas.engine.steady import sgd
from diffnas.pipeline.graphs import training_replays
from diffnas.pipeline.sources.tasks import task_of
from diffnas.recipe.recipe import Recipe
from diffnas.recipe.schema import SampleTrain
from diffnas.runtime.device import PRECISIONS
from diffnas.tasks.base import Task


class CosineTraining(ABC):
    """SGD whose rate falls on a cosine, or as the recipe says; the last epoch's weights are the result.

    `part` is what the network is evaluated on between epochs, "valid" or "test".
    """

    def __init__(self, recipe: Recipe, network: nn.Module, feed: Feed, part: str) -> None:
        settings = recipe.train
        self.settings, self.network, self.precision = settings, network, PRECISIONS[recipe.precision]
        self.task: Task = task_of(recipe, settings)
        self.feed, self.part = feed, part
        weights = [p for p in network.parameters() if p.requires_grad]
        steady = training_replays(recipe, weights[0].device)
        self.optimizer = sgd(weights, settings.lr, settings.momentum, settings.decay, steady)

    @abstractmethod
    def evaluation(self) -> dict[str, float]:
        """Returns the metrics of the network on what it is evaluated on, by name."""

    def begin(self, epoch: int) -> float:
        """Returns the schedule's rate."""
        return rate(self.settings, epoch)

    def after(self, epoch: int) -> dict[str, float]:
        """Evaluates every `test_every` epochs and after the last."""
        every, last = self.settings.test_every, epoch + 1 == self.settings.epochs
        if not last and not (every and (epoch + 1) % every == 0):
            return {}
        return {f"{self.part}_{key}": value for key, value in self.evaluation().items()}

    def result(self) -> Mapping[str, Tensor]:
        """The weights as they are."""
        weights: Mapping[str, Tensor] = self.network.state_dict()
        return weights

    def state_dict(self) -> dict[str, Any]:
        """Returns nothing: the network and the optimizer are all the state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores nothing, as there is nothing else."""
        assert not state


def rate(train: SampleTrain, epoch: int) -> float:
    """The learning rate of an epoch."""
    if train.warmup_to == "first" and epoch < train.warmup:
        return train.lr * warm(epoch, train.warmup)
    if train.schedule == "linear":
        scheduled = linear(epoch, train.epochs, train.lr)
    elif train.schedule == "exponential":
        scheduled = exponential(epoch, train.lr, train.lr_factor)
    else:
        scheduled = cosine(epoch, train.epochs, train.lr, train.lr_min)
    return scheduled * warm(epoch, train.warmup)
