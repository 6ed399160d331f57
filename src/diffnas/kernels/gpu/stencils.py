"""Triton kernels that read neighbouring pixels: images with their statistics, and the gradients to kernels and sources.

What they compute is written in `reference`.  Letters there; `CB` is C rounded up to a power of two, at least 16, `B` the
pixels that a program has in hand, `ACC` the precision of sums.  A source's pixels are `XP` numbers apart, sources `XS`.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language import constexpr, tensor

from diffnas.kernels.gpu import layout

COLUMNS = tl.constexpr(layout.COLUMNS)
CONV, COPY, MAX = tl.constexpr(layout.CONV), tl.constexpr(layout.COPY), tl.constexpr(layout.MAX)
SIDE, DILATION, OFFSET = tl.constexpr(layout.SIDE), tl.constexpr(layout.DILATION), tl.constexpr(layout.OFFSET)
KERNEL, WHERE = tl.constexpr(layout.KERNEL), tl.constexpr(layout.WHERE)


@triton.jit
def convolved(
    x: tensor, kernel: tensor, b: tensor, row: tensor, n: tensor, oy: tensor, ox: tensor, ok: tensor, H: tensor,
    W: tensor, XP: tensor, STRIDE: tensor, C: constexpr, CB: constexpr, B: constexpr, ACC: constexpr,
) -> tensor:  # fmt: skip
    """[B, CB]: a depthwise convolution of relu(x + b) at pixels (oy, ox) of images n."""
    c = tl.arange(0, CB)
    side, dilation, offset = tl.load(row + SIDE), tl.load(row + DILATION), tl.load(row + OFFSET)
    total = tl.zeros((B, CB), ACC)
    for tap in range(side * side):
        y = oy * STRIDE + (tap // side - side // 2) * dilation + offset
        z = ox * STRIDE + (tap % side - side // 2) * dilation + offset
        inside = ok & (y >= 0) & (y < H) & (z >= 0) & (z < W)
        mask = inside[:, None] & (c < C)[None, :]
        v = tl.load(x + ((n * H + y) * W + z)[:, None] * XP + c[None, :], mask=mask, other=0.0).to(ACC) + b[None, :]
        weight = tl.load(kernel + c * side * side + tap, mask=c < C, other=0.0).to(ACC)
        total += tl.where(mask & (v == v), tl.maximum(v, 0.0), tl.where(mask, v, 0.0)) * weight[None, :]
    return total


@triton.jit
def pooled(
    x: tensor, largest: tensor, n: tensor, oy: tensor, ox: tensor, ok: tensor, H: tensor, W: tensor, XP: tensor,
    STRIDE: tensor, C: constexpr, CB: constexpr, B: constexpr, ACC: constexpr,
) -> tensor:  # fmt: skip
    """[B, CB] twice: the largest or the mean of 3x3 pixels, and which of them is the largest."""
    c = tl.arange(0, CB)
    best = tl.full((B, CB), float("-inf"), ACC)
    total = tl.zeros((B, CB), ACC)
    at = tl.zeros((B, CB), tl.int32)
    count = tl.zeros((B,), ACC)
    for tap in range(9):
        y, z = oy * STRIDE + tap // 3 - 1, ox * STRIDE + tap % 3 - 1
        inside = ok & (y >= 0) & (y < H) & (z >= 0) & (z < W)
        mask = inside[:, None] & (c < C)[None, :]
        v = tl.load(x + ((n * H + y) * W + z)[:, None] * XP + c[None, :], mask=mask, other=0.0).to(ACC)
        better = mask & ((v > best) | (v != v))
        best, at = tl.where(better, v, best), tl.where(better, tap, at)
        total += v
        count += inside.to(ACC)
    mean = total / tl.maximum(count, 1.0)[:, None]
    return tl.where(largest, best, mean), at


@triton.jit
def expand(
    x: tensor, shift: tensor, flat: tensor, images: tensor, d: tensor, where: tensor, means: tensor,
    squares: tensor, P: tensor, H: tensor, W: tensor, HO: tensor, WO: tensor, XS: tensor, XP: tensor,
    STRIDE: tensor, RUN: tensor, SHIFTED: constexpr, C: constexpr, CB: constexpr, B: constexpr, ACC: constexpr,
) -> None:  # fmt: skip
    """One run of pixels of one image.  Statistics of blocks are joined exactly, so that no digits cancel."""
    i, j = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row = images + j * COLUMNS
    kind = tl.load(row)
    c = tl.arange(0, CB)
    x += j * XS
    b = tl.zeros((CB,), ACC)
    if SHIFTED:
        b = tl.load(shift + j * C + c, mask=c < C, other=0.0).to(ACC)
    count = 0.0
    mean = tl.zeros((CB,), ACC)
    square = tl.zeros((CB, CB), ACC)
    for begin in range(0, RUN, B):
        p = i * RUN + begin + tl.arange(0, B)
        ok = p < tl.minimum(P, (i + 1) * RUN)
        mask = ok[:, None] & (c < C)[None, :]
        n, oy, ox = p // (HO * WO), p // WO % HO, p % WO
        if kind == CONV:
            made = convolved(x, flat + tl.load(row + KERNEL), b, row, n, oy, ox, ok, H, W, XP, STRIDE, C, CB, B, ACC)
        elif kind == COPY:
            made = tl.load(x + p[:, None] * XP + c[None, :], mask=mask, other=0.0).to(ACC)
        else:
            made, at = pooled(x, kind == MAX, n, oy, ox, ok, H, W, XP, STRIDE, C, CB, B, ACC)
            if kind == MAX:
                largest = where + (tl.load(row + WHERE).to(tl.int64) * P + p)[:, None] * C + c[None, :]
                tl.store(largest, at.to(tl.uint8), mask=mask)
        kept = made.to(d.dtype.element_ty)
        tl.store(d + (j * P + p)[:, None] * C + c[None, :], kept, mask=mask)
        values = tl.where(mask, kept.to(ACC), 0.0)
        more = tl.sum(ok.to(ACC))
        here = tl.sum(values, 0) / tl.maximum(more, 1.0)
        apart = tl.where(mask, values - here[None, :], 0.0)
        delta = here - mean
        both = tl.maximum(count + more, 1.0)
        square += tl.dot(tl.trans(apart), apart, input_precision="ieee", out_dtype=ACC)
        square += delta[:, None] * delta[None, :] * (count * more / both)
        mean += delta * (more / both)
        count += more
    at_mean = i * tl.num_programs(1) + j
    tl.store(means + at_mean * C + c, mean, mask=c < C)
    inside = (c < C)[:, None] & (c < C)[None, :]
    tl.store(squares + (at_mean * C + c)[:, None] * C + c[None, :], square, mask=inside)


@triton.jit(do_not_specialize=["SIZE"])
def kernel_slopes(
    slope: tensor, x: tensor, shift: tensor, images: tensor, out: tensor, P: tensor, H: tensor, W: tensor,
    HO: tensor, WO: tensor, XS: tensor, XP: tensor, STRIDE: tensor, RUN: tensor, SIZE: tensor, SHIFTED: constexpr,
    C: constexpr, CB: constexpr, B: constexpr, ACC: constexpr,
) -> None:  # fmt: skip
    """One run of pixels of one image, for one place of its kernel."""
    i, j, tap = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2)
    row = images + j * COLUMNS
    side, dilation, kernel = tl.load(row + SIDE), tl.load(row + DILATION), tl.load(row + KERNEL)
    if (tl.load(row) == CONV) & (kernel < SIZE) & (tap < side * side):
        c = tl.arange(0, CB)
        x += j * XS
        b = tl.zeros((CB,), ACC)
        if SHIFTED:
            b = tl.load(shift + j * C + c, mask=c < C, other=0.0).to(ACC)
        total = tl.zeros((B, CB), ACC)
        for begin in range(0, RUN, B):
            p = i * RUN + begin + tl.arange(0, B)
            n, oy, ox = p // (HO * WO), p // WO % HO, p % WO
            y = oy * STRIDE + (tap // side - side // 2) * dilation
            z = ox * STRIDE + (tap % side - side // 2) * dilation
            inside = (p < tl.minimum(P, (i + 1) * RUN)) & (y >= 0) & (y < H) & (z >= 0) & (z < W)
            mask = inside[:, None] & (c < C)[None, :]
            v = tl.load(x + ((n * H + y) * W + z)[:, None] * XP + c[None, :], mask=mask, other=0.0).to(ACC) + b[None, :]
            g = tl.load(slope + (j * P + p)[:, None] * C + c[None, :], mask=mask, other=0.0).to(ACC)
            total += g * tl.where(v == v, tl.maximum(v, 0.0), v)
        tl.store(out + i * SIZE + kernel + c * side * side + tap, tl.sum(total, 0), mask=c < C)


@triton.jit
def spread(
    slope: tensor, where: tensor, flat: tensor, row: tensor, n: tensor, y: tensor, z: tensor, ok: tensor, P: tensor,
    HO: tensor, WO: tensor, H: tensor, W: tensor, STRIDE: tensor, C: constexpr, CB: constexpr, B: constexpr,
    ACC: constexpr,
) -> tensor:  # fmt: skip
    """[B, CB]: what pixels (y, z) of a source get from the gradient to one image."""
    c = tl.arange(0, CB)
    kind, side, dilation, offset = tl.load(row), tl.load(row + SIDE), tl.load(row + DILATION), tl.load(row + OFFSET)
    if kind > COPY:
        side, dilation = 3, 1
    kernel, largest = flat + tl.load(row + KERNEL), where + tl.load(row + WHERE).to(tl.int64) * P * C
    total = tl.zeros((B, CB), ACC)
    for tap in range(side * side):
        up = y - (tap // side - side // 2) * dilation - offset
        left = z - (tap % side - side // 2) * dilation - offset
        oy, ox = up // STRIDE, left // STRIDE
        inside = ok & (up >= 0) & (left >= 0) & (up % STRIDE == 0) & (left % STRIDE == 0) & (oy < HO) & (ox < WO)
        mask = inside[:, None] & (c < C)[None, :]
        place = ((n * HO + oy) * WO + ox)[:, None] * C + c[None, :]
        g = tl.load(slope + place, mask=mask, other=0.0).to(ACC)
        if kind == CONV:
            g *= tl.load(kernel + c * side * side + tap, mask=c < C, other=0.0).to(ACC)[None, :]
        elif kind == MAX:
            at = tl.load(largest + place, mask=mask, other=255).to(tl.int32)
            g = tl.where(at == tap, g, 0.0)
        elif kind > MAX:
            high = tl.minimum(oy * STRIDE + 2, H) - tl.maximum(oy * STRIDE - 1, 0)
            wide = tl.minimum(ox * STRIDE + 2, W) - tl.maximum(ox * STRIDE - 1, 0)
            g = g / tl.where(inside, high * wide, 1).to(ACC)[:, None]
        total += g
    return total


@triton.jit(do_not_specialize=["EACH"])
def state_slope(
    slope: tensor, x: tensor, shift: tensor, where: tensor, flat: tensor, images: tensor, out: tensor, P: tensor,
    Q: tensor, H: tensor, W: tensor, HO: tensor, WO: tensor, XS: tensor, XP: tensor, STRIDE: tensor, EACH: tensor,
    SHIFTED: constexpr, C: constexpr, CB: constexpr, B: constexpr, ACC: constexpr,
) -> None:  # fmt: skip
    """A block of pixels of one source, of whose `Q` pixels each sums up what it gets from its `EACH` images."""
    s = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * B + tl.arange(0, B)
    c = tl.arange(0, CB)
    ok = p < Q
    mask = ok[:, None] & (c < C)[None, :]
    n, y, z = p // (H * W), p // W % H, p % W
    here = tl.load(x + s * XS + p[:, None] * XP + c[None, :], mask=mask, other=0.0).to(ACC)
    if SHIFTED:
        here += tl.load(shift + s * C + c, mask=c < C, other=0.0).to(ACC)[None, :]
    total = tl.zeros((B, CB), ACC)
    for k in range(EACH):
        j = s * EACH + k
        row = images + j * COLUMNS
        more = spread(slope + j * P * C, where, flat, row, n, y, z, ok, P, HO, WO, H, W, STRIDE, C, CB, B, ACC)
        if tl.load(row) == CONV:
            more = tl.where(here > 0, more, 0.0)
        total += more
    tl.store(out + (s * Q + p)[:, None] * C + c[None, :], total.to(out.dtype.element_ty), mask=mask)
