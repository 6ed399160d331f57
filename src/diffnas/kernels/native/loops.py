"""The loops over the pixels of an image, channels last, a few pixels and one vector of channels at a time.

Each function makes one kernel: a C function of addresses and integers, compiled for a number type, a vector's lanes and,
where convolutions are unrolled, the size, stride and dilation.  Everything else (height, width, channels) is an argument, so a
supernet needs few of them.  Images that a convolution reads carry a border of zeros; an address is that of the pixel
that the kernel's first tap reads for the first output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffnas.kernels.native.rows import (
    add_numbers,
    add_taps,
    add_vectors,
    load_row,
    plus_row,
    row,
    store_row,
    where_positive_row,
)
from diffnas.kernels.native.vectors import (
    load,
    minus,
    plus,
    pointer,
    spread,
    store,
    times,
)

Kernel = Callable[..., None]
STORE, ADD, MASK, RELU = range(4)
"""What becomes of a result: written; added to what is there; written where a third image is positive, else 0; its ReLU
written."""


def depthwise(real: Any, lanes: int, k: int, stride: int, dilation: int) -> Kernel:
    """Correlates an image with a kernel [k * k, c]: `mode` STORE, ADD or MASK."""

    def depthwise(
        x: int, x_row: int, w: int, o: int, o_row: int, m: int, m_row: int, mode: int, h: int, width: int, c: int
    ) -> None:
        px, pw, po, pm = pointer(x, real), pointer(w, real), pointer(o, real), pointer(m, real)
        nothing = spread(real(0), lanes)
        for i in range(h):
            for b in range(0, c, lanes):
                j = 0
                while j < width:
                    start = i * stride * x_row + j * stride * c + b
                    at = i * o_row + j * c + b
                    if j + 8 <= width:
                        eight = row(nothing, 8)
                        for r in range(k):
                            eight = add_taps(
                                eight, px, start + r * dilation * x_row, pw, r * k * c + b, c, k, stride, dilation
                            )
                        if mode == ADD:
                            eight = plus_row(load_row(po, at, c, eight), eight)
                        if mode == MASK:
                            eight = where_positive_row(load_row(pm, i * m_row + j * c + b, c, eight), eight)
                        store_row(po, at, c, eight)
                        j += 8
                    else:
                        one = row(nothing, 1)
                        for r in range(k):
                            one = add_taps(
                                one, px, start + r * dilation * x_row, pw, r * k * c + b, c, k, stride, dilation
                            )
                        if mode == ADD:
                            one = plus_row(load_row(po, at, c, one), one)
                        if mode == MASK:
                            one = where_positive_row(load_row(pm, i * m_row + j * c + b, c, one), one)
                        store_row(po, at, c, one)
                        j += 1

    return depthwise


def kernel_gradient(real: Any, lanes: int, k: int) -> Kernel:
    """The gradient [k * k, c] to the kernel; the gradient image's pixels stand `stride` apart, as in `depthwise`'s input."""

    def kernel_gradient(
        x: int, x_row: int, g: int, g_row: int, o: int, stride: int, dilation: int, h: int, width: int, c: int
    ) -> None:
        px, pg, po = pointer(x, real), pointer(g, real), pointer(o, real)
        nothing = spread(real(0), lanes)
        for b in range(0, c, lanes):
            for r in range(k):
                even, odd = row(nothing, k), row(nothing, k)
                for i in range(h):
                    start = (i * stride + r * dilation) * x_row + b
                    at = i * stride * g_row + b
                    for j in range(0, width - 1, 2):
                        even = add_vectors(
                            even, px, start + j * stride * c, dilation * c, load(pg, at + j * stride * c, lanes)
                        )
                        odd = add_vectors(
                            odd,
                            px,
                            start + (j + 1) * stride * c,
                            dilation * c,
                            load(pg, at + (j + 1) * stride * c, lanes),
                        )
                    if width % 2:
                        j = width - 1
                        even = add_vectors(
                            even, px, start + j * stride * c, dilation * c, load(pg, at + j * stride * c, lanes)
                        )
                store_row(po, r * k * c + b, c, plus_row(even, odd))

    return kernel_gradient


def product(real: Any, lanes: int, mode: int, both: bool) -> Kernel:
    """y = constant + d B (+ g G where `both`), `rows` rows of `width` pixels: `mode` STORE, ADD or RELU.

    d [rows * width, inner], g [rows * width, outer], B [inner, c], G [outer, c]; the pixels of y stand `step` apart, its
    rows `y_row`.
    """

    def product(
        d: int,
        B: int,
        inner: int,
        g: int,
        G: int,
        outer: int,
        constant: int,
        y: int,
        rows: int,
        width: int,
        y_row: int,
        step: int,
        c: int,
    ) -> None:
        pd, pB, pg, pG, pc, py = (
            pointer(d, real),
            pointer(B, real),
            pointer(g, real),
            pointer(G, real),
            pointer(constant, real),
            pointer(y, real),
        )
        for i in range(rows):
            for b in range(0, c, lanes):
                first = load(pc, b, lanes)
                j = 0
                while j < width:
                    p = i * width + j
                    at = i * y_row + j * step + b
                    if j + 8 <= width:
                        eight = row(first, 8)
                        for k in range(inner):
                            eight = add_numbers(eight, pd, p * inner + k, inner, load(pB, k * c + b, lanes))
                        if both:
                            for k in range(outer):
                                eight = add_numbers(eight, pg, p * outer + k, outer, load(pG, k * c + b, lanes))
                        if mode == ADD:
                            eight = plus_row(load_row(py, at, step, eight), eight)
                        if mode == RELU:
                            eight = where_positive_row(eight, eight)
                        store_row(py, at, step, eight)
                        j += 8
                    else:
                        one = row(first, 1)
                        for k in range(inner):
                            one = add_numbers(one, pd, p * inner + k, inner, load(pB, k * c + b, lanes))
                        if both:
                            for k in range(outer):
                                one = add_numbers(one, pg, p * outer + k, outer, load(pG, k * c + b, lanes))
                        if mode == ADD:
                            one = plus_row(load_row(py, at, step, one), one)
                        if mode == RELU:
                            one = where_positive_row(one, one)
                        store_row(py, at, step, one)
                        j += 1

    return product


def outer(real: Any, lanes: int) -> Kernel:
    """Q [m, c] = sum over `pixels` of g d', with g [pixels, m] and d [pixels, c]; m a multiple of 4."""

    def outer(g: int, m: int, d: int, Q: int, pixels: int, c: int) -> None:
        pg, pd, pQ = pointer(g, real), pointer(d, real), pointer(Q, real)
        nothing = spread(real(0), lanes)
        for at in range(0, m * c, lanes):
            store(pQ, at, nothing)
        for begin in range(0, pixels, 128):
            end = min(pixels, begin + 128)
            for b in range(0, c, lanes):
                k = 0
                while k + 8 <= m:
                    eight = load_row(pQ, k * c + b, c, row(nothing, 8))
                    for p in range(begin, end):
                        eight = add_numbers(eight, pg, p * m + k, 1, load(pd, p * c + b, lanes))
                    store_row(pQ, k * c + b, c, eight)
                    k += 8
                while k < m:
                    four = load_row(pQ, k * c + b, c, row(nothing, 4))
                    for p in range(begin, end):
                        four = add_numbers(four, pg, p * m + k, 1, load(pd, p * c + b, lanes))
                    store_row(pQ, k * c + b, c, four)
                    k += 4

    return outer


def column_sums(real: Any, lanes: int) -> Kernel:
    """The sums [c] over pixels of d [pixels, c], divided by `divisor`."""

    def column_sums(d: int, pixels: int, divisor: int, o: int, c: int) -> None:
        pd, po = pointer(d, real), pointer(o, real)
        nothing, share = spread(real(0), lanes), spread(real(1.0 / divisor), lanes)
        for b in range(0, c, lanes):
            four = row(nothing, 4)
            p = 0
            while p + 4 <= pixels:
                four = plus_row(four, load_row(pd, p * c + b, c, four))
                p += 4
            total = plus(plus(four[0], four[1]), plus(four[2], four[3]))
            while p < pixels:
                total = plus(total, load(pd, p * c + b, lanes))
                p += 1
            store(po, b, times(total, share))

    return column_sums


def centre(real: Any, lanes: int) -> Kernel:
    """Subtracts m [c] from every pixel of d [pixels, c]."""

    def centre(d: int, pixels: int, m: int, c: int) -> None:
        pd, pm = pointer(d, real), pointer(m, real)
        for b in range(0, c, lanes):
            mean = load(pm, b, lanes)
            for p in range(pixels):
                store(pd, p * c + b, minus(load(pd, p * c + b, lanes), mean))

    return centre
