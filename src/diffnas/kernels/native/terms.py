"""What a table is laid out for: terms, their pairs, and places in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import nn


class Place(NamedTuple):
    """An offset in an arena."""

    arena: int
    offset: int


@dataclass(frozen=True)
class Pair:
    """A depthwise convolution, a 1x1 convolution and its normalisation."""

    depthwise: nn.Conv2d
    point: nn.Conv2d
    norm: nn.BatchNorm2d


@dataclass(frozen=True)
class Term:
    """What is computed on one edge: one pair or two, or a pool (`is_max` or not) with its normalisation, or nothing: the
    state itself.  `group` tells pools of different ops apart."""

    edge: int
    pairs: tuple[Pair, ...] = ()
    norm: nn.BatchNorm2d | None = None
    is_max: bool = False
    group: int = 0


@dataclass(frozen=True)
class DenseEdge:
    """What is computed on one edge of NAS-Bench-201: the layers of its 1x1 and its 3x3 convolution (None: not there), and
    which of the shares are theirs, the pool's and the skip connections' (-1: not there)."""

    point: tuple[nn.Conv2d, nn.BatchNorm2d] | None
    conv: tuple[nn.Conv2d, nn.BatchNorm2d] | None
    point_share: int
    conv_share: int
    pool: int
    skips: tuple[int, ...]


def reach(pair: Pair) -> int:
    """How far a depthwise convolution reads beyond the image."""
    return int(pair.depthwise.dilation[0]) * (pair.depthwise.kernel_size[0] // 2)


def bits_of(number: float) -> int:
    """A floating point number as an integer of the same bits."""
    return int(np.array(number, np.float64).view(np.int64))
