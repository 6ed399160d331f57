"""Triton kernels for what happens to a term's small matrices between two passes over its pixels (see `reference`)."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language import constexpr, tensor

from diffnas.kernels.gpu import layout
from diffnas.kernels.gpu.products import matrix, vector

COLUMNS = tl.constexpr(layout.COLUMNS)
IMAGE, POINT = tl.constexpr(layout.IMAGE), tl.constexpr(layout.POINT)
SHARE, NORMED = tl.constexpr(layout.SHARE), tl.constexpr(layout.NORMED)
MAP, SPREAD = tl.constexpr(layout.MAP), tl.constexpr(layout.SPREAD)
FROM_G, FROM_D = tl.constexpr(layout.FROM_G), tl.constexpr(layout.FROM_D)
SHIFT, INVERSE, CENTRE = tl.constexpr(layout.SHIFT), tl.constexpr(layout.INVERSE), tl.constexpr(layout.CENTRE)
YMEAN, YVAR, CONSTANT = tl.constexpr(layout.YMEAN), tl.constexpr(layout.YVAR), tl.constexpr(layout.CONSTANT)


@triton.jit
def put_matrix(
    matrices: tensor, which: constexpr, t: tensor, T: tensor, value: tensor, C: constexpr, CB: constexpr,
) -> None:  # fmt: skip
    """Writes one of a term's matrices."""
    c = tl.arange(0, CB)
    place = ((T * which + t) * C + c)[:, None] * C + c[None, :]
    tl.store(matrices + place, value, mask=(c < C)[:, None] & (c < C)[None, :])


@triton.jit
def put_vector(
    vectors: tensor, which: constexpr, t: tensor, T: tensor, value: tensor, C: constexpr, CB: constexpr,
) -> None:  # fmt: skip
    """Writes one of a term's rows."""
    c = tl.arange(0, CB)
    tl.store(vectors + (T * which + t) * C + c, value, mask=c < C)


@triton.jit
def point(flat: tensor, row: tensor, C: constexpr, CB: constexpr) -> tensor:
    """[CB, CB]: a term's 1x1 kernel."""
    c = tl.arange(0, CB)
    place = tl.load(row + POINT) + c[:, None] * C + c[None, :]
    return tl.load(flat + place, mask=(c < C)[:, None] & (c < C)[None, :], other=0.0)


@triton.jit
def share_of(shares: tensor, row: tensor) -> tensor:
    """A term's share; 1 where it has none."""
    place = tl.load(row + SHARE)
    return tl.where(place >= 0, tl.load(shares + tl.maximum(place, 0)), 1.0)


@triton.jit(do_not_specialize=["T", "J", "FIRST", "FIRST_IMAGE", "RUNS"])
def fold(
    means: tensor, squares: tensor, flat: tensor, terms: tensor, shares: tensor, given: tensor, matrices: tensor,
    vectors: tensor, T: tensor, J: tensor, FIRST: tensor, FIRST_IMAGE: tensor, P: tensor, RUN: tensor, RUNS: tensor,
    EPS: tensor, GIVEN: constexpr, C: constexpr, CB: constexpr, R: constexpr, ACC: constexpr,
) -> None:  # fmt: skip
    """One term.  Runs are taken `R` at a time."""
    t, c = FIRST + tl.program_id(0), tl.arange(0, CB)
    row = terms + t * COLUMNS
    j = tl.load(row + IMAGE) - FIRST_IMAGE
    inside = (c < C)[:, None] & (c < C)[None, :]
    mean = tl.zeros((CB,), ACC)
    for begin in range(0, RUNS, R):
        i = begin + tl.arange(0, R)
        size = tl.maximum(tl.minimum(P - i * RUN, RUN), 0).to(ACC)
        mask = (i < RUNS)[:, None] & (c < C)[None, :]
        mean += tl.sum(tl.load(means + (i * J + j)[:, None] * C + c[None, :], mask=mask, other=0.0) * size[:, None], 0)
    mean /= P
    cov = tl.zeros((CB, CB), ACC)
    for i in range(RUNS):
        size = tl.minimum(P - i * RUN, RUN)
        apart = tl.load(means + (i * J + j) * C + c, mask=c < C, other=0.0) - mean
        place = ((i * J + j) * C + c)[:, None] * C + c[None, :]
        cov += tl.load(squares + place, mask=inside, other=0.0) + apart[:, None] * apart[None, :] * size
    cov /= P
    W, s = point(flat, row, C, CB), share_of(shares, row)
    out = tl.dot(W, cov, input_precision="ieee", out_dtype=ACC)
    ymean = tl.sum(W * mean[None, :], 1)
    var = tl.maximum(tl.sum(out * W, 1), 0.0)
    put_vector(vectors, YMEAN, t, T, ymean, C, CB)
    put_vector(vectors, YVAR, t, T, var * P / tl.maximum(P - 1, 1), C, CB)
    if GIVEN:
        ymean, var = vector(given, 0, t, T, C, CB), vector(given, 1, t, T, C, CB)
        mean *= 0.0
    inverse = 1.0 / tl.sqrt(var + EPS)
    if tl.load(row + NORMED) == 0:
        ymean, mean = ymean * 0.0, mean * 0.0
        inverse = inverse * 0.0 + 1.0
    put_matrix(matrices, MAP, t, T, tl.trans(W * (inverse * s)[:, None]), C, CB)
    put_matrix(matrices, SPREAD, t, T, out * inverse[:, None], C, CB)
    put_vector(vectors, SHIFT, t, T, -s * inverse * ymean, C, CB)
    put_vector(vectors, INVERSE, t, T, inverse, C, CB)
    put_vector(vectors, CENTRE, t, T, mean, C, CB)


@triton.jit(do_not_specialize=["T", "N", "FIRST", "RUNS"])
def pull(
    outer: tensor, totals: tensor, flat: tensor, terms: tensor, shares: tensor, given: tensor, matrices: tensor,
    vectors: tensor, to_flat: tensor, to_shares: tensor, T: tensor, N: tensor, FIRST: tensor, P: tensor,
    RUNS: tensor, GIVEN: constexpr, TO_FLAT: constexpr, TO_SHARES: constexpr, C: constexpr, CB: constexpr,
    ACC: constexpr,
) -> None:  # fmt: skip
    """One term.  No share has more than two terms, so that adding to its gradient depends on no order."""
    n, c = tl.program_id(0), tl.arange(0, CB)
    t = FIRST + n
    row = terms + t * COLUMNS
    inside = (c < C)[:, None] & (c < C)[None, :]
    Q = tl.zeros((CB, CB), ACC)
    q = tl.zeros((CB,), ACC)
    for i in range(RUNS):
        place = (i * N + n) * C + c
        Q += tl.load(outer + place[:, None] * C + c[None, :], mask=inside, other=0.0)
        q += tl.load(totals + place, mask=c < C, other=0.0)
    W, s, inverse = point(flat, row, C, CB), share_of(shares, row), vector(vectors, INVERSE, t, T, C, CB)
    normed = tl.load(row + NORMED) != 0
    A, scale = W * inverse[:, None], s * inverse
    share = tl.sum(A * Q, 1)
    by_batch = tl.where(normed, 1.0, 0.0).to(ACC)
    if GIVEN:
        share -= tl.where(normed, vector(given, 0, t, T, C, CB) * inverse * q, 0.0)
        by_batch *= 0.0
    if TO_SHARES:
        place = tl.load(row + SHARE)
        tl.atomic_add(to_shares + place, tl.sum(share), mask=place >= 0)
    if TO_FLAT:
        own = share[:, None] * matrix(matrices, SPREAD, t, T, C, CB) * by_batch
        place = tl.load(row + POINT) + c[:, None] * C + c[None, :]
        tl.store(to_flat + place, scale[:, None] * (Q - own), mask=inside)
    from_g = W * scale[:, None]
    back = from_g * (by_batch / P)
    put_matrix(matrices, FROM_G, t, T, from_g, C, CB)
    through = tl.dot(tl.trans(back * share[:, None]), A, input_precision="ieee", out_dtype=ACC)
    put_matrix(matrices, FROM_D, t, T, -through, C, CB)
    put_vector(vectors, CONSTANT, t, T, -tl.sum(back * q[:, None], 0), C, CB)
