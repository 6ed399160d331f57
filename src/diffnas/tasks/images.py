"""Classifying images: cross-entropy, and how many answers are right."""

from __future__ import annotations

from collections.abc import Callable
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
