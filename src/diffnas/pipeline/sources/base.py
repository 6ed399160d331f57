"""The interface of a source: what a recipe's data section gives the commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from diffnas.core.space import AnyShape
from diffnas.data.inputs import Inputs
from diffnas.engine.search import Feed
from diffnas.pipeline.supernet_weights import SupernetWeights
from diffnas.recipe.recipe import Recipe
from diffnas.runtime.run_folder import Part
from diffnas.tasks.base import Task


class Training(Protocol):
    """The training of a network on a source: everything that the loop over epochs leaves open."""

    @property
    def task(self) -> Task:
        """The loss that is minimised."""

    @property
    def feed(self) -> Feed:
        """The batches to train on."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the weights."""

    def begin(self, epoch: int) -> float:
        """Prepares the network for an epoch; its learning rate."""

    def after(self, epoch: int) -> dict[str, float]:
        """Evaluates at the end of an epoch, if due, and returns entries for its row of metrics."""

    def result(self) -> Mapping[str, Tensor]:
        """The weights that the training ends with, by name."""

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint needs besides the network's and the optimizer's state."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state`; afterwards `optimizer` has the type it had then."""


class Source(Protocol):
    """The data of a recipe, read."""

    @property
    def inputs(self) -> Inputs:
        """The transformation of data to a network's inputs."""

    @property
    def shape(self) -> AnyShape:
        """The shape of the network's inputs and outputs."""

    @property
    def names(self) -> tuple[str, ...]:
        """The classes or the words, in the order of their numbers."""

    @property
    def about(self) -> dict[str, Any]:
        """Returns a record of the data that were found."""

    def say(self) -> None:
        """Logs what was found."""

    def search_task(self) -> Task:
        """The task of a search."""

    def search_weights(self) -> SupernetWeights:
        """Returns the optimizer and learning rate of the supernet's weights."""

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
        """Logs what was found."""

    def evaluate(self, network: nn.Module, device: torch.device, part: Part | None = None) -> dict[str, Any]:
        """Evaluates `network`, which is on `device` and was trained in `part`, on the test data."""


class Reading(Protocol):
    """How the data of a modality are read."""

    @property
    def inputs(self) -> Any:
        """The class of what is kept with weights: a frozen dataclass as `diffnas.data.inputs.Inputs`."""

    def source(self, recipe: Recipe, stored: Any) -> Source:
        """Reads the data of `recipe`, with the statistics of `stored`, earlier inputs, where that is not None.

        Raises `DataError` where they are missing, damaged or do not fit.
        """

    def test_set(self, recipe: Recipe, inputs: Any, elsewhere: bool) -> TestSet:
        """Reads the test data of `recipe` as `inputs` says; `elsewhere` says whether the training data are in another place."""

    def shape(self, recipe: Recipe) -> AnyShape:
        """Returns the shape of networks for the data of `recipe`."""
