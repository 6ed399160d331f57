"""The device of a run, and the memory format of its tensors."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.deterministic
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


@contextmanager
def deterministic(asked: bool) -> Iterator[None]:
    """Runs a block in which torch, where that is `asked`, takes only algorithms that give equal bits each time.

    cuBLAS reads its setting when it is first used, so it stays; torch raises where an operation has no such algorithm.
    """
    if not asked:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn, memory = torch.backends.cudnn, torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    settings = cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    memory.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory = settings  # type: ignore[attr-defined]


def no_deterministic(error: BaseException) -> str | None:
    """Returns the operation that has no deterministic algorithm, where that is what `error` says."""
    text = str(error)
    known = isinstance(error, RuntimeError) and "does not have a deterministic implementation" in text
    return text.split()[0] if known else None


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
