"""Full float32 where a number is the difference of two passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Runs a block in which a GPU computes float32 as such, not as TF32, which has 10 bits of the 23.

    Convolutions take TF32 by PyTorch's default.  The settings are read and put back by one interface, since PyTorch refuses
    to answer through the older one (`allow_tf32`) what was set through the newer.
    """
    parts = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [part.fp32_precision for part in parts]
    try:
        for part in parts:
            part.fp32_precision = "ieee"
        yield
    finally:
        for part, precision in zip(parts, before, strict=True):
            part.fp32_precision = precision
