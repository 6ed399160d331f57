"""Loops for what leaves a state of NAS-Bench-201, made like the functions in `loops`: mixtures of dense convolutions, a pool
and the state itself, and the way back.  The outputs of 3x3 convolutions may stand side by side: `z_step` is the distance of
two pixels."""

from __future__ import annotations

from typing import Any

from diffnas.kernels.native.loops import ADD, Kernel
from diffnas.kernels.native.rows import add_numbers, add_vectors, load_row, plus_row, row, store_row
from diffnas.kernels.native.vectors import fma, load, minus, plus, pointer, spread, store, times, where_positive


def centred(real: Any, lanes: int) -> Kernel:
    """Writes d [pixels, c] less m [c] to o."""

    def centred(d: int, m: int, o: int, pixels: int, c: int) -> None:
        pd, pm, po = pointer(d, real), pointer(m, real), pointer(o, real)
        for b in range(0, c, lanes):
            mean = load(pm, b, lanes)
            for at in range(b, pixels * c, c):
                store(po, at, minus(load(pd, at, lanes), mean))

    return centred


def moments(real: Any, lanes: int) -> Kernel:
    """The means [c] over pixels of z, and the sums [c] of the squares of what is left."""

    def moments(z: int, z_step: int, means: int, squares: int, pixels: int, c: int) -> None:
        pz, pm, ps = pointer(z, real), pointer(means, real), pointer(squares, real)
        share = spread(real(1.0 / pixels), lanes)
        for b in range(0, c, lanes):
            four = row(spread(real(0), lanes), 4)
            p = 0
            while p + 4 <= pixels:
                four = plus_row(four, load_row(pz, p * z_step + b, z_step, four))
                p += 4
            total = plus(plus(four[0], four[1]), plus(four[2], four[3]))
            while p < pixels:
                total = plus(total, load(pz, p * z_step + b, lanes))
                p += 1
            mean = times(total, share)
            even = odd = spread(real(0), lanes)
            for p in range(0, pixels - 1, 2):
                first = minus(load(pz, p * z_step + b, lanes), mean)
                second = minus(load(pz, (p + 1) * z_step + b, lanes), mean)
                even, odd = fma(first, first, even), fma(second, second, odd)
            if pixels % 2:
                last = minus(load(pz, (pixels - 1) * z_step + b, lanes), mean)
                even = fma(last, last, even)
            store(pm, b, mean)
            store(ps, b, plus(even, odd))

    return moments


def blend(real: Any, lanes: int) -> Kernel:
    """y = constant + r B + x by_x + p by_p + z by_z: `mode` STORE or ADD.

    r, x, p and y are [pixels, c], B [c, c], the factors [c]; where B or a factor is 0, the term is not there.  (Tests for
    that stand within the loop, once for eight pixels: as constants they would make a kernel for each mixture.)
    """

    def blend(
        r: int, B: int, constant: int, x: int, by_x: int, p: int, by_p: int, z: int, z_step: int, by_z: int, y: int,
        mode: int, pixels: int, c: int,
    ) -> None:  # fmt: skip
        pr, pB, pc, px, pp, pz, py = (
            pointer(r, real),
            pointer(B, real),
            pointer(constant, real),
            pointer(x, real),
            pointer(p, real),
            pointer(z, real),
            pointer(y, real),
        )
        for b in range(0, c, lanes):
            first = load(pc, b, lanes)
            factor_x = load(pointer(by_x, real), b, lanes) if by_x != 0 else first
            factor_p = load(pointer(by_p, real), b, lanes) if by_p != 0 else first
            factor_z = load(pointer(by_z, real), b, lanes) if by_z != 0 else first
            j = 0
            while j < pixels:
                at = j * c + b
                if j + 8 <= pixels:
                    eight = row(first, 8)
                    if B != 0:
                        for k in range(c):
                            eight = add_numbers(eight, pr, j * c + k, c, load(pB, k * c + b, lanes))
                    if by_x != 0:
                        eight = add_vectors(eight, px, at, c, factor_x)
                    if by_p != 0:
                        eight = add_vectors(eight, pp, at, c, factor_p)
                    if by_z != 0:
                        eight = add_vectors(eight, pz, j * z_step + b, z_step, factor_z)
                    if mode == ADD:
                        eight = plus_row(load_row(py, at, c, eight), eight)
                    store_row(py, at, c, eight)
                    j += 8
                else:
                    one = row(first, 1)
                    if B != 0:
                        for k in range(c):
                            one = add_numbers(one, pr, j * c + k, c, load(pB, k * c + b, lanes))
                    if by_x != 0:
                        one = add_vectors(one, px, at, c, factor_x)
                    if by_p != 0:
                        one = add_vectors(one, pp, at, c, factor_p)
                    if by_z != 0:
                        one = add_vectors(one, pz, j * z_step + b, z_step, factor_z)
                    if mode == ADD:
                        one = plus_row(load_row(py, at, c, one), one)
                    store_row(py, at, c, one)
                    j += 1

    return blend


def weighed(real: Any, lanes: int) -> Kernel:
    """o [4, c]: the sums over pixels of g, g x, g p and g z; those whose address is 0 are not there."""

    def weighed(g: int, x: int, p: int, z: int, z_step: int, o: int, pixels: int, c: int) -> None:
        pg, px, pp, pz, po = pointer(g, real), pointer(x, real), pointer(p, real), pointer(z, real), pointer(o, real)
        for b in range(0, c, lanes):
            total = by_x = by_p = by_z = spread(real(0), lanes)
            for j in range(pixels):
                slope = load(pg, j * c + b, lanes)
                total = plus(total, slope)
                if x != 0:
                    by_x = fma(slope, load(px, j * c + b, lanes), by_x)
                if p != 0:
                    by_p = fma(slope, load(pp, j * c + b, lanes), by_p)
                if z != 0:
                    by_z = fma(slope, load(pz, j * z_step + b, lanes), by_z)
            store(po, b, total)
            store(po, c + b, by_x)
            store(po, 2 * c + b, by_p)
            store(po, 3 * c + b, by_z)

    return weighed


def through_relu(real: Any, lanes: int) -> Kernel:
    """o = g by_g + (d where x is positive, else 0), for pixels of c channels."""

    def through_relu(x: int, d: int, g: int, by_g: int, o: int, pixels: int, c: int) -> None:
        px, pd, pg, po = pointer(x, real), pointer(d, real), pointer(g, real), pointer(o, real)
        for b in range(0, c, lanes):
            factor = load(pointer(by_g, real), b, lanes)
            for at in range(b, pixels * c, c):
                passed = where_positive(load(px, at, lanes), load(pd, at, lanes))
                store(po, at, fma(load(pg, at, lanes), factor, passed))

    return through_relu


def to_conv(real: Any, lanes: int) -> Kernel:
    """o = constant + g by_g + z by_z; the pixels of z and o stand `z_step` apart."""

    def to_conv(g: int, by_g: int, z: int, by_z: int, constant: int, o: int, z_step: int, pixels: int, c: int) -> None:
        pg, pz, po = pointer(g, real), pointer(z, real), pointer(o, real)
        for b in range(0, c, lanes):
            first = load(pointer(constant, real), b, lanes)
            factor_g, factor_z = load(pointer(by_g, real), b, lanes), load(pointer(by_z, real), b, lanes)
            for j in range(pixels):
                at = j * z_step + b
                store(po, at, fma(load(pg, j * c + b, lanes), factor_g, fma(load(pz, at, lanes), factor_z, first)))

    return to_conv
