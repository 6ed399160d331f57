"""The beginnings of many permutations, drawn at once: the numbers of `torch.randperm`, one after another."""

from __future__ import annotations

import torch
from torch import Tensor

MOST = 2**22  # numbers that are held at once
FEW = 16  # permutations, of which fewer at once take longer than one by one


def beginnings(count: int, length: int, times: int, stream: torch.Generator) -> Tensor:
    """[times, length]: the first entries of `times` permutations of `count`, which `stream` draws.

    A permutation swaps each place i but the last with place i + r_i mod (count - i), where r are numbers of 32 bits of the
    stream.  Here only the places that are asked for are swapped, in many permutations together.
    """
    at_once = MOST // count // 2 * 2  # even: numbers come in pairs
    if at_once < FEW or count == 1:
        return torch.stack([torch.randperm(count, generator=stream)[:length] for _ in range(times)])
    sizes = [min(at_once, times - first) for first in range(0, times, at_once)]
    sizes = [min(at_once, times - first) for first in range(0, times, at_once)]
    return torch.cat([_swapped(_words(rows, count - 1, length, stream), count) for rows in sizes])


def _words(rows: int, each: int, wanted: int, stream: torch.Generator) -> Tensor:
    """[rows, wanted] int64: the first of the `each` numbers of 32 bits of every row; of an odd count, one is left out."""
    pairs = torch.empty((rows * each + 1) // 2, dtype=torch.int64).random_(-(2**63), None, generator=stream)
    places = torch.arange(rows)[:, None] * each + torch.arange(wanted)
    high_first = torch.where(places % 2 == 0, 32, 0)
    return pairs[(places // 2).clamp_max(len(pairs) - 1)] >> high_first & 0xFFFFFFFF


def _swapped(words: Tensor, count: int) -> Tensor:
    """[rows, length]: where places are swapped as `words` [rows, length] say."""
    rows, length = torch.arange(len(words)), words.shape[1]
    places = torch.arange(count, dtype=torch.int32).repeat(len(words), 1)
    for i in range(min(length, count - 1)):
        other = i + words[:, i].remainder(count - i)
        here = places[:, i].clone()
        places[:, i] = places[rows, other]
        places[rows, other] = here
    return places[:, :length].long()
