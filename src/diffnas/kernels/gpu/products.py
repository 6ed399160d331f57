"""Triton kernels that take pixels through small matrices: sums of terms on edges, and what comes back (see `reference`)."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language import constexpr, tensor

from diffnas.kernels.gpu import layout

COLUMNS = tl.constexpr(layout.COLUMNS)
IMAGE, ROW = tl.constexpr(layout.IMAGE), tl.constexpr(layout.ROW)
BEGIN, END = tl.constexpr(layout.BEGIN), tl.constexpr(layout.END)
MAP, FROM_G, FROM_D = tl.constexpr(layout.MAP), tl.constexpr(layout.FROM_G), tl.constexpr(layout.FROM_D)
SHIFT, CENTRE, CONSTANT = tl.constexpr(layout.SHIFT), tl.constexpr(layout.CENTRE), tl.constexpr(layout.CONSTANT)


@triton.jit
def pixels(
    rows: tensor, which: tensor, p: tensor, end: tensor, P: tensor, C: constexpr, CB: constexpr, ACC: constexpr,
) -> tensor:  # fmt: skip
    """[B, CB]: pixels p, as far as they lie before `end`, of image `which` of `rows`."""
    c = tl.arange(0, CB)
    mask = (p < end)[:, None] & (c < C)[None, :]
    return tl.load(rows + (which.to(tl.int64) * P + p)[:, None] * C + c[None, :], mask=mask, other=0.0).to(ACC)


@triton.jit
def matrix(matrices: tensor, which: constexpr, t: tensor, T: tensor, C: constexpr, CB: constexpr) -> tensor:
    """[CB, CB]: one of a term's matrices."""
    c = tl.arange(0, CB)
    place = ((T * which + t) * C + c)[:, None] * C + c[None, :]
    return tl.load(matrices + place, mask=(c < C)[:, None] & (c < C)[None, :], other=0.0)


@triton.jit
def vector(vectors: tensor, which: constexpr, t: tensor, T: tensor, C: constexpr, CB: constexpr) -> tensor:
    """[CB]: one of a term's rows."""
    c = tl.arange(0, CB)
    return tl.load(vectors + (T * which + t) * C + c, mask=c < C, other=0.0)


@triton.jit(do_not_specialize=["T"])
def mix(
    d: tensor, matrices: tensor, vectors: tensor, terms: tensor, edges: tensor, out: tensor, P: tensor, T: tensor,
    C: constexpr, CB: constexpr, B: constexpr, ACC: constexpr,
) -> None:  # fmt: skip
    """A block of pixels of one edge."""
    e = tl.program_id(1)
    p, c = tl.program_id(0) * B + tl.arange(0, B), tl.arange(0, CB)
    total = tl.zeros((B, CB), ACC)
    for at in range(tl.load(edges + e), tl.load(edges + e + 1)):
        t = tl.load(edges + at)
        image = pixels(d, tl.load(terms + t * COLUMNS + IMAGE), p, P, P, C, CB, ACC)
        total += tl.dot(image, matrix(matrices, MAP, t, T, C, CB), input_precision="ieee", out_dtype=ACC)
        total += vector(vectors, SHIFT, t, T, C, CB)[None, :]
    place = out + (e.to(tl.int64) * P + p)[:, None] * C + c[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=(p < P)[:, None] & (c < C)[None, :])


@triton.jit(do_not_specialize=["T", "FIRST"])
def products(
    g: tensor, d: tensor, vectors: tensor, terms: tensor, outer: tensor, totals: tensor, P: tensor, T: tensor,
    FIRST: tensor, RUN: tensor, C: constexpr, CB: constexpr, B: constexpr, ACC: constexpr,
) -> None:  # fmt: skip
    """One run of pixels of one term."""
    i, n = tl.program_id(0), tl.program_id(1)
    t, c, end = FIRST + n, tl.arange(0, CB), tl.minimum(P, (i + 1) * RUN)
    image, edge = tl.load(terms + t * COLUMNS + IMAGE), tl.load(terms + t * COLUMNS + ROW)
    centre = vector(vectors, CENTRE, t, T, C, CB)
    Q = tl.zeros((CB, CB), ACC)
    q = tl.zeros((CB,), ACC)
    for begin in range(0, RUN, B):
        p = i * RUN + begin + tl.arange(0, B)
        slope = pixels(g, edge, p, end, P, C, CB, ACC)
        apart = pixels(d, image, p, end, P, C, CB, ACC) - centre[None, :]
        Q += tl.dot(tl.trans(slope), apart, input_precision="ieee", out_dtype=ACC)
        q += tl.sum(slope, 0)
    place = (i * tl.num_programs(1) + n) * C + c
    tl.store(outer + place[:, None] * C + c[None, :], Q, mask=(c < C)[:, None] & (c < C)[None, :])
    tl.store(totals + (i * tl.num_programs(1) + n) * C + c, q, mask=c < C)


@triton.jit(do_not_specialize=["T", "FIRST"])
def slopes(
    g: tensor, d: tensor, matrices: tensor, vectors: tensor, images: tensor, terms: tensor, out: tensor, P: tensor,
    T: tensor, FIRST: tensor, C: constexpr, CB: constexpr, B: constexpr, ACC: constexpr,
) -> None:  # fmt: skip
    """A block of pixels of one image, summed over its terms."""
    n = tl.program_id(1)
    p, c = tl.program_id(0) * B + tl.arange(0, B), tl.arange(0, CB)
    row = images + (FIRST + n) * COLUMNS
    image = pixels(d, FIRST + n, p, P, P, C, CB, ACC)
    total = tl.zeros((B, CB), ACC)
    for t in range(tl.load(row + BEGIN), tl.load(row + END)):
        slope = pixels(g, tl.load(terms + t * COLUMNS + ROW), p, P, P, C, CB, ACC)
        apart = image - vector(vectors, CENTRE, t, T, C, CB)[None, :]
        total += tl.dot(slope, matrix(matrices, FROM_G, t, T, C, CB), input_precision="ieee", out_dtype=ACC)
        total += tl.dot(apart, matrix(matrices, FROM_D, t, T, C, CB), input_precision="ieee", out_dtype=ACC)
        total += vector(vectors, CONSTANT, t, T, C, CB)[None, :]
    place = out + (n.to(tl.int64) * P + p)[:, None] * C + c[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=(p < P)[:, None] & (c < C)[None, :])
