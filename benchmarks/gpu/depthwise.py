"""Depthwise convolutions alone, forward and backward: PyTorch's own in NCHW, the library's in NHWC, and Triton's.

Triton's kernels take the ReLU and the moments of what they make along.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gpu.context import Context, Result, Results, each
from benchmarks.gpu.forms import lack
from benchmarks.gpu.timing import captured, seconds_each
from diffnas.kernels.gpu.flow import Flow
from diffnas.kernels.gpu.layout import Image, Layout, Term, parts

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
                without = lack("triton", context.device)
                by_triton = partial(_timed_triton, context, shape, kernel, dtype)
                yield what | {"form": "triton"}, without if without else by_triton


def _timed(context: Context, shape: tuple[int, int, int], kernel: int, dtype: torch.dtype, layout: str) -> Result:
    images, channels, side = shape
    draw = partial(torch.randn, device=context.device, dtype=dtype)
    x, g = (draw(images, channels, side, side).contiguous(memory_format=LAYOUTS[layout]) for _ in range(2))
    weight = draw(channels, 1, kernel, kernel)

    def forward() -> None:
        F.conv2d(x, weight, padding=kernel // 2, groups=channels)

    def backward() -> None:
        _gradients(g, x, weight, kernel // 2)

    return _both(context, x, forward, backward)


def _timed_triton(context: Context, shape: tuple[int, int, int], kernel: int, dtype: torch.dtype) -> Result:
    images, c, side = shape
    draw = partial(torch.randn, device=context.device)
    x = draw(images, c, side, side, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weights = [draw(c, 1, kernel, kernel), draw(c, c, 1, 1)]
    layout = Layout([Image(side=kernel, kernel=0)], [Term(0, 0, 0, 1)], 0, 1, c, [weight.numel() for weight in weights])
    flow = Flow(layout, x, 1, layout.flat(weights, weights[0]), draw(1), None, 1e-5)
    slope, source = torch.randn_like(flow.d), flow.source(x)
    runs = draw(parts(flow.pixels, flow.rows), layout.taps)

    def forward() -> None:
        flow.make(source, None, 0, 1, 1)

    def backward() -> None:
        flow.kernel_slopes(slope, source, None, 0, 1, runs)
        runs.sum(0)
        flow.state_slope(slope, source, None, 0, 1)

    return _both(context, x, forward, backward)


def _both(context: Context, x: Tensor, forward: Callable[[], None], backward: Callable[[], None]) -> Result:
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
