"""Tensors of numbers that the host knows, put on a device once."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@lru_cache(maxsize=4096)
def constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns the tensor of `values`, numbers or tuples of them; it is cached, so never write to it.

    A tensor that is made from numbers in every step is copied to a GPU in every step.
    """
    with torch.inference_mode(False):
        return to_device(torch.tensor(values, dtype=dtype), device)


def to_device(made: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Moves `made`, a tensor of the host, to `device`, without waiting for the work that a GPU has queued."""
    return made.to(device, dtype, non_blocking=True)
