"""Operations on channels that spaces share."""

from __future__ import annotations

from torch import Tensor


def interleave(x: Tensor, groups: int) -> Tensor:
    """The channels of `groups` equal groups in turns: 1 of each, then 2 of each, ... [N, C, H, W] -> the same."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
