"""Where a run computes, and in what form its tensors lie in memory."""

from __future__ import annotations

import torch
from torch import nn

from diffnas.errors import RecipeError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pick_device(name: str) -> torch.device:
    """The device a recipe names (`auto`: a GPU where there is one); raises `RecipeError` where this machine lacks it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RecipeError(f"device: {name} is not on this machine ({torch.cuda.device_count()} CUDA devices); use cpu")
    return device


def place(module: nn.Module, device: torch.device) -> nn.Module:
    """`module` on `device`, its kernels channels last: depthwise convolutions on a CPU run several times faster so."""
    return module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
