"""The constants of the space, and where each block of a chain stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KIND = "blocks"
OPS = ("shuffle_3x3", "shuffle_5x5", "shuffle_7x7", "shuffle_xception")
Stem = Literal["cifar", "imagenet"]


@dataclass(frozen=True)
class Layout:
    """A chain: the stem's `channels`, the `widths` and `depths` of its stages, the `last` convolution's channels, the `stem`,
    and the `dropout` before the classifier."""

    channels: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    last: int
    stem: Stem
    dropout: float


@dataclass(frozen=True)
class Place:
    """The place of a block: [N, inputs, side, side] -> [N, outputs, side / stride, side / stride]."""

    inputs: int
    outputs: int
    stride: int
    side: int


def places(layout: Layout, side: int) -> list[Place]:
    """The place of every block, for images of `side`."""
    inputs, side, chain = layout.channels, side // stem_stride(layout), []
    for width, depth in zip(layout.widths, layout.depths, strict=True):
        for block in range(depth):
            chain.append(Place(inputs, width, 1 if block else 2, side))
            inputs, side = width, side if block else side // 2
    return chain


def stem_stride(layout: Layout) -> int:
    """The stride of the first convolution."""
    return 2 if layout.stem == "imagenet" else 1
