"""Classifying images: cross-entropy, and how many answers are right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from diffnas.core.batch import Batch, Loss


@dataclass(frozen=True)
class ImageTask:
    """Cross-entropy over classes; the auxiliary head's loss is added with weight `auxiliary` (0.4, Zoph et al., 2018)."""

    auxiliary: float = 0.4
    smoothing: float = 0.0

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

    def reward(self, loss: Tensor, accuracy: Tensor) -> Tensor:
        """[]: what selections maximise, the accuracy."""
        return accuracy

    def metrics(self, loss: float, accuracy: float) -> dict[str, float]:
        """Returns the metrics for the record: the mean loss, and the accuracy (given as a share) in percent."""
        return {"loss": loss, "accuracy": 100.0 * accuracy}

    def format_metrics(self, name: str, row: Mapping[str, float], short: bool = False) -> str:
        """Formats `{NAME_loss, NAME_accuracy}` for a log line."""
        loss, accuracy = row[f"{name}_loss"], row[f"{name}_accuracy"]
        return f"{name} {loss:.3f} {accuracy:.1f}%" if short else f"{name} loss {loss:.3f} acc {accuracy:.2f}%"
