"""The device of a run, and the memory format of its tensors."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

from diffnas.errors import RecipeError
from diffnas.kernels.strided import thin_strided
from diffnas.runtime.distributed import world

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str) -> torch.device:
    """The device a recipe names (`auto`: a GPU where there is one); raises `RecipeError` where this machine lacks it."""
    processes = world()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if processes.size > 1 and device.type == "cuda":
        if device.index is not None:
            raise RecipeError(
                f"device: {name} is one GPU, and each of {processes.size} processes takes its own; set cuda"
            )
        device, name = torch.device("cuda", processes.local), f"cuda:{processes.local}"
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RecipeError(f"device: {name} is not on this machine ({torch.cuda.device_count()} CUDA devices); use cpu")
    return device


def place(module: nn.Module, device: torch.device) -> nn.Module:
    """Moves `module` to `device` with channels-last kernels: depthwise convolutions on a CPU run several times faster.

    Strided 1x1 convolutions that are not sound in that layout, the ops of users among them, are made so.
    """
    thin_strided(module)
    moved: nn.Module = module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def peak_memory(device: torch.device) -> dict[str, Any]:
    """The most memory used so far in bytes, and whose: the tensors' on a GPU, the whole process's on a CPU; {} if unknown."""
    if device.type == "cuda":
        return {"bytes": torch.cuda.max_memory_allocated(device), "of": "tensors on the GPU"}
    try:
        import resource
    except ImportError:  # Windows
        return {}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"bytes": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "of": "process"}
