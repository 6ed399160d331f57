"""1x1 convolutions with a stride, kept off a path of the CPU library that writes beyond its memory.

Where the stride divides the sides, oneDNN runs such a convolution on a copy of the pixels that it reads.  In the gradient to
the kernel, for images in channels_last with fewer channels than a block (8 with AVX2, 16 with AVX-512 and SVE), it steps
through that copy block by block although pixels lie closer, and so leaves it: a crash, or wrong numbers without one
(github.com/uxlfoundation/oneDNN, issue 6035; seen in torch 2.11, 2.13 and 2.15).  With AVX-512 small images may come out
right, where one step is all.

The same convolution of stride 1, on the pixels that count, never goes there: the values are the same, in any layout.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_BLOCK = 16  # with more channels the library's way is sound, and faster


class ThinnedConv2d(nn.Conv2d):
    """A 1x1 convolution, without padding or groups, that picks its pixels first where the library would go astray."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows, columns = self.stride
        learns = torch.is_grad_enabled() and weight.requires_grad
        if learns and input.shape[-2] % rows == 0 and input.shape[-1] % columns == 0:
            return F.conv2d(input[..., ::rows, ::columns], weight, bias)
        made: Tensor = super()._conv_forward(input, weight, bias)
        return made


def thin_strided(module: nn.Module) -> None:
    """Makes the convolutions in `module` that are in danger `ThinnedConv2d`; weights and names stay."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and not isinstance(layer, ThinnedConv2d) and _in_danger(layer):
            kind = type(layer)  # of a class of the user's: a class that does both
            layer.__class__ = ThinnedConv2d if kind is nn.Conv2d else type(kind.__name__, (ThinnedConv2d, kind), {})


def _in_danger(layer: nn.Conv2d) -> bool:
    pointwise = max(layer.kernel_size) == 1 and layer.groups == 1 and layer.padding in ((0, 0), "valid")
    return pointwise and max(layer.stride) > 1 and layer.in_channels < _BLOCK
