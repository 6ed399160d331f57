"""Running statistics that move many at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def require_statistics(count: int) -> None:
    """Raises `ValueError` where one pixel is all there is, as `nn.BatchNorm2d` does."""
    if count < 2:
        raise ValueError("a batch of one image of one pixel has no statistics to normalise by")


class RunningStatsUpdates:
    """Steps of running statistics, taken all at once at the end of a pass."""

    def __init__(self) -> None:
        self.layers: list[nn.BatchNorm2d] = []
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.means: list[Tensor] = []
        self.variances: list[Tensor] = []

    def add(self, layers: Sequence[nn.BatchNorm2d], mean: Tensor, var: Tensor, count: int) -> None:
        """Notes the batch's `mean` and `var` [w, C] over `count` pixels, where the layers keep running statistics."""
        require_statistics(count)
        if layers[0].track_running_stats:
            unbiased = var * (count / (count - 1))
            for layer, row, variance in zip(layers, mean.unbind(), unbiased.unbind(), strict=True):
                self.note(layer, row, variance)

    def note(self, layer: nn.BatchNorm2d, mean: Tensor, var: Tensor, half: int | None = None) -> None:
        """Notes the batch's `mean` and unbiased `var` [C]; where `half` is 0 or 1, of the first or second half of channels."""
        kept = layer.get_buffer("running_mean"), layer.get_buffer("running_var")
        self.kept.append(kept if half is None else (kept[0].chunk(2)[half], kept[1].chunk(2)[half]))
        self.means.append(mean)
        self.variances.append(var)
        if half != 1:
            self.layers.append(layer)

    def take(self) -> None:
        """Moves the running statistics as `nn.BatchNorm2d` does."""
        if not self.layers:
            return
        step = self.layers[0].momentum
        assert step is not None  # a mean over all batches instead; no supernet is built so
        torch._foreach_lerp_([mean for mean, _ in self.kept], self.means, step)
        torch._foreach_lerp_([var for _, var in self.kept], self.variances, step)
        torch._foreach_add_([layer.get_buffer("num_batches_tracked") for layer in self.layers], 1)
