"""Full float32 where a number is the difference of two passes, and the scaling of losses in float16."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from diffnas.engine.noise import noise_of, set_noise

T = TypeVar("T")


class LossScale:
    """The factor of a loss in float16, whose small gradients would be 0 without: 2^16, halved whenever one is not finite.

    Other precisions have the factor 1.  A batch whose gradients are not finite is computed again, with the same random
    numbers, so no step is left out.
    """

    def __init__(self, precision: torch.dtype) -> None:
        self.value = 2.0**16 if precision == torch.float16 else 1.0

    def found(self, compute: Callable[[float], tuple[T, list[Tensor]]], device: torch.device) -> tuple[T, list[Tensor]]:
        """What `compute` makes with a loss times its argument, and its gradients divided by that again."""
        while self.value > 1.0:
            noise = noise_of(device)
            kept, grads = compute(self.value)
            if finite(grads):
                return kept, list(torch._foreach_div(grads, self.value)) if grads else grads
            set_noise(device, noise)
            self.value /= 2.0
        return compute(1.0)


def finite(tensors: Sequence[Tensor]) -> bool:
    """Whether all of `tensors` are finite; read back to the host."""
    return not tensors or bool(torch.stack([t.isfinite().all() for t in tensors]).all())


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
