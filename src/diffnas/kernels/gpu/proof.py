"""Whether the kernels compute on a device what they are to: all kinds of images and terms, once each."""

from __future__ import annotations

import torch
from torch import Tensor

from diffnas.kernels.gpu.flow import Flow, separable_backward, separable_forward
from diffnas.kernels.gpu.layout import COPY, MAX, MEAN, Image, Layout, Term

CHANNELS = 8
EVEN = {1: Image(COPY), 2: Image(offset=1)}
"""An image that is the same on all edges, by stride."""
TERMS = (
    Term(0, 0, point=1), Term(1, 1, 0, 3), Term(2, 0, 1, 6, half=1), Term(2, 1, 5, normed=False), Term(3, 0, 2),
    Term(3, 1, 3), Term(4, 1, 4), Term(5, 0, 6, 5),
)  # fmt: skip
SHAPES = ((8, 1, 3, 3), (8, 8), (8, 1, 5, 5), (8, 8), (8, 1, 5, 5), (8, 8), (4, 8))


def apart(device: torch.device) -> float:
    """The largest relative error of values and gradients on `device` in float32, by those of float64 on the CPU."""
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        found = [tensor for stride in EVEN for tensor in _found(device, torch.float32, stride)]
        true = [tensor for stride in EVEN for tensor in _found(torch.device("cpu"), torch.float64, stride)]
    errors = [(a.cpu().double() - b).norm() / b.norm() for a, b in zip(found, true, strict=True)]
    return float(torch.stack(errors).max())  # not a number, where one is not


def _found(device: torch.device, dtype: torch.dtype, stride: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64).to(device, dtype)

    x = drawn(3, 2 * CHANNELS, 6, 8).contiguous(memory_format=torch.channels_last)[:, :CHANNELS]
    weights = [drawn(*shape) for shape in SHAPES]
    images = Image(side=3, kernel=0), Image(side=5, dilation=2, kernel=2), EVEN[stride], Image(MAX), Image(MEAN)
    layout = Layout((*images, Image(side=5, kernel=4)), TERMS, 1, 2, CHANNELS, [w.numel() for w in weights])
    flow = Flow(layout, x, stride, layout.flat(weights, x), drawn(7), None, 1e-5, rows=48)
    out, between = separable_forward(flow, x)
    shares, dx, flat = separable_backward(flow, x, between, drawn(*out.shape), True, True, True)
    assert shares is not None and dx is not None and flat is not None
    return [out, shares, dx, *layout.apart(flat, weights)]
