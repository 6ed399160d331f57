"""Depthwise "same" convolutions and their two gradients, each by the fastest exact route the device has.

On a CPU the library's own backward is slow wherever a kernel is wider than three columns or dilated (it leaves its depthwise
code for a general one, ten times slower).  These re-expressions stay on the fast path:

    gradient to the input    the forward convolution with the flipped kernel (for stride 2, on a gradient with zeros
                             between its pixels)
    dilation 2               the undilated case on the four phase images (even and odd rows and columns)
    kernels of 5, 7 columns  three columns at a time, on shifted images

Images are [N, C, H, W] in channels_last, kernels [C, 1, k, k] with k odd; padding is dilation * (k - 1) / 2.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F


class Source:
    """An image [N, C, H, W] that convolutions read, and its re-arrangements, each made once."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self._shifted: dict[int, Tensor] = {}

    @cached_property
    def phases(self) -> Source:
        """Its four phase images."""
        return Source(phases(self.x))

    def shifted(self, columns: int) -> Tensor:
        """[N, C, H, W + 2]: what a kernel of 3 columns without padding reads to stand `columns` off the middle."""
        if columns not in self._shifted:
            self._shifted[columns] = F.pad(self.x, (1 - columns, 1 + columns))
        return self._shifted[columns]


def depthwise(x: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """[N, C, H, W] -> [N, C, ceil(H / stride), ceil(W / stride)]."""
    padding = dilation * (kernel.shape[-1] // 2)
    return F.conv2d(x, kernel, None, stride, padding, dilation, x.shape[1])


def input_gradient(g: Tensor, x: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """The gradient to `x` [N, C, H, W] from the gradient `g` to `depthwise(x, kernel, stride, dilation)`."""
    if g.device.type != "cpu" or (stride > 1 and dilation == 1):
        return _library(g, x, kernel, stride, dilation, _same(kernel, dilation), (True, False))
    return depthwise(_unstrided(g, x, stride), kernel.flip(2, 3), 1, dilation)


def kernel_gradient(g: Tensor, source: Source, kernel: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """The gradient to `kernel` [C, 1, k, k] from the gradient `g` to `depthwise(source.x, kernel, stride, dilation)`."""
    x = source.x
    height, width = x.shape[2:]
    fits = dilation == 1 or (dilation == 2 and height % 2 == width % 2 == 0)
    if g.device.type != "cpu" or (stride > 1 and dilation == 1) or not fits:
        return _library(g, x, kernel, stride, dilation, _same(kernel, dilation), (False, True))
    g = _unstrided(g, x, stride)
    if dilation == 2:
        g, source = phases(g), source.phases
    return _by_columns(g, source, kernel)


def phases(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [4 N, C, H/2, W/2]: the images of the even and odd rows and columns, each a batch."""
    n, c, h, w = x.shape
    split = x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c)
    return split.permute(2, 4, 0, 1, 3, 5).reshape(4 * n, h // 2, w // 2, c).permute(0, 3, 1, 2)


def _by_columns(g: Tensor, source: Source, kernel: Tensor) -> Tensor:
    """The undilated kernel gradient, three columns of the kernel at a time (neighbouring triples share a column)."""
    size = kernel.shape[-1]
    if size <= 3:
        return _library(g, source.x, kernel, 1, 1, _same(kernel), (False, True))
    found = torch.empty_like(kernel)
    for first in range(0, size - 2, 2):
        triple = kernel[..., first : first + 3]
        shifted = source.shifted(first + 1 - size // 2)
        found[..., first : first + 3] = _library(g, shifted, triple, 1, 1, [size // 2, 0], (False, True))
    return found


def _unstrided(g: Tensor, x: Tensor, stride: int) -> Tensor:
    """`g` as the gradient of the convolution of stride 1: zeros at the outputs that the stride leaves out."""
    if stride == 1:
        return g
    spread = torch.zeros_like(x)
    spread[:, :, ::stride, ::stride] = g
    return spread


def _same(kernel: Tensor, dilation: int = 1) -> list[int]:
    return [dilation * (side // 2) for side in kernel.shape[-2:]]


def _library(
    g: Tensor, x: Tensor, kernel: Tensor, stride: int, dilation: int, padding: list[int], wanted: tuple[bool, bool]
) -> Tensor:
    """The library's backward: the gradient to the input or to the kernel, as `wanted` says."""
    found = torch.ops.aten.convolution_backward(
        g, x, kernel, None, [stride] * 2, padding, [dilation] * 2, False, [0, 0], x.shape[1], [*wanted, False]
    )
    slope: Tensor = found[0] if wanted[0] else found[1]
    return slope
