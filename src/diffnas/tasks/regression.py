"""Regression: mean squared error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from diffnas.core.batch import Batch, Loss
from diffnas.tasks.base import Task


@dataclass(frozen=True)
class Regression(Task):
    """Predict numbers: the mean squared error."""

    name: ClassVar[str] = "regression"
    modalities: ClassVar[tuple[str, ...]] = ("tensors",)

    @override
    def loss(self, net: Callable[[Tensor], Tensor], batch: Batch) -> Loss:
        """Returns the mean square over outputs [N, K] less targets [N, K], or [N] where K is 1; no answer counts as right."""
        outputs = net(batch.inputs)
        value = F.mse_loss(outputs, batch.targets.reshape(outputs.shape).to(outputs.dtype))
        return Loss(value, torch.zeros((), dtype=torch.int64, device=outputs.device), len(outputs))

    @override
    def check_targets(self, targets: Tensor, outputs: int) -> str | None:
        """Returns why `targets` are not as many numbers as `outputs` for each sample."""
        if targets.is_complex() or targets[0].numel() != outputs:
            return f"must be {outputs} real numbers for each sample, one for each output"
        return None

    @override
    def metrics(self, loss: float, accuracy: float) -> dict[str, float]:
        """Returns the mean loss and its root."""
        return {"loss": loss, "rmse": math.sqrt(loss)}
