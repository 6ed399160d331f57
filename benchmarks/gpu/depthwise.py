"""Depthwise convolutions alone, forward and backward: PyTorch's own in NCHW, the library's in NHWC, and Triton."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gpu.context import Context, Result, Results, each
from benchmarks.gpu.forms import NO_TRITON
from benchmarks.gpu.timing import captured, seconds_each

SHAPES = ((64, 16, 32), (64, 32, 16), (64, 64, 8))  # images, channels, side: the cells of DARTS at batch 64
REPEATS = 100  # calls in one graph
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}


def run(context: Context) -> Results:
    """Microseconds a call, and the bandwidth if each image were read or written once."""
    yield from each(_cases(context))


def _cases(context: Context) -> Iterator[tuple[Result, Callable[[], Result] | str]]:
    shapes = ((2, 4, 8),) if context.tiny else SHAPES
    for dtype in (torch.float32, torch.bfloat16):
        for shape in shapes:
            for kernel in (3, 5):
                what = {"type": str(dtype)[6:], "shape": list(shape), "kernel": kernel}
                for layout in LAYOUTS:
                    yield what | {"form": layout}, partial(_timed, context, shape, kernel, dtype, layout)
                yield what | {"form": "triton"}, NO_TRITON


def _timed(context: Context, shape: tuple[int, int, int], kernel: int, dtype: torch.dtype, layout: str) -> Result:
    images, channels, side = shape
    draw = partial(torch.randn, device=context.device, dtype=dtype)
    x, g = (draw(images, channels, side, side).contiguous(memory_format=LAYOUTS[layout]) for _ in range(2))
    weight = draw(channels, 1, kernel, kernel)

    def forward() -> None:
        F.conv2d(x, weight, padding=kernel // 2, groups=channels)

    def backward() -> None:
        _gradients(g, x, weight, kernel // 2)

    found: Result = {}
    for name, call, passes in (("forward", forward, 2), ("backward", backward, 4)):
        seconds = _seconds(context, call)
        found[f"{name}_us"] = 1e6 * seconds
        found[f"{name}_gb_per_s"] = passes * x.nbytes / seconds / 1e9
    return found


def _gradients(g: Tensor, x: Tensor, weight: Tensor, padding: int) -> None:
    torch.ops.aten.convolution_backward(
        g, x, weight, None, [1, 1], [padding] * 2, [1, 1], False, [0, 0], x.shape[1], [True, True, False]
    )


def _seconds(context: Context, call: Callable[[], None]) -> float:
    """The seconds of a call, a graph's where there are graphs: a launch alone costs more than the smallest of them."""

    def calls() -> None:
        for _ in range(REPEATS if context.cuda else 1):
            call()

    step = captured(calls) if context.cuda else calls
    return statistics.median(seconds_each(step, context, 10, 0.5)) / (REPEATS if context.cuda else 1)
