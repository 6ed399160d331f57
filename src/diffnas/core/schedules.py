"""Learning rates and other dials as functions of the epoch, in closed form (epochs are counted from 0)."""

from __future__ import annotations

import math


def cosine(epoch: float, epochs: int, high: float, low: float = 0.0) -> float:
    """`low + (high - low) (1 + cos(pi e / E)) / 2`: half a cosine from `high` towards `low` (Loshchilov and Hutter, 2017)."""
    return low + 0.5 * (high - low) * (1.0 + math.cos(math.pi * epoch / epochs))


def linear(epoch: int, epochs: int, high: float, tail: int = 5) -> float:
    """A straight fall from `high` towards 0 at E - `tail`, and a flatter one in the last `tail` epochs (P-DARTS's code).

    With E <= `tail` there is the flatter one alone.
    """
    most = max(1, epochs - tail)
    if epochs - epoch > tail:
        return high * (most - epoch) / most
    return high * (epochs - epoch) / (most * tail)


def exponential(epoch: int, high: float, factor: float) -> float:
    """`high factor^e`: a fall by one factor from each epoch to the next."""
    return float(high * factor**epoch)


def restarted(epoch: float, first: int, growth: int, high: float, low: float = 0.0) -> float:
    """Half cosines from `high` to `low` one after another: of `first` epochs, then each `growth` times as long as the one
    before (Loshchilov and Hutter, 2017)."""
    length = first
    while epoch >= length:
        epoch, length = epoch - length, length * growth
    return cosine(epoch, length, high, low)


def ramp(epoch: int, epochs: int, high: float) -> float:
    """`high e / E`: the linear growth of drop path over a training (Zoph et al., 2018)."""
    return high * epoch / epochs


def warm(epoch: int, warmup: int) -> float:
    """The factor of the learning rate in `warmup` first epochs: (e + 1) / warmup, then 1 (Goyal et al., 2017)."""
    return min(1.0, (epoch + 1) / warmup) if warmup else 1.0
