"""Starts the kernels: the functions of `reference` for tensors on a GPU, with as many programs as there is to do."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffnas.kernels.gpu import algebra, stencils
from diffnas.kernels.gpu import products as pixels
from diffnas.kernels.gpu.layout import parts, pixel_step

OPTIONS = {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}
HELD = 1024  # numbers of an image that a program has in hand: a block of pixels by all channels


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
    """See `reference.expand`."""
    grid = means.shape[0], len(d)
    stencils.expand[grid](
        x, flat if shift is None else shift, flat, images, d, where, means, squares, d.shape[1],
        *_sides(x, stride), stride, rows, shift is not None, **_sizes(d, flat),
    )  # fmt: skip


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
    """See `reference.fold`."""
    runs, images, c = means.shape
    algebra.fold[(last - first,)](
        means, squares, flat, terms, shares, flat if given is None else given, matrices, vectors, vectors.shape[1],
        images, first, first_image, pixels, rows, runs, eps, given is not None, **_matrix(c, flat), R=16,
    )  # fmt: skip


def mix(d: Tensor, matrices: Tensor, vectors: Tensor, terms: Tensor, edges: Tensor, out: Tensor) -> None:
    """See `reference.mix`."""
    sizes = _sizes(out, matrices)
    grid = parts(out.shape[1], sizes["B"]), len(out)
    pixels.mix[grid](d, matrices, vectors, terms, edges, out, out.shape[1], vectors.shape[1], **sizes)


def products(
    g: Tensor, d: Tensor, vectors: Tensor, terms: Tensor, first: int, rows: int, outer: Tensor, totals: Tensor
) -> None:
    """See `reference.products`."""
    pixels.products[totals.shape[:2]](
        g, d, vectors, terms, outer, totals, d.shape[1], vectors.shape[1], first, rows, **_sizes(d, vectors)
    )


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
    """See `reference.pull`."""
    runs, n, c = totals.shape
    algebra.pull[(n,)](
        outer, totals, flat, terms, shares, flat if given is None else given, matrices, vectors, to_flat, to_shares,
        vectors.shape[1], n, first, pixels, runs, given is not None, len(to_flat) > 0, len(to_shares) > 0,
        **_matrix(c, flat),
    )  # fmt: skip


def slopes(
    g: Tensor, d: Tensor, matrices: Tensor, vectors: Tensor, images: Tensor, terms: Tensor, first: int, out: Tensor
) -> None:
    """See `reference.slopes`."""
    sizes = _sizes(out, matrices)
    grid = parts(out.shape[1], sizes["B"]), len(out)
    pixels.slopes[grid](g, d, matrices, vectors, images, terms, out, out.shape[1], vectors.shape[1], first, **sizes)


def kernel_slopes(
    slope: Tensor, x: Tensor, shift: Tensor | None, images: Tensor, stride: int, rows: int, taps: int, out: Tensor
) -> None:
    """See `reference.kernel_slopes`."""
    stencils.kernel_slopes[(len(out), len(slope), taps)](
        slope, x, out if shift is None else shift, images, out, slope.shape[1],
        *_sides(x, stride), stride, rows, out.shape[1], shift is not None, **_sizes(slope, out),
    )  # fmt: skip


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
    """See `reference.state_slope`."""
    sizes, whole = _sizes(slope, flat), out[0].numel() // out.shape[-1]
    each = len(slope) if len(out) == 1 else 1
    stencils.state_slope[(parts(whole, sizes["B"]), len(out))](
        slope, x, flat if shift is None else shift, where, flat, images, out, slope.shape[1], whole,
        *_sides(x, stride), stride, each, shift is not None, **sizes,
    )  # fmt: skip


def _sides(x: Tensor, stride: int) -> tuple[int, int, int, int, int, int]:
    """Sides of sources and images, how far sources lie apart (one serves all images: 0), and pixels."""
    s, _, h, w, _ = x.shape
    return h, w, parts(h, stride), parts(w, stride), x.stride(0) if s > 1 else 0, pixel_step(x)


def _matrix(c: int, like: Tensor) -> dict[str, Any]:
    """Sizes of kernels of small matrices."""
    padded = max(16, triton.next_power_of_2(c))
    return {"C": c, "CB": padded, "ACC": _precision(like), **OPTIONS}


def _sizes(image: Tensor, like: Tensor) -> dict[str, Any]:
    """Sizes of kernels of images [., P, C] whose sums are as precise as `like`."""
    found = _matrix(image.shape[-1], like)
    return {**found, "B": max(16, HELD // found["CB"])}


def _precision(like: Tensor) -> Any:
    return tl.float64 if like.dtype == torch.float64 else tl.float32
