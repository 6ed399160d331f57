"""What a recipe's data section gives the commands, whether it holds images or text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from diffnas.core.space import Shape, TextShape
from diffnas.data.inputs import Inputs
from diffnas.engine import search as engine
from diffnas.engine.search import Feed
from diffnas.pipeline.supernet_weights import SupernetWeights
from diffnas.runtime.run_folder import Part


class Task(engine.Task, Protocol):
    """What outputs are worth, and how that is recorded and said."""

    def metrics(self, loss: float, accuracy: float) -> dict[str, float]:
        """What is recorded of a mean loss and a share of right answers, by name."""

    def format_metrics(self, name: str, row: Mapping[str, float], short: bool = False) -> str:
        """What a line says of the metrics `NAME_...` in `row`."""


class Training(Protocol):
    """How a network is trained on a source: everything that the loop over epochs leaves open."""

    @property
    def task(self) -> Task:
        """The loss that is minimised."""

    @property
    def feed(self) -> Feed:
        """The batches to train on."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What moves the weights."""

    def begin(self, epoch: int) -> float:
        """Prepares the network for an epoch; its learning rate."""

    def after(self, epoch: int) -> dict[str, float]:
        """What an evaluation finds at the end of an epoch, if one is due, for its row of metrics."""

    def result(self) -> Mapping[str, Tensor]:
        """The weights that the training ends with, by name."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs besides the network and the optimizer's numbers."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`; afterwards `optimizer` is of the kind that it was then."""


class Source(Protocol):
    """The data of a recipe, read."""

    @property
    def inputs(self) -> Inputs:
        """How the data become a network's inputs."""

    @property
    def shape(self) -> Shape | TextShape:
        """What networks read."""

    @property
    def names(self) -> tuple[str, ...]:
        """The classes or the words, in the order of their numbers."""

    @property
    def about(self) -> dict[str, Any]:
        """What was found where the recipe says, for the record."""

    def say(self) -> None:
        """Says in the log what was found."""

    def search_task(self) -> Task:
        """The task of a search."""

    def search_weights(self) -> SupernetWeights:
        """How the supernet's weights are trained."""

    def search_feeds(self, device: torch.device) -> dict[str, Feed]:
        """The batches of a search: `train`, and `valid` and `score` where there is data for the architecture."""

    def training(self, network: nn.Module, device: torch.device) -> Training:
        """The training of `network`, which is on `device`."""

    def record_training(self, part: Part) -> None:
        """Notes in the folder of a training what it is trained on."""


class TestSet(Protocol):
    """The test data of a recipe, read as a trained network reads them."""

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that the data have, or the words that they are read in."""

    def say(self) -> None:
        """Says in the log what was found."""

    def evaluate(self, network: nn.Module, device: torch.device, part: Part | None = None) -> dict[str, Any]:
        """What the test data say of `network`, which is on `device` and was trained in `part`."""
