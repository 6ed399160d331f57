"""A loss of one's own with a teacher: networks learn from the labels and from what another network says (distillation).

diffnas search darts-digits --plugin examples/teacher.py -s "task={name: taught, trust: 0.7}" --run runs/taught
diffnas train runs/taught --plugin examples/teacher.py
diffnas test runs/taught --plugin examples/teacher.py

The teacher is a linear model, fitted to the digits when this file is loaded, always to the same numbers.  One of your own is
read here from a file instead, for example by `diffnas.load_network(RUN)`; it must be the same whenever a run is resumed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

import diffnas


@cache
def teacher(device: torch.device) -> tuple[Tensor, Tensor]:
    """The weights [64, 10] and biases [10] of ridge regression to the classes of the digits, on `device`."""
    pixels, labels = load_digits(return_X_y=True)
    inputs = F.pad(torch.from_numpy(pixels[:1000]) / 16, (0, 1), value=1.0)
    classes = F.one_hot(torch.from_numpy(labels[:1000]).long(), 10).double()
    found = torch.linalg.solve(inputs.T @ inputs + torch.eye(65, dtype=torch.float64), inputs.T @ classes)
    return found[:-1].float().to(device), found[-1].float().to(device)


def advice(images: Tensor) -> Tensor:
    """[N, 10]: the logits of the teacher for `images` [N, 1, 8, 8], whose brightness it takes as it comes."""
    weights, biases = teacher(images.device)
    flat = images.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    return 10 * ((flat - low) / (high - low).clamp_min(1e-6) @ weights + biases)


@diffnas.register
@dataclass(frozen=True)
class Taught(diffnas.Classification):
    """Tell the digits apart by their labels and by what a teacher says of them (Hinton et al., 2015)."""

    name: ClassVar[str] = "taught"

    trust: float = diffnas.setting(0.5, "share of the teacher in the loss; the rest is that of the labels", ge=0, le=1)
    temperature: float = diffnas.setting(4.0, "temperature at which the two are compared", gt=0)

    def loss(self, net: Callable[[Tensor], Any], batch: diffnas.Batch) -> diffnas.Loss:
        """Returns (1 - trust) times the usual loss, plus trust T^2 KL(teacher || network) at temperature T."""
        logits = net(batch.inputs)
        with torch.no_grad():
            said = (advice(batch.inputs) / self.temperature).softmax(1)
        heard = (logits / self.temperature).log_softmax(1)
        distance = self.temperature**2 * F.kl_div(heard, said, reduction="batchmean")
        usual = F.cross_entropy(logits, batch.targets, label_smoothing=self.smoothing)
        correct = (logits.argmax(1) == batch.targets).sum()
        return diffnas.Loss((1 - self.trust) * usual + self.trust * distance, correct, len(logits))
