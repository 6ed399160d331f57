"""Batch normalisation by the statistics of all processes, on every device and in every precision.

PyTorch's own layer for it needs GPUs, and cannot be differentiated twice.  With sums over the samples of all processes,

    mean = sum x / n        var = sum (x - mean)^2 / n        y = (x - mean) / sqrt(var + eps)

and the gradient of a sum over processes is the sum of their gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import override

from diffnas.core.parts import current
from diffnas.runtime.distributed import world


class _Total(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs, again by this function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return world().add(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        total: Tensor = _Total.apply(grad)
        return total


class OverAll(_BatchNorm):
    """What a layer of batch normalisation becomes when its statistics are those of the whole batch."""

    over_all = True

    @override
    def _check_input_dim(self, input: Tensor) -> None:
        """Takes what the layer took that it was."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        """[N, C, ...] -> [N, C, ...]."""
        part = current()
        if part is None or not (self.training or self.running_mean is None):
            return super().forward(input)
        dims = [dim for dim in range(input.dim()) if dim != 1]
        exact = torch.promote_types(input.dtype, torch.float32)
        counts = 1.0 if part.count else 0.0
        x = input.to(exact)
        pixels = x.numel() // x.shape[1]
        sums = torch.cat([x.sum(dims) * counts, x.new_full((1,), pixels * counts)])
        totals: Tensor = _Total.apply(sums)
        n = totals[-1].detach()
        shape = (1, -1, *(1,) * (input.dim() - 2))
        centred = x - (totals[:-1] / n).view(shape)
        squares: Tensor = _Total.apply((centred * centred).sum(dims) * counts)
        if self.training and self.track_running_stats:
            self._move(totals[:-1].detach() / n, squares.detach() / (n - 1).clamp_min(1.0))
        y = centred * (squares / n + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)

    @torch.no_grad()
    def _move(self, mean: Tensor, var: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        rate = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), rate)
        self.running_var.lerp_(var.to(self.running_var), rate)


def over_all(module: nn.Module) -> nn.Module:
    """Makes every layer of batch normalisation in `module` one over all processes; names and weights stay."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            layer.__class__ = OverAll  # so that hooks, names and whoever holds the layer stay as they are
    return module
