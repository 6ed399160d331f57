"""The ops of the DARTS space; each maps [N, C, H, W] -> [N, C, H/stride, W/stride] (Liu et al., 2019, section 3.1).

Convolutions carry no bias.  Normalisations are affine in evaluation networks and not in supernets.  Sub-modules are
numbered in the order they run, which is also the order in the original code, so its weights map onto ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from diffnas.core.parts import drawn
from diffnas.kernels.strided import thin_strided
from diffnas.spaces.darts_cnn.layout import CellPlan

PoolNorm = Literal["none", "plain", "affine"]
"""What follows a pooling op: nothing (evaluation networks), a normalisation without affine parameters (supernets), or
with them (MMRazor)."""


class ReLUConvBN(nn.Sequential):
    """ReLU, convolution, normalisation: [N, C_in, H, W] -> [N, C_out, H/stride, W/stride]."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, affine: bool = True) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, affine=affine),
        )


class FactorizedReduce(nn.Module):
    """Halves the resolution by two 1x1 convolutions, one on the even pixels and one on the odd: [.., H, W] -> [.., H/2, W/2].

    Height, width and `outputs` must be even.
    """

    def __init__(self, inputs: int, outputs: int, affine: bool = True) -> None:
        super().__init__()
        if outputs % 2:
            raise ValueError(f"halving the resolution needs an even number of channels, not {outputs}")
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=affine)
        thin_strided(self)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C_in, H, W] -> [N, C_out, H/2, W/2]; raises `ValueError` where H or W is odd."""
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"halving the resolution needs even sides, not {x.shape[2]} x {x.shape[3]}")
        x = self.relu(x)
        made: Tensor = self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))
        return made


class Zero(nn.Module):
    """The op `none`: zeros, through which a zero gradient flows."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H/stride, W/stride]."""
        return x[:, :, :: self.stride, :: self.stride] * 0.0


class Noise(nn.Module):
    """The op `noise` of space S4: standard normal numbers in place of the input (Zela et al., 2020, section 3)."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, H/stride, W/stride], from torch's global generator."""
        seen = torch.empty_like(x[:, :, :: self.stride, :: self.stride])

        def noise(shape: tuple[int, ...]) -> Tensor:  # numbers follow one another as in memory
            return torch.randn_like(seen.new_empty_strided(shape, seen.stride()))

        return drawn(noise, tuple(seen.shape))


class SkipDropout(nn.Module):
    """A skip connection that drops single numbers while training, with probability `rate` [] (P-DARTS, section 3.3)."""

    rate: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> the same, what is kept scaled up."""
        if self.rate is None or not self.training:
            return x
        keep = (1.0 - self.rate).to(x.dtype)
        return x * drawn(lambda shape: torch.bernoulli(keep.expand(shape)), tuple(x.shape)) / keep


def _depthwise(channels: int, kernel: int, stride: int, dilation: int, affine: bool) -> list[nn.Module]:
    padding = dilation * (kernel - 1) // 2
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    ]


def separable(channels: int, kernel: int, stride: int, affine: bool) -> nn.Module:
    """A depthwise separable convolution applied twice; the first of the two has the stride."""
    first = _depthwise(channels, kernel, stride, 1, affine)
    return nn.Sequential(*first, *_depthwise(channels, kernel, 1, 1, affine))


def dilated(channels: int, kernel: int, stride: int, affine: bool) -> nn.Module:
    """A depthwise separable convolution of dilation 2, applied once."""
    return nn.Sequential(*_depthwise(channels, kernel, stride, 2, affine))


def skip(channels: int, stride: int, affine: bool) -> nn.Module:
    """The identity, or `FactorizedReduce` where the stride is 2."""
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)


def conv_7x1_1x7(channels: int, stride: int, affine: bool) -> nn.Module:
    """A 1x7 convolution, then a 7x1, and one normalisation (AmoebaNet)."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False),
        nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


def pool(kind: Literal["max", "avg"], channels: int, stride: int, norm: PoolNorm) -> nn.Module:
    """3x3 pooling, padding left out of the mean, followed by what `norm` says."""
    layer: nn.Module = nn.MaxPool2d(3, stride, padding=1)
    if kind == "avg":
        layer = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    return layer if norm == "none" else nn.Sequential(layer, nn.BatchNorm2d(channels, affine=norm == "affine"))


Build = Callable[[int, int, bool, PoolNorm], nn.Module]

OPS: dict[str, Build] = {
    "none": lambda c, s, affine, norm: Zero(s),
    "max_pool_3x3": lambda c, s, affine, norm: pool("max", c, s, norm),
    "avg_pool_3x3": lambda c, s, affine, norm: pool("avg", c, s, norm),
    "skip_connect": lambda c, s, affine, norm: skip(c, s, affine),
    "auxiliary_skip": lambda c, s, affine, norm: skip(c, s, affine),
    "noise": lambda c, s, affine, norm: Noise(s),
    "sep_conv_3x3": lambda c, s, affine, norm: separable(c, 3, s, affine),
    "sep_conv_5x5": lambda c, s, affine, norm: separable(c, 5, s, affine),
    "sep_conv_7x7": lambda c, s, affine, norm: separable(c, 7, s, affine),
    "dil_conv_3x3": lambda c, s, affine, norm: dilated(c, 3, s, affine),
    "dil_conv_5x5": lambda c, s, affine, norm: dilated(c, 5, s, affine),
    "conv_7x1_1x7": lambda c, s, affine, norm: conv_7x1_1x7(c, s, affine),
}
"""`OPS[name](channels, stride, affine, pool_norm)`; `sep_conv_7x7` and `conv_7x1_1x7` occur in published cells only,
`auxiliary_skip` (DARTS-) and `noise` (S4) in supernets."""


def preprocess(plan: CellPlan, affine: bool) -> nn.ModuleList:
    """Builds one module per input of the cell: a 1x1 convolution, or a halving where the input is twice as large."""
    layers: list[nn.Module] = []
    for width, halvings in plan.inputs:
        if halvings > 1:
            raise ValueError("inputs: a cell cannot read across two reductions; use fewer inputs or more layers")
        fit = FactorizedReduce if halvings else ReLUConvBN
        layers.append(fit(width, plan.channels, affine=affine))
    return nn.ModuleList(layers)
