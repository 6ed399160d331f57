"""The whole state of a search, kept aside and put back, for methods that try something and undo it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from diffnas.engine.noise import Noise, noise_of, set_noise
from diffnas.engine.search import Search


@dataclass(frozen=True)
class Snapshot:
    """A copy of a search's state and of torch's generators."""

    state: dict[str, Any]
    noise: Noise


def snapshot(search: Search) -> Snapshot:
    """Copies weights, statistics, architecture, optimizers, clock and generators."""
    return Snapshot(copy.deepcopy(search.state_dict()), noise_of(search.device))


def restore(search: Search, kept: Snapshot) -> None:
    """Puts `kept` back, bit for bit; it can be put back again.  The supernet must be that of the same stage."""
    search.load_state_dict(copy.deepcopy(kept.state))
    set_noise(search.device, kept.noise)
