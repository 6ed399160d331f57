"""Depthwise "same" convolutions and their two gradients, each by the fastest exact route the device has.

On a CPU the library's own backward is slow wherever a kernel is wider than three columns, dilated or strided (it leaves its
depthwise code for a general one, ten times slower).  These re-expressions stay on the fast path:

    gradient to the input    the forward convolution with the flipped kernel
    stride 2                 the undilated case on a gradient with zeros put between its pixels
    dilation 2               the undilated case on the four phase images (even and odd rows and columns)
    kernels of 5, 7 columns  three columns at a time, on shifted images

Images are [N, C, H, W] in channels_last, kernels [C, 1, k, k] with k odd; padding is dilation * (k - 1) / 2.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_SMALLEST = 4  # below this side shifts and phases would run out of image


def depthwise(x: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """[N, C, H, W] -> [N, C, ceil(H / stride), ceil(W / stride)]."""
    padding = dilation * (kernel.shape[-1] // 2)
    return F.conv2d(x, kernel, None, stride, padding, dilation, x.shape[1])


def input_gradient(g: Tensor, x: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """The gradient to `x` [N, C, H, W] from the gradient `g` to `depthwise(x, kernel, stride, dilation)`."""
    if g.device.type != "cpu":
        return _library(g, x, kernel, stride, dilation, (True, False))
    return depthwise(_unstrided(g, x, stride), kernel.flip(2, 3), 1, dilation)


def kernel_gradient(g: Tensor, x: Tensor, kernel: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """The gradient to `kernel` [C, 1, k, k] from the gradient `g` to `depthwise(x, kernel, stride, dilation)`."""
    height, width = x.shape[2:]
    fits = dilation == 1 or (dilation == 2 and height % 2 == width % 2 == 0)
    if g.device.type != "cpu" or not fits or min(height, width) < _SMALLEST * dilation:
        return _library(g, x, kernel, stride, dilation, (False, True))
    g = _unstrided(g, x, stride)
    if dilation == 2:
        g, x = phases(g), phases(x)
    return _columns(g, x, kernel)


def phases(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [4 N, C, H/2, W/2]: the images of the even and odd rows and columns, each a batch."""
    n, c, h, w = x.shape
    split = x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c)
    return split.permute(2, 4, 0, 1, 3, 5).reshape(4 * n, h // 2, w // 2, c).permute(0, 3, 1, 2)


def _columns(g: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
    """The undilated kernel gradient, three columns of the kernel at a time (neighbouring triples share a column)."""
    size = kernel.shape[-1]
    if size <= 3:
        return _library(g, x, kernel, 1, 1, (False, True))
    found = torch.empty_like(kernel)
    room = size // 2 - 1  # as far as any triple is shifted, so that no pixel falls off the border
    g = F.pad(g, (room, room))
    for first in range(0, size - 2, 2):
        shift = first - room
        moved = F.pad(x, (room - shift, room + shift))
        found[..., first : first + 3] = _library(g, moved, kernel[..., first : first + 3], 1, 1, (False, True))
    return found


def _unstrided(g: Tensor, x: Tensor, stride: int) -> Tensor:
    """`g` as the gradient of the convolution of stride 1: zeros at the outputs that the stride leaves out."""
    if stride == 1:
        return g
    spread = torch.zeros_like(x)
    spread[:, :, ::stride, ::stride] = g
    return spread


def _library(g: Tensor, x: Tensor, kernel: Tensor, stride: int, dilation: int, wanted: tuple[bool, bool]) -> Tensor:
    """The library's backward: the gradient to the input or to the kernel, as `wanted` says."""
    padding = [dilation * (side // 2) for side in kernel.shape[-2:]]
    found = torch.ops.aten.convolution_backward(
        g, x, kernel, None, [stride] * 2, padding, [dilation] * 2, False, [0, 0], x.shape[1], [*wanted, False]
    )
    return found[0] if wanted[0] else found[1]
