"""Depthwise gradients: every re-expression is the gradient that autograd gives."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffnas.kernels.depthwise import Source, depthwise, input_gradient, kernel_gradient, phases

SIDES = [(1, 1), (1, 8), (2, 3), (4, 4), (5, 6), (6, 8), (8, 8), (9, 7)]  # tiny, odd, even, and both routes of each


def draw(n: int, c: int, sides: tuple[int, int], k: int, stride: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """An image and the gradient to its outputs, in channels_last, and a kernel."""
    torch.manual_seed(n + c + k)
    x = torch.randn(n, c, *sides, dtype=dtype).to(memory_format=torch.channels_last)
    g = torch.randn(n, c, *(-(-side // stride) for side in sides), dtype=dtype).to(memory_format=torch.channels_last)
    return x, g, torch.randn(c, 1, k, k, dtype=dtype)


@pytest.mark.parametrize(("k", "stride", "dilation"), list(itertools.product((3, 5, 7), (1, 2), (1, 2))))
def test_gradients_are_those_of_autograd(k: int, stride: int, dilation: int, close) -> None:
    for sides, c, dtype in itertools.product(SIDES, (1, 3, 16), (torch.float64, torch.float32)):
        x, g, kernel = draw(2, c, sides, k, stride, dtype)
        exact = [t.double().requires_grad_() for t in (x, kernel)]
        y = F.conv2d(*exact, None, stride, dilation * (k // 2), dilation, c)
        to_x, to_kernel = torch.autograd.grad(y, exact, g.double())
        close(depthwise(x, kernel, stride, dilation), y.detach().to(dtype))
        close(input_gradient(g, x, kernel, stride, dilation), to_x.to(dtype))
        close(kernel_gradient(g, Source(x), kernel, stride, dilation), to_kernel.to(dtype))


def test_kernels_share_the_rearrangements_of_a_source(close) -> None:
    """Two kernels on one source: what the first left behind does not disturb the second."""
    source = Source(draw(2, 3, (8, 8), 3, 1, torch.float64)[0])
    for k, dilation in [(5, 1), (7, 1), (5, 2), (3, 2), (5, 1)]:
        _, g, kernel = draw(2, 3, (8, 8), k, 1, torch.float64)
        found = kernel_gradient(g, source, kernel, 1, dilation)
        close(found, kernel_gradient(g, Source(source.x.clone()), kernel, 1, dilation))


def test_phases_are_the_even_and_odd_rows_and_columns() -> None:
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    expected = torch.cat([x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)])
    assert torch.equal(phases(x), expected)
