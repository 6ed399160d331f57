"""The whole state of a search, kept aside and put back, for methods that try something and undo it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffnas.engine.search import Search


@dataclass(frozen=True)
class Snapshot:
    """A copy of a search's state, and of torch's generators: the host's, then that of the search's GPU if it is on one."""

    state: dict[str, Any]
    noise: tuple[Tensor, ...]


def snapshot(search: Search) -> Snapshot:
    """Copies weights, statistics, architecture, optimizers, clock and generators."""
    noise = [torch.get_rng_state()]
    if search.device.type == "cuda":
        noise.append(torch.cuda.get_rng_state(search.device))
    return Snapshot(copy.deepcopy(search.state_dict()), tuple(noise))


def restore(search: Search, kept: Snapshot) -> None:
    """Puts `kept` back, bit for bit; it can be put back again.  The supernet must be that of the same stage."""
    search.load_state_dict(copy.deepcopy(kept.state))
    torch.set_rng_state(kept.noise[0])
    if search.device.type == "cuda":
        torch.cuda.set_rng_state(kept.noise[1], search.device)
