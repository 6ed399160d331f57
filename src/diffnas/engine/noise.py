"""The state of torch's global generators, from which a step draws what is not drawn by a named one (dropout)."""

from __future__ import annotations

import torch
from torch import Tensor

Noise = tuple[Tensor, ...]
"""The state of the host's generator, then of that of the device, if it is a GPU."""


def noise_of(device: torch.device) -> Noise:
    """Returns where the generators stand."""
    host = torch.get_rng_state()
    return (host, torch.cuda.get_rng_state(device)) if device.type == "cuda" else (host,)


def set_noise(device: torch.device, noise: Noise) -> None:
    """Puts the generators back to where they stood."""
    torch.set_rng_state(noise[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(noise[1], device)
