"""What treats numbers one by one, made like the functions in `loops`: borders, scales, masks, sums over pixels or images."""

from __future__ import annotations

from typing import Any

from diffnas.kernels.native.loops import ADD, Kernel
from diffnas.kernels.native.vectors import fma, load, plus, pointer, spread, store, where_positive


def padded_relu(real: Any, lanes: int) -> Kernel:
    """Writes the ReLU of an image [h, width, c] into the middle of one with a border, and zeros into that."""

    def padded_relu(x: int, o: int, h: int, width: int, border: int, c: int) -> None:
        px, po = pointer(x, real), pointer(o, real)
        nothing = spread(real(0), lanes)
        wide = (width + 2 * border) * c
        for i in range(h + 2 * border):
            at = i * wide
            if i < border or i >= border + h:
                for k in range(0, wide, lanes):
                    store(po, at + k, nothing)
            else:
                for k in range(0, border * c, lanes):
                    store(po, at + k, nothing)
                    store(po, at + wide - border * c + k, nothing)
                source = (i - border) * width * c
                for k in range(0, width * c, lanes):
                    value = load(px, source + k, lanes)
                    store(po, at + border * c + k, where_positive(value, value))

    return padded_relu


def scaled(real: Any, lanes: int, mode: int) -> Kernel:
    """y = d * scale + constant for pixels of c channels: `mode` STORE or ADD."""

    def scaled(d: int, scale: int, constant: int, y: int, pixels: int, c: int) -> None:
        pd, ps, pc, py = pointer(d, real), pointer(scale, real), pointer(constant, real), pointer(y, real)
        for b in range(0, c, lanes):
            by, shift = load(ps, b, lanes), load(pc, b, lanes)
            for at in range(b, pixels * c, c):
                value = fma(load(pd, at, lanes), by, shift)
                if mode == ADD:
                    value = plus(value, load(py, at, lanes))
                store(py, at, value)

    return scaled


def column_products(real: Any, lanes: int) -> Kernel:
    """The sums [c] over pixels of g d."""

    def column_products(g: int, d: int, pixels: int, o: int, c: int) -> None:
        pg, pd, po = pointer(g, real), pointer(d, real), pointer(o, real)
        for b in range(0, c, lanes):
            even = odd = spread(real(0), lanes)
            for p in range(0, pixels - 1, 2):
                even = fma(load(pg, p * c + b, lanes), load(pd, p * c + b, lanes), even)
                odd = fma(load(pg, (p + 1) * c + b, lanes), load(pd, (p + 1) * c + b, lanes), odd)
            if pixels % 2:
                at = (pixels - 1) * c + b
                even = fma(load(pg, at, lanes), load(pd, at, lanes), even)
            store(po, b, plus(even, odd))

    return column_products


def masked(real: Any, lanes: int, mode: int) -> Kernel:
    """y = g where x is positive, else 0, for `size` numbers: `mode` STORE or ADD."""

    def masked(x: int, g: int, y: int, size: int) -> None:
        px, pg, py = pointer(x, real), pointer(g, real), pointer(y, real)
        for at in range(0, size, lanes):
            value = where_positive(load(px, at, lanes), load(pg, at, lanes))
            if mode == ADD:
                value = plus(value, load(py, at, lanes))
            store(py, at, value)

    return masked


def turned(real: Any, lanes: int) -> Kernel:
    """Writes a kernel w [c, taps] as [taps, c] to `o`, and last tap first to `back`."""

    def turned(w: int, taps: int, o: int, back: int, c: int) -> None:
        pw, po, pb = pointer(w, real), pointer(o, real), pointer(back, real)
        for t in range(taps):
            for k in range(c):
                po[t * c + k] = pw[k * taps + t]
                pb[(taps - 1 - t) * c + k] = pw[k * taps + t]

    return turned


def gathered(real: Any, lanes: int) -> Kernel:
    """The sum over images of `parts` [n, taps, c] as [c, taps]; `parts` is used up."""

    def gathered(parts: int, n: int, taps: int, o: int, c: int) -> None:
        pp, po = pointer(parts, real), pointer(o, real)
        for at in range(0, taps * c, lanes):
            total = load(pp, at, lanes)
            for i in range(1, n):
                total = plus(total, load(pp, i * taps * c + at, lanes))
            store(pp, at, total)
        for t in range(taps):
            for k in range(c):
                po[k * taps + t] = pp[t * c + k]

    return gathered


def summed(real: Any, lanes: int) -> Kernel:
    """Adds `count` rows of `size` numbers up, in the first of them."""

    def summed(rows: int, count: int, size: int) -> None:
        p = pointer(rows, real)
        for i in range(1, count):
            for at in range(0, size, lanes):
                store(p, at, plus(load(p, at, lanes), load(p, i * size + at, lanes)))

    return summed
