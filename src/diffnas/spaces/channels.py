"""Operations on channels that spaces share."""

from __future__ import annotations

import torch
from torch import Tensor


def interleave(x: Tensor, groups: int) -> Tensor:
    """The channels of `groups` equal groups in turns: 1 of each, then 2 of each, ... [N, C, H, W] -> the same.

    What is channels last stays so: what follows would be several times slower otherwise.
    """
    if x.is_contiguous(memory_format=torch.channels_last):
        rows: Tensor = x.permute(0, 2, 3, 1).unflatten(3, (groups, -1)).transpose(3, 4).flatten(3, 4)
        return rows.permute(0, 3, 1, 2)
    mixed: Tensor = x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
    return mixed
