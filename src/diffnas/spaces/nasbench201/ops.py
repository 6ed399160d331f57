"""The ops of NAS-Bench-201; each maps [N, C, H, W] -> [N, C, H, W] (Dong and Yang, 2020, section 2.1).

Convolutions carry no bias.  Normalisations are affine in networks and not in supernets.  Sub-modules are numbered in the
order they run, which is also the order in the original code, so its weights map onto ours.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class Zero(nn.Module):
    """The op `none`: zeros, through which a zero gradient flows."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H, W]."""
        return x * 0.0


def convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, affine: bool = True, running: bool = True
) -> nn.Sequential:
    """ReLU, convolution, normalisation: [N, C_in, H, W] -> [N, C_out, H/stride, W/stride]."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs, affine=affine, track_running_stats=running),
    )


class Residual(nn.Module):
    """The halving of the resolution between stages: two convolutions beside a pooled shortcut, [.., H, W] -> [.., H/2, W/2].

    Its normalisations are affine in supernets too.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, 3, stride=2)
        self.second = convolution(outputs, outputs, 3)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C_in, H, W] -> [N, C_out, H/2, W/2]."""
        halved: Tensor = self.second(self.first(x)) + self.shortcut(x)
        return halved


OPS: dict[str, Callable[[int, bool, bool], nn.Module]] = {
    "none": lambda c, affine, running: Zero(),
    "skip_connect": lambda c, affine, running: nn.Identity(),
    "auxiliary_skip": lambda c, affine, running: nn.Identity(),
    "nor_conv_1x1": lambda c, affine, running: convolution(c, c, 1, affine=affine, running=running),
    "nor_conv_3x3": lambda c, affine, running: convolution(c, c, 3, affine=affine, running=running),
    "avg_pool_3x3": lambda c, affine, running: nn.AvgPool2d(3, 1, padding=1, count_include_pad=False),
}
"""`OPS[name](channels, affine, running)`; `running`: the normalisation keeps running statistics.  `auxiliary_skip` (DARTS-)
occurs in supernets only."""
