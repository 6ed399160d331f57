"""The trunk of supernets and networks alike: a stem, three stages, a classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffnas.core.space import Shape
from diffnas.spaces.nasbench201.layout import STAGES
from diffnas.spaces.nasbench201.ops import Residual


class Trunk(nn.Module):
    """Images [N, C_in, H, W] -> logits [N, classes]; `build(channels)` makes a cell, of which each stage has `layers`.

    Each stage after the first begins with a `Residual` that doubles the channels.  Sides must be divisible by 4.
    """

    def __init__(self, shape: Shape, channels: int, layers: int, build: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.layers = layers
        self.stem = nn.Sequential(
            nn.Conv2d(shape.channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.cells = nn.ModuleList()
        for stage in range(STAGES):
            if stage:
                self.cells.append(Residual(channels, 2 * channels))
                channels *= 2
            self.cells.extend(build(channels) for _ in range(layers))
        self.norm = nn.BatchNorm2d(channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, shape.classes)

    def walk(self, x: Tensor, given: Sequence[Any] | None = None) -> Tensor:
        """Returns the logits; every cell is called with the value before it and with its own of `given` (None: nothing)."""
        x, own = self.stem(x), iter(given or ())
        for cell in self.cells:
            x = cell(x) if given is None or isinstance(cell, Residual) else cell(x, next(own))
        logits: Tensor = self.classifier(self.pool(torch.relu(self.norm(x))).flatten(1))
        return logits
