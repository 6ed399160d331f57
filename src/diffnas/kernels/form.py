"""Which kernels compute supernets on a device: compiled ones on a CPU, Triton's on a GPU, or PyTorch's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffnas.kernels import gpu, native

if TYPE_CHECKING:
    import torch


def form(device: torch.device) -> str:
    """`numba`, `triton` or `torch`."""
    if gpu.usable(device):
        return "triton"
    return native.form() if device.type == "cpu" else "torch"


def described(device: torch.device) -> str:
    """`form`, in words."""
    return native.described() if device.type == "cpu" and not gpu.usable(device) else gpu.described(device)
