"""Signals of one dimension, in a file of their own: a data set, a task and a space.

diffnas search examples/signals.yaml --plugin examples/signals.py --run runs/signals
diffnas train runs/signals --plugin examples/signals.py
diffnas test runs/signals --plugin examples/signals.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

import diffnas

LENGTH = 64
WAVES = ("slow", "middle", "fast")


def read(path: Path | None) -> dict[str, tuple[Tensor, Tensor]]:
    """Makes waves of three frequencies in noise, [M, 1, LENGTH], and the number of each one's class, [M]."""
    stream = torch.Generator().manual_seed(0)

    def part(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(len(WAVES), (count,), generator=stream)
        phases = 2 * torch.pi * torch.rand(count, 1, generator=stream)
        angles = 2 * torch.pi * 2.0 ** (labels[:, None] + 1) * torch.arange(LENGTH) / LENGTH
        noise = torch.randn(count, LENGTH, generator=stream)
        return (torch.sin(angles + phases) + noise)[:, None], labels

    return {"train": part(512), "valid": part(128), "test": part(256)}


def shift(inputs: Tensor, generator: Generator) -> Tensor:
    """Shifts every signal of a batch around by the same random distance."""
    return inputs.roll(int(torch.randint(LENGTH, (), generator=generator)), dims=-1)


shape = diffnas.TensorShape((1, LENGTH), outputs=len(WAVES))
diffnas.register(diffnas.TensorSet("waves", read, shape, WAVES, task="focal", augment=shift, about="waves in noise"))


@diffnas.register
@dataclass(frozen=True)
class Focal(diffnas.Classification):
    """Tell classes apart by the focal loss (Lin et al., 2017), in which sure answers count less."""

    name: ClassVar[str] = "focal"
    gamma: float = diffnas.setting(2.0, "how much less sure answers count (0: cross-entropy)", ge=0)

    def loss(self, net: Callable[[Tensor], Any], batch: diffnas.Batch) -> diffnas.Loss:
        """Returns the mean of (1 - p)^gamma times -log p, p the share of the right class."""
        logits = net(batch.inputs)
        losses = F.cross_entropy(logits, batch.targets, reduction="none", label_smoothing=self.smoothing)
        value = ((1 - (-losses).exp()) ** self.gamma * losses).mean()
        return diffnas.Loss(value, (logits.argmax(1) == batch.targets).sum(), len(logits))


@diffnas.register
@dataclass(frozen=True)
class SignalCells(diffnas.CellSpace):
    """Cells of convolutions over time."""

    name: ClassVar[str] = "signal-cells"
    modality: ClassVar[str] = "tensors"
    ops: tuple[str, ...] = diffnas.setting(("none", "skip", "conv_3", "conv_9"), "candidate ops", min_length=1)

    def op(self, name: str, channels: int, stride: int, affine: bool) -> nn.Module:
        """Builds a convolution of the width in the op's name; `skip` is the identity where it keeps the length."""
        if name == "skip":
            return nn.Identity() if stride == 1 else self.fit(channels, channels, True, affine)
        width = {"conv_3": 3, "conv_9": 9}[name]
        layers = (
            nn.Conv1d(channels, channels, width, stride, width // 2, bias=False),
            nn.BatchNorm1d(channels, affine=affine),
        )
        return nn.Sequential(nn.ReLU(), *layers)

    def stem(self, inputs: int, channels: int) -> nn.Module:
        """Builds the first layers: [N, inputs, T] -> [N, channels, T]."""
        return nn.Sequential(nn.Conv1d(inputs, channels, 3, padding=1, bias=False), nn.BatchNorm1d(channels))

    def fit(self, inputs: int, channels: int, halve: bool, affine: bool) -> nn.Module:
        """Builds what fits an input to a cell: [N, inputs, T] -> [N, channels, T or T/2]."""
        stride = 2 if halve else 1
        layers = nn.Conv1d(inputs, channels, 1, stride, bias=False), nn.BatchNorm1d(channels, affine=affine)
        return nn.Sequential(nn.ReLU(), *layers)
