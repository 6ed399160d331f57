"""The kernels as operations that PyTorch knows: of Triton on a GPU, by `reference` elsewhere, nothing on `meta`.

Each is one launch.  They write to their last arguments and return nothing; what they do is written in `reference`.
"""

from __future__ import annotations

import contextlib
import os
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from diffnas.kernels.gpu import reference


def by_triton(device: torch.device) -> bool:
    """Whether Triton computes on `device`; on a CPU its interpreter does, where TRITON_INTERPRET=1 asks for it."""
    return device.type == "cuda" or (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1")


def _form(like: Tensor) -> ModuleType:
    if not by_triton(like.device):
        return reference
    from diffnas.kernels.gpu import launch

    return launch


def _run(name: str, like: Tensor, *others: Any) -> None:
    """Calls a function of that form with a tensor and its other arguments."""
    with torch.cuda.device(like.device) if like.is_cuda else contextlib.nullcontext():
        getattr(_form(like), name)(like, *others)


@torch.library.custom_op("diffnas::expand", mutates_args=("d", "where", "means", "squares"))
def expand(
    x: Tensor,
    shift: Tensor | None,
    flat: Tensor,
    images: Tensor,
    stride: int,
    rows: int,
    d: Tensor,
    where: Tensor,
    means: Tensor,
    squares: Tensor,
) -> None:
    """Makes images and their statistics."""
    _run("expand", x, shift, flat, images, stride, rows, d, where, means, squares)


@torch.library.custom_op("diffnas::fold", mutates_args=("matrices", "vectors"))
def fold(
    means: Tensor,
    squares: Tensor,
    flat: Tensor,
    terms: Tensor,
    shares: Tensor,
    given: Tensor | None,
    first: int,
    last: int,
    first_image: int,
    pixels: int,
    rows: int,
    eps: float,
    matrices: Tensor,
    vectors: Tensor,
) -> None:
    """Makes the maps of terms."""
    _run(
        "fold",
        means,
        squares,
        flat,
        terms,
        shares,
        given,
        first,
        last,
        first_image,
        pixels,
        rows,
        eps,
        matrices,
        vectors,
    )


@torch.library.custom_op("diffnas::mix", mutates_args=("out",))
def mix(d: Tensor, matrices: Tensor, vectors: Tensor, terms: Tensor, edges: Tensor, out: Tensor) -> None:
    """Sums up what the terms of each edge make of their images."""
    _run("mix", d, matrices, vectors, terms, edges, out)


@torch.library.custom_op("diffnas::products", mutates_args=("outer", "totals"))
def products(
    g: Tensor, d: Tensor, vectors: Tensor, terms: Tensor, first: int, rows: int, outer: Tensor, totals: Tensor
) -> None:
    """Sums products of gradients and images over runs of pixels."""
    _run("products", g, d, vectors, terms, first, rows, outer, totals)


@torch.library.custom_op("diffnas::pull", mutates_args=("matrices", "vectors", "to_flat", "to_shares"))
def pull(
    outer: Tensor,
    totals: Tensor,
    flat: Tensor,
    terms: Tensor,
    shares: Tensor,
    given: Tensor | None,
    first: int,
    pixels: int,
    matrices: Tensor,
    vectors: Tensor,
    to_flat: Tensor,
    to_shares: Tensor,
) -> None:
    """The way back of `fold`."""
    _run("pull", outer, totals, flat, terms, shares, given, first, pixels, matrices, vectors, to_flat, to_shares)


@torch.library.custom_op("diffnas::slopes", mutates_args=("out",))
def slopes(
    g: Tensor, d: Tensor, matrices: Tensor, vectors: Tensor, images: Tensor, terms: Tensor, first: int, out: Tensor
) -> None:
    """The gradients to images."""
    _run("slopes", g, d, matrices, vectors, images, terms, first, out)


@torch.library.custom_op("diffnas::kernel_slopes", mutates_args=("out",))
def kernel_slopes(
    slope: Tensor, x: Tensor, shift: Tensor | None, images: Tensor, stride: int, rows: int, taps: int, out: Tensor
) -> None:
    """The gradients to depthwise kernels, run by run of pixels."""
    _run("kernel_slopes", slope, x, shift, images, stride, rows, taps, out)


@torch.library.custom_op("diffnas::state_slope", mutates_args=("out",))
def state_slope(
    slope: Tensor,
    x: Tensor,
    shift: Tensor | None,
    where: Tensor,
    flat: Tensor,
    images: Tensor,
    stride: int,
    out: Tensor,
) -> None:
    """The gradient to sources."""
    _run("state_slope", slope, x, shift, where, flat, images, stride, out)


for _operation in (expand, fold, mix, products, pull, slopes, kernel_slopes, state_slope):
    _operation.register_fake(lambda *args: None)
