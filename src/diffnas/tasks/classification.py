"""Classification: cross-entropy, and how many answers are right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from diffnas.core.batch import Batch, Loss
from diffnas.core.settings import setting
from diffnas.tasks.base import Task


@dataclass(frozen=True)
class Classification(Task):
    """Tell classes apart: cross-entropy, plus that of an auxiliary head where the network has one."""

    name: ClassVar[str] = "classification"
    modalities: ClassVar[tuple[str, ...]] = ("images", "tensors")
    of_section: ClassVar[Mapping[str, str]] = {"auxiliary": "auxiliary_weight", "smoothing": "smoothing"}

    auxiliary: float = setting(0.4, "weight of the auxiliary head's loss (Zoph et al., 2018)", ge=0)
    smoothing: float = setting(0.0, "label smoothing", ge=0, lt=1)

    @override
    def loss(self, net: Callable[[Tensor], Tensor | tuple[Tensor, Tensor]], batch: Batch) -> Loss:
        """The mean loss over `batch`; `net` maps inputs [N, C, H, W] to logits [N, classes], or to a pair with the head's."""
        outputs = net(batch.inputs)
        logits, head = outputs if isinstance(outputs, tuple) else (outputs, None)
        value = F.cross_entropy(logits, batch.targets, label_smoothing=self.smoothing)
        extra = None
        if head is not None:
            extra = self.auxiliary * F.cross_entropy(head, batch.targets, label_smoothing=self.smoothing)
        correct = (logits.detach().argmax(dim=1) == batch.targets).sum()
        return Loss(value, correct, len(batch.targets), extra)

    @override
    def check_targets(self, targets: Tensor, outputs: int) -> str | None:
        """Returns why `targets` are not the numbers of `outputs` classes."""
        if targets.dtype != torch.int64 or targets.dim() != 1:
            return "must be the numbers of classes, int64 [M]"
        if not (int(targets.min()) >= 0 and int(targets.max()) < outputs):
            return f"must be from 0 to {outputs - 1}, the numbers of the classes"
        return None

    @override
    def reward(self, loss: Tensor, accuracy: Tensor) -> Tensor:
        """[]: what selections maximise, the accuracy."""
        return accuracy

    @override
    def metrics(self, loss: float, accuracy: float) -> dict[str, float]:
        """Returns the metrics for the record: the mean loss, and the accuracy (given as a share) in percent."""
        return {"loss": loss, "accuracy": 100.0 * accuracy}

    @override
    def format_metrics(self, name: str, row: Mapping[str, float]) -> str:
        """Formats `{NAME_loss, NAME_accuracy}` for a progress bar."""
        loss, accuracy = row[f"{name}_loss"], row[f"{name}_accuracy"]
        return f"{name} {loss:.3f} {accuracy:.1f}%"
