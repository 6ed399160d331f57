"""Kernels for GPUs, in Triton: few launches for all that leaves a state (`layout` says what that is, `flow` in which order).

`ops` has the kernels as PyTorch's operations, `reference` what they compute, in its own terms.  `launch` starts them;
`stencils`, `algebra` and `products` hold them, and alone need Triton.  The environment variable DIFFNAS_KERNELS leaves them
out (`torch`), or has the same order of computation on every device (`triton`; by `reference` where there is no GPU).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

from diffnas.kernels.gpu.layout import CHANNELS

APART = 1e-2  # the largest relative error, where products may be rounded to TF32


def usable(device: torch.device) -> bool:
    """Whether supernets on `device` are computed in this form."""
    wanted = os.environ.get("DIFFNAS_KERNELS")
    if device.type != "cuda":
        return wanted == "triton"
    return wanted != "torch" and lack(device) is None


def fits(x: Tensor, weights: Iterable[Tensor]) -> bool:
    """Whether a state `x` [N, C, H, W] and the `weights` of what leaves it are numbers that there are kernels for."""
    precisions = {weight.dtype for weight in weights}
    known = {torch.float32} if x.device.type == "cuda" else {torch.float32, torch.float64}
    return (
        x.dtype.is_floating_point
        and (x.device.type != "cuda" or x.element_size() <= 4)
        and x.numel() > 0
        and x.shape[1] <= CHANNELS
        and len(precisions) <= 1
        and precisions <= known
        and usable(x.device)
    )


def described(device: torch.device) -> str:
    """What computes supernets on a GPU, in words."""
    if usable(device) and device.type == "cuda":
        return f"Triton kernels (triton {import_module('triton').__version__})"
    if usable(device):
        return "torch in the order of the Triton kernels"
    return "torch alone: " + ((lack(device) if device.type == "cuda" else None) or "DIFFNAS_KERNELS=torch")


@functools.cache
def lack(device: torch.device) -> str | None:
    """Why there are no kernels for a GPU; None where there are, and compute on it what `reference` does."""
    if find_spec("triton") is None:
        return "triton is not installed"
    try:
        from diffnas.kernels.gpu.proof import apart

        found = apart(device)
    except Exception as error:  # noqa: BLE001 (a Triton that does not know this GPU fails in its own ways)
        first = str(error).partition("\n")[0]
        return f"triton compiles nothing for this GPU ({type(error).__name__}: {first})"
    return None if found < APART else f"triton's kernels are {found:.0e} from what they are to compute on this GPU"
