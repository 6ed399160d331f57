"""The base of tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from diffnas.core.batch import Batch, Loss


@dataclass(frozen=True)
class Task:
    """What a network is trained for; derive from it and write `loss`.  The fields are settings.

    `modalities` are those whose networks it can read (empty: any), and `of_section` the fields that a section of the recipe
    has a key for, which is then the only place to set them.
    """

    name: ClassVar[str] = ""
    modalities: ClassVar[tuple[str, ...]] = ()
    of_section: ClassVar[Mapping[str, str]] = {}

    def loss(self, net: Callable[[Any], Any], batch: Batch) -> Loss:
        """Returns the loss of `net`, which maps inputs to outputs, on `batch`."""
        raise NotImplementedError(f"{type(self).__name__}.loss computes the loss of a task")

    def reward(self, loss: Tensor, accuracy: Tensor) -> Tensor:
        """[]: what selections maximise, above 0, given the mean loss [] and the share of right answers []: e^-loss."""
        return (-loss).exp()

    def metrics(self, loss: float, accuracy: float) -> dict[str, float]:
        """Returns the metrics for the record, by name, of a mean loss and a share of right answers."""
        return {"loss": loss}

    def format_metrics(self, name: str, row: Mapping[str, float], short: bool = False) -> str:
        """Formats the metrics `NAME_...` in `row` for a log line."""
        values = ((key, row[f"{name}_{key}"]) for key in self.metrics(0.0, 0.0))
        return f"{name} " + " ".join(f"{value:.4g}" if short else f"{key} {value:.4g}" for key, value in values)
