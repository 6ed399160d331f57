"""The base of tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from diffnas.core.batch import Batch, Loss
from diffnas.errors import PluginError


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

    def check_metrics(self, loss: float, accuracy: float) -> dict[str, float]:
        """Returns `metrics`, checked, with the loss among them; raises `PluginError` where they are not numbers by name."""
        metrics = self.metrics(loss, accuracy)
        named = isinstance(metrics, dict) and all(isinstance(name, str) for name in metrics)
        if not named or not all(isinstance(value, int | float) for value in metrics.values()):
            said = "must return a dict of names and numbers (float(x) of a tensor)"
            raise PluginError(f"task {self.name!r}: metrics {said}; it returns {metrics!r:.100}")
        return {"loss": loss, **{name: float(value) for name, value in metrics.items()}}

    def check_targets(self, targets: Tensor, outputs: int) -> str | None:
        """Returns why `targets` [M, ...] cannot be used for a network of so many `outputs`, None if they can."""
        return None

    def format_metrics(self, name: str, row: Mapping[str, float]) -> str:
        """Formats the metrics `NAME_...` in `row` for a progress bar."""
        return f"{name} " + " ".join(f"{row[f'{name}_{key}']:.4g}" for key in self.check_metrics(0.0, 0.0))
