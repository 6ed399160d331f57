"""Tensors of numbers that the host knows, put on a device once."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@lru_cache(maxsize=4096)
def constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The tensor of `values`, numbers or tuples of them; kept, so never write to it.

    A tensor that is made from numbers in every step is copied to a GPU in every step.
    """
    with torch.inference_mode(False):
        return to_device(torch.tensor(values, dtype=dtype), device)


def to_device(made: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """`made`, a tensor of the host, on `device`; a GPU takes it without waiting for what it has yet to do."""
    return made.to(device, dtype, non_blocking=True)
