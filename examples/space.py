"""A space of one's own: two kinds of cell, of which one halves the sides, and four ops.

diffnas search darts-digits --plugin examples/space.py --run runs/grids \
    -s "space={name: grids, channels: 8, layers: 4, nodes: 2}"
diffnas train runs/grids --plugin examples/space.py
diffnas test runs/grids --plugin examples/space.py
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

import diffnas


@diffnas.register
@dataclass(frozen=True)
class Grids(diffnas.CellSpace):
    """Cells that look along rows, along columns, or at single pixels; every second cell halves the sides."""

    name: ClassVar[str] = "grids"
    kinds: ClassVar[tuple[str, ...]] = ("keep", "halve")
    halving: ClassVar[frozenset[str]] = frozenset({"halve"})

    ops: tuple[str, ...] = diffnas.setting(
        ("none", "skip", "row", "column", "pixel"), "candidate ops of every edge", min_length=1
    )
    width: int = diffnas.setting(3, "pixels that an op sees along a row or a column", ge=1, le=15)

    def op(self, name: str, channels: int, stride: int, affine: bool) -> nn.Module:
        """The op of that name: [N, channels, H, W] -> [N, channels, H/stride, W/stride]."""
        if name == "skip":
            return nn.Identity() if stride == 1 else nn.AvgPool2d(stride)
        sizes = {"row": (1, self.width), "column": (self.width, 1), "pixel": (1, 1)}[name]
        padding = sizes[0] // 2, sizes[1] // 2
        convolution = nn.Conv2d(channels, channels, sizes, stride, padding, bias=False)
        return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(channels, affine=affine))

    def layout(self, layers: int) -> tuple[str, ...]:
        """The kind of every cell of a chain: every second one halves, three times at most."""
        return tuple("halve" if index % 2 and index < 6 else "keep" for index in range(layers))
